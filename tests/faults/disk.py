"""A disk that fails when told to, below the buffers: every call a save makes, counted.

    disk = Disk({12: "kill"})
    disk.install()

Actions: "kill" SIGKILLs the process before the call, "torn" after half of a write, "short" writes
half and says so, "signal" sends SIGINT and "signals" SIGINT and SIGTERM before the call, and an
errno makes the call fail with it.
"""

import builtins
import io
import os
import signal

from minigan.training import checkpoint, files


class Disk:
    """Counts the calls of `files` and of a checkpoint's reading back, and acts at some of them."""

    def __init__(self, actions=(), always=None):
        self.actions, self.always, self.calls = dict(actions), always or {}, []

    def install(self):
        files.open = checkpoint.open = self.open
        self.real = {name: getattr(os, name) for name in ("fsync", "replace", "link", "unlink")}
        for name, call in self.real.items():
            setattr(os, name, self._wrap(name, call))

    def remove(self):
        for name, call in self.real.items():
            setattr(os, name, call)
        del files.open, checkpoint.open

    def _wrap(self, name, call):
        def wrapped(*args, **kwargs):
            self.at(name)
            return call(*args, **kwargs)

        return wrapped

    def at(self, name):
        """Count a call; returns True if it shall do half its work."""
        self.calls.append(name)
        action = self.actions.get(len(self.calls) - 1, self.always.get(name))
        if action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if action in ("signal", "signals"):
            os.kill(os.getpid(), signal.SIGINT)
        if action == "signals":
            os.kill(os.getpid(), signal.SIGTERM)
        if isinstance(action, int):
            raise OSError(action, os.strerror(action))
        return action

    def open(self, path, mode):
        if "b" not in mode:
            return builtins.open(path, mode)
        self.at("open")
        raw = Raw(self, path, mode.replace("b", ""))
        if "+" in mode:
            return io.BufferedRandom(raw)
        return (io.BufferedReader if "r" in mode else io.BufferedWriter)(raw)


class Raw(io.FileIO):
    """A file without a buffer whose calls the disk counts."""

    def __init__(self, disk, path, mode):
        self.disk = disk
        super().__init__(path, mode)

    def write(self, data):
        action = self.disk.at("write")
        if action in ("torn", "short"):
            done = super().write(bytes(data)[: max(1, len(data) // 2)])
            if action == "torn":
                os.kill(os.getpid(), signal.SIGKILL)
            return done
        return super().write(data)

    def readinto(self, buffer):
        self.disk.at("read")
        return super().readinto(buffer)

    def seek(self, *args):
        self.disk.at("seek")
        return super().seek(*args)

    def close(self):
        if not self.closed:
            self.disk.at("close")
        super().close()
