"""Floor 0: the threads that share work, the queue that they wait at, and their limit on BLAS.

A BLAS has threads of its own, which would fight ours for the cores, so it is held to one while
pieces run. `workers` says what they do.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from queue import Empty, SimpleQueue
from typing import Any

from minigan import gemm

JOBS = 1000  # that wait for a helper, at most
MOST = 8  # threads, unless one asks for more: these wait for the interpreter's lock too often


class Pool:
    """The threads, made at first use, and the queue that they wait at."""

    def __init__(self) -> None:
        self.count = _count(os.environ.get("MINIGAN_THREADS"))
        self.jobs: SimpleQueue = SimpleQueue()
        self.resting: list[SimpleQueue] = []  # where those wait who would lend a hand meanwhile
        self.helpers = 0
        self.starting = threading.Lock()
        self.blas: Any = None
        self.blas_lock = threading.Lock()
        self.blas_users: set[int] = set()  # threads
        self.blas_before: list[tuple[Callable[[int], None], int]] = []  # what lifts the limit
        self.mine = threading.local()  # each thread's buffers, and what it is doing

    def call(
        self, work: Callable[[], Any], helpers: int, times: int | None = None, of_user: bool = False
    ) -> None:
        """Have `work` called by this many helpers, or any `times` of them, when they come to it.

        Those who rest may call it, too. But not work of the user's: it may wait for a lock that
        the one who rests, in the middle of other work of the user's, holds.
        """
        with self.starting:
            while self.helpers < helpers:
                threading.Thread(target=self.help, name="minigan", daemon=True).start()
                self.helpers += 1
        for _ in range(helpers if times is None else times):
            if self.jobs.qsize() < JOBS:  # helpers may be in long calls; nobody waits for them
                self.jobs.put((work, of_user))
        for queue in () if of_user else tuple(self.resting):
            queue.put(work)

    def help(self) -> None:
        """Be a helper: do what comes, until there is one too many."""
        self.mine.limited = True
        while job := self.jobs.get():
            if self.is_one_too_many():
                self.jobs.put(job)
                return
            job[0]()
            del job  # it holds the arrays of the operation, and the next may be long in coming

    def is_one_too_many(self) -> bool:
        """Whether fewer helpers are wanted than there are; this one does not count then."""
        if self.helpers <= max(1, self.count - 1):
            return False
        with self.starting:
            surplus = self.helpers > max(1, self.count - 1)
            self.helpers -= surplus
        return surplus

    def lend_a_hand(self) -> None:
        """Do what waits for a helper and is not of the user."""
        of_user = []
        try:
            while True:
                work, is_of_user = self.jobs.get_nowait()
                if is_of_user:
                    of_user.append(work)
                else:
                    work()
        except Empty:
            return
        finally:
            for work in of_user:
                self.jobs.put((work, True))

    def one_blas_thread(self) -> AbstractContextManager[None]:
        """Return a context with the limit; who is inside, or helps one who is, just goes on."""
        return nullcontext() if getattr(self.mine, "limited", False) else self.limited_blas()

    @contextmanager
    def limited_blas(self) -> Iterator[None]:
        """The first thread of the user's that comes limits BLAS, the last that leaves lifts it.

        Finding the libraries takes a millisecond, once.
        """
        thread = threading.get_ident()
        try:
            with self.blas_lock:
                self.blas_users.add(thread)
                if self.blas is None:
                    self.blas = gemm.blas_threads()
                if not self.blas_before:
                    self.blas_before = [(set_count, count()) for count, set_count in self.blas]
                    for set_count, _ in self.blas_before:
                        set_count(1)
            self.mine.limited = True
            yield
        finally:
            self.mine.limited = False
            with self.blas_lock:
                self.blas_users.discard(thread)
                if not self.blas_users:
                    for set_count, count in self.blas_before:
                        set_count(count)
                    self.blas_before = []


def _count(setting: str | None) -> int:
    if setting is None:
        affinity = getattr(os, "sched_getaffinity", None)  # Linux: the cores that we may use
        return min(MOST, len(affinity(0)) if affinity else os.cpu_count() or 1)
    if not setting.isdecimal() or int(setting) < 1:
        raise ValueError(f"MINIGAN_THREADS={setting!r}: should be a whole number >= 1")
    return int(setting)


pool = Pool()


def _begin_anew() -> None:
    """A child process has none of its parent's threads, and nobody inside the limit on BLAS."""
    before, threads = pool.blas_before, pool.count
    pool.__init__()
    pool.count = threads
    for set_count, count in before:
        set_count(count)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
