"""Ctrl-C and SIGTERM as a polite request: finish the step, save, then stop."""

import contextlib
import os
import signal
import threading
from types import FrameType


class StopSignals:
    """Inside `with`, a first SIGINT or SIGTERM is noted in `received`, a second one exits at once.

    `received` is the signal's number, 0 while there was none. The old handlers are put back at the
    end. In a thread other than the main one, where Python allows no handlers, nothing happens.
    """

    def __init__(self) -> None:
        self.received = 0
        self._before: dict[int, object] = {}

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) is not signal.SIG_IGN:  # nohup and & stay in force
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler or signal.SIG_DFL)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received:
            raise SystemExit(128 + number)
        self.received = number
        words = (
            f"\n{signal.Signals(number).name}: finishing this step, then saving (again: exit now)\n"
        )
        with contextlib.suppress(OSError):  # print could be caught inside another print
            os.write(2, words.encode())
