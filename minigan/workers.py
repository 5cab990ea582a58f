"""Floor 0: a few threads that share the work of one operation on the CPU.

NumPy lets go of the interpreter's lock while it copies, adds or multiplies, so plain Python threads
use all cores. An operation cuts its work into pieces and calls `each`; every piece writes a part of
the result that is its own. How the work is cut depends on the shapes alone, never on how many
workers there are or which is first: the result is the same to the bit for any number of them.

Meanwhile BLAS has one thread (`threads`), and `matmul` cuts up large products here.
"""

from __future__ import annotations

import math
import numbers
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from functools import partial
from operator import itemgetter
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np

from minigan import gemm
from minigan.threads import pool

PIECES = 4  # work is cut into this many, or a multiple
PIECE_WORK = 1 << 24  # multiplications in a piece, at least
HANDING_OVER = 1 << 22  # multiplications: what handing something to another core costs
BLOCK = 1 << 18  # numbers of a pass in a piece: so few are over before a helper is awake
FEW = 500  # numbers: for a result with no more NumPy's matmul keeps the interpreter's lock
SCRATCH_BYTES = 1 << 24  # a buffer larger than this is not kept
SHAPES = 100  # that a buffer was asked for in are kept, at most


def get_num_threads() -> int:
    """Return how many threads share an operation: one for each core, 8 at most, unless changed."""
    return pool.count


def set_num_threads(count: int) -> None:
    """Let `count` threads share an operation on the CPU, as MINIGAN_THREADS does at the start.

    Raises:
        ValueError: fewer than one.
    """
    if not isinstance(count, numbers.Real) or count % 1 != 0 or count < 1:  # inf % 1 is NaN
        raise ValueError(f"set_num_threads: needs a whole number >= 1, got {count!r}")
    pool.count = int(count)


def each(function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
    """Call `function` on every item, on all workers, and return the results in the items' order.

    No two items may write to the same place. A single item, and items inside of a piece, are a
    plain loop. Of exceptions that of the first item is raised, when all pieces have ended.
    """
    items = list(items)
    if len(items) < 2 or _busy():
        return [function(item) for item in items]
    waiting = deque((i, partial(function, item)) for i, item in enumerate(items))
    ended, context = SimpleQueue(), copy_context()

    def work() -> None:  # holds no array when all is done, for it may be in the queue for long
        pool.mine.busy = True
        try:
            while True:
                i, piece = waiting.popleft()
                try:
                    ended.put((i, piece(), None))
                except BaseException as error:  # raised again by the thread that called `each`
                    ended.put((i, None, error))
        except IndexError:
            return
        finally:
            pool.mine.busy = False

    with pool.one_blas_thread():
        pool.call(lambda: context.copy().run(work), min(pool.count, len(items)) - 1)
        work()  # a helper that wakes up too late finds nothing to do, and is not waited for
        outcomes = sorted((ended.get() for _ in items), key=itemgetter(0))
    for _, _, error in outcomes:
        if error is not None:
            try:
                raise error
            finally:
                del error, outcomes  # which know the frame that knows them: a cycle, else
    return [result for _, result, _ in outcomes]


class _Call:
    """A function that waits, and then what it returned or raised."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self.function = partial(copy_context().run, function)  # as if made where it is handed out
        self.result, self.error, self.ended = None, None, False

    def make(self) -> None:
        try:
            self.result = self.function()
        except BaseException as error:  # raised again by the thread that takes the result
            self.error = error
        del self.function
        self.ended = True


class Postponed:
    """Functions whose results nobody needs yet: helpers call them when they come to it.

    Give it one after another, `take` what is ready, and in the end the `rest`. What the functions
    hand out, others may take, as of any operation. Without helpers each is called as it is given.
    `of_user`: the functions are not the engine's, and may wait for a lock (see `Pool.call`).
    """

    def __init__(self, helpers: int, accepting: bool = True, of_user: bool = False) -> None:
        self.helpers, self.accepting, self.of_user = helpers, accepting, of_user
        self.calls: deque[_Call] = deque()  # in order, until their results are taken
        self.waiting: SimpleQueue[_Call] = SimpleQueue()
        self.ended: SimpleQueue = SimpleQueue()  # work of others, and nothing for each that has
        self.at_work: list[None] = []  # an entry for each thread in `make_one`: append is atomic

    def accepts(self, work: int) -> bool:
        """Whether so many multiplications are worth it: as many as handing them over costs."""
        return self.accepting and work >= HANDING_OVER

    def __call__(self, function: Callable[[], Any]) -> None:
        self.calls.append(_Call(function))
        if self.helpers:
            self.waiting.put(self.calls[-1])
            pool.call(self.make_one, self.helpers, times=1, of_user=self.of_user)
        else:
            self.calls[-1].make()

    def make_one(self) -> bool:
        """Call the function that has waited longest, if one is left; return whether one was."""
        self.at_work.append(None)
        try:
            self.waiting.get_nowait().make()
            self.ended.put(lambda: None)
        except Empty:  # somebody else has made it
            return False
        finally:
            self.at_work.pop()
        return True

    def take(self) -> list[Any]:
        """Return results in the order of the calls, up to the first that is not there yet.

        The first exception is raised.
        """
        found = []
        while self.calls and self.calls[0].ended:
            call = self.calls.popleft()
            error, call.error = call.error, None  # which knows the frame that knows the call
            if error is not None:
                try:
                    raise error
                finally:
                    del error  # and this frame: a cycle, else
            found.append(call.result)
        return found

    def rest(self) -> list[Any]:
        """Return all results that were not taken before, as `take`; do what waits meanwhile."""
        if not self.helpers:
            return self.take()
        while self.make_one():
            pass
        pool.resting.append(self.ended)
        try:
            pool.lend_a_hand()
            found = self.take()
            while self.calls:
                self.ended.get()()
                found += self.take()
            return found
        finally:
            pool.resting.remove(self.ended)

    def forget(self) -> None:
        """Drop what nobody has begun with, and wait for the rest."""
        self.calls.clear()
        try:
            while True:
                self.waiting.get_nowait()
        except Empty:
            while self.at_work:
                time.sleep(0.001)


@contextmanager
def postponed(of_user: bool = False) -> Iterator[Postponed]:
    """Yield a `Postponed` for what can wait until the end of the block."""
    with pool.one_blas_thread():
        later = Postponed(0 if _busy() else pool.count - 1, of_user=of_user)
        try:
            yield later
        except BaseException:
            later.forget()
            raise


told_of_claims: ContextVar[Callable[[str, object], None] | None] = ContextVar(
    "told_of_claims", default=None
)


def claim(what: str, thing: object) -> None:
    """Announce a change that others will see; no two functions side by side may make the same.

    Raises:
        RuntimeError: another function of `side_by_side` has changed it.
    """
    if claims := told_of_claims.get():
        claims(what, thing)


def _busy() -> bool:
    """Whether this thread works on a piece: what it calls is then not cut up again."""
    return getattr(pool.mine, "busy", False)


def cut(length: int, pieces: int) -> Iterator[slice]:
    """Yield slices that cut a length into so many pieces, as equal as may be; none is empty."""
    pieces = max(1, min(pieces, length))
    for i in range(pieces if length else 0):
        yield slice(i * length // pieces, (i + 1) * length // pieces)


def blocks(function: Callable[..., Any], *arrays: np.ndarray) -> list[Any]:
    """Call `function` on the arrays a block at a time, cut alike along their first axis.

    The workers share the blocks, and a chain of passes over one mostly stays in the cache. Returns
    the results in order. For products the function calls `matmul`.
    """
    largest = max(a.size for a in arrays)
    if largest <= BLOCK or _busy():
        return [function(*arrays)]
    pieces = -(-largest // (BLOCK * 2)) * 2  # even, so that of two workers none is left over
    return each(lambda some: function(*(a[some] for a in arrays)), cut(len(arrays[0]), pieces))


def matmul(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    """out = a @ b, cut along the longer side of `out`: what both pieces read is then the less."""
    pieces = min(PIECES, math.prod(out.shape) * a.shape[-1] // PIECE_WORK)
    if a.shape[-1] == 1:  # for which a BLAS takes 15 times as long
        np.multiply(a, b, out=out)
    elif _busy():
        _matmul(a, b, out)
    elif pieces < 2:
        with pool.one_blas_thread():
            _matmul(a, b, out)
    elif out.shape[-2] >= out.shape[-1]:
        each(
            lambda rows: _matmul(a[..., rows, :], b, out[..., rows, :]),
            cut(out.shape[-2], pieces),
        )
    else:
        each(
            lambda columns: _matmul(a, b[..., columns], out[..., columns]),
            cut(out.shape[-1], pieces),
        )


def _matmul(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    """out = a @ b, on this thread, without the interpreter's lock.

    NumPy's matmul keeps it where the result has few numbers, however long the sums are. Its dot
    does not, but takes no stacks, and no view for the result.
    """
    is_small = out.size <= FEW and out.flags.c_contiguous
    if is_small and math.prod(a.shape[:-2]) == math.prod(b.shape[:-2]) == 1:  # no stacks
        a, b, out = (array.reshape(array.shape[-2:]) for array in (a, b, out))
        np.dot(a, b, out=out)
    else:
        np.matmul(a, b, out=out)


def add_products(*products: Any) -> None:
    """As `gemm.add_products`; not cut up."""
    if _busy():
        gemm.add_products(*products)
    else:
        with pool.one_blas_thread():
            gemm.add_products(*products)


def scratch(name: str, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Return this thread's buffer called `name`, in this shape; what it holds is left over.

    A fresh array costs the kernel a page fault for every 4 kB of it, each time.
    """
    buffers = pool.mine.__dict__.setdefault("buffers", {})
    buffer, shaped = buffers.get(name, (None, {}))
    array = shaped.get((shape, dtype))
    if array is None:
        size = math.prod(shape) * dtype.itemsize
        if buffer is None or buffer.nbytes < size:
            buffer, shaped = np.empty(size, np.uint8), {}
        array = shaped[shape, dtype] = np.ndarray(shape, dtype, buffer)
        if size <= SCRATCH_BYTES:
            buffers[name] = buffer, shaped
        if len(shaped) > SHAPES:
            shaped.clear()
    return array
