"""What one thread of a CUDA kernel reads and writes, seen on the CPU.

    for line in watch(source, "im2col", grid, block, arguments, thread=(3, 1)):
        print(line)

The source is compiled unchanged, for a float that takes notes (microscope.h). docs/cuda.md uses it.
"""

import ctypes

import executor
import numpy as np


class Note(ctypes.Structure):
    _fields_ = (
        ("address", ctypes.c_void_p),
        ("value", ctypes.c_float),
        ("written", ctypes.c_int),
    )


def watch(source, kernel, grid, block, arguments, thread, block_index=(0, 0)):
    """Run a kernel on float32 arrays; returns what one thread does to them, in order.

    Args:
        source: its text.
        arguments: {name: array or typed scalar}, in the kernel's order.
        thread: (x, y) within the block.
        block_index: (x, y) within the grid.

    Returns:
        lines such as "reads  x[0, 1, 2, 0] = 4.0"; an array is written as its own shape has it.
    """
    program = executor.Program(
        source,
        ("-DREAL=Watched", "-DINDEX=int"),
        name=f"{kernel}, watched",
        header="microscope.h",
    )
    library = program.library
    library.microscope_aim((ctypes.c_uint * 4)(*block_index, *thread))
    values = [a.view("V4") if isinstance(a, np.ndarray) else a for a in arguments.values()]
    program.launch(kernel, grid, block, values)
    library.microscope_notes.restype = ctypes.POINTER(Note)
    count = ctypes.c_int()
    notes = library.microscope_notes(ctypes.byref(count))
    lines = (told(notes[i], arguments) for i in range(count.value))
    return [line for line in lines if line]


def told(note, arguments):
    """A note in words; "" if it is about none of the arrays (but, say, a variable)."""
    for name, array in arguments.items():
        if isinstance(array, np.ndarray):
            offset = note.address - array.ctypes.data
            if 0 <= offset < array.nbytes:
                index = np.unravel_index(offset // array.itemsize, array.shape)
                at = ", ".join(str(int(i)) for i in index)
                return f"{'writes' if note.written else 'reads '} {name}[{at}] = {note.value}"
    return ""
