"""What the fault tests share: processes with limits, checkpoints to damage, and counts of cases.

Every test of this folder is a row of the table in docs/runs.md: the first line of its docstring is
the fault, `cases` says how many of it one test tries.
"""

import hashlib
import io
import json
import os
import resource
import struct
import subprocess
import sys
import tempfile
import zipfile
import zlib
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
SCRIPT = HERE / "tiny_gan.py"
GIB = 1 << 30


def cases(count):
    """Say that each call of a test tries `count` cases; the test must make sure of it."""

    def mark(test):
        test.cases = count
        return test

    return mark


def environment(**changes):
    """The environment of a child: this source tree, one thread."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    one = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    return {**os.environ, "PYTHONPATH": path, **one, **changes}


def limits(memory=None, file_bytes=None):
    """A function for `preexec_fn` that bounds the child's memory and the files it writes."""

    def limit():
        if memory:
            resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        if file_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))

    return limit


def python(*arguments, memory=4 * GIB, seconds=60, file_bytes=None, env=None, **options):
    """Run Python in a child of bounded memory and time."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        env=environment(**(env or {})),
        preexec_fn=limits(memory, file_bytes),
        timeout=seconds,
        **{"capture_output": True, "text": True, **options},
    )


def train(out, *flags, code=0, **options):
    """Run the tiny GAN to its end; its exit code must be `code`."""
    done = python(SCRIPT, "--out", out, *flags, **options)
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in (done.stderr or ""), done.stderr
    return done


def start(out, *flags, **options):
    """Start the tiny GAN."""
    command = [sys.executable, str(SCRIPT), "--out", str(out), *map(str, flags)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=environment(), **{**quiet, **options})


def nursery(task, *arguments, seconds=400):
    """Run a task of nursery.py, which forks many children, and return what it found.

    In memory where that is possible: SIGKILL does not care, and fsync is quick there.
    """
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        done = python(HERE / "nursery.py", task, folder, *arguments, seconds=seconds)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def log_steps(out):
    path = Path(out) / "log.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line)["step"] for line in lines]


def flat(state, prefix=""):
    """The leaves of a checkpoint that a clock has no part in: {name: bytes or text}."""
    leaves = {}
    for name, value in state.items():
        if isinstance(value, dict) and value:
            leaves |= flat(value, f"{prefix}{name}/")
        elif isinstance(value, np.ndarray):
            leaves[prefix + name] = (str(value.dtype), value.shape, value.tobytes())
        elif name != "seconds":
            leaves[prefix + name] = repr(value)
    return leaves


def strays(out):
    return sorted(path.name for path in Path(out).rglob(".*"))


# ---- forging checkpoints: changed members under a good seal


def members_of(path):
    with zipfile.ZipFile(path) as archive:
        return [[info.filename, archive.read(info)] for info in archive.infolist()]


def seal(path, members):
    """Write the members as a checkpoint whose seal is right."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members:
            archive.writestr(zipfile.ZipInfo(name), data)
        archive.comment = bytes(64)
    data = path.read_bytes()[:-64]
    path.write_bytes(data + hashlib.sha256(data).hexdigest().encode())


def forge_manifest(path, change):
    """Let `change` edit the manifest of a checkpoint."""
    members = members_of(path)
    manifest = json.loads(members[0][1])
    change(manifest)
    members[0][1] = json.dumps(manifest).encode()
    seal(path, members)


def deflated_zeros(mebibytes):
    """So many MiB of zeros as raw deflate, a thousandth of that, and their CRC-32."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    crc = 0
    for _ in range(mebibytes):
        crc = zlib.crc32(bytes(1 << 20), crc)
    return block * mebibytes + packer.flush(), crc


def zip_bomb(path, members, name, mebibytes):
    """A sound ZIP of the stored members and one, `name`, of packed zeros."""
    data, crc = deflated_zeros(mebibytes)
    with zipfile.ZipFile(path, "w") as archive:
        for other, content in members:
            archive.writestr(zipfile.ZipInfo(other), content)
        archive.writestr(zipfile.ZipInfo(name), data)
    content = bytearray(path.read_bytes())
    local, listed = content.find(name.encode()), content.rfind(name.encode())
    for at, field in ((local - 30, 8), (listed - 46, 10)):  # where in its two headers: the method
        content[at + field : at + field + 2] = struct.pack("<H", zipfile.ZIP_DEFLATED)
        sizes = struct.pack("<III", crc, len(data), mebibytes << 20)
        content[at + field + 6 : at + field + 18] = sizes
    path.write_bytes(content)


def gzip_bomb(path, start, mebibytes):
    """A sound gzip file: `start`, then so many MiB of zeros (their CRC is not looked at here)."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    first = packer.compress(start) + packer.flush(zlib.Z_FULL_FLUSH)
    data, _ = deflated_zeros(mebibytes)
    size = (len(start) + (mebibytes << 20)) & 0xFFFFFFFF
    header = b"\x1f\x8b\x08" + bytes(6) + b"\xff"
    path.write_bytes(header + first + data + struct.pack("<II", 0, size))


def npy(array=None, header=None):
    stream = io.BytesIO()
    if header is not None:
        np.lib.format.write_array_header_1_0(stream, header)
    else:
        np.lib.format.write_array(stream, array, allow_pickle=True)
    return stream.getvalue()
