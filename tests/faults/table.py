"""The table of faults in docs/runs.md, made from the tests themselves. Print it with

python tests/faults/table.py
"""

import importlib
import inspect
import math
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
FILES = ["kill", "signals", "disk", "directory", "damage", "misfit", "idx", "images", "settings"]


def rows(name):
    """(fault, cases, behind the marker long, test) for every test of a file, in its order."""
    module = importlib.import_module(f"test_{name}")
    for test, function in vars(module).items():
        if test.startswith("test_") and inspect.isfunction(function):
            marks = getattr(function, "pytestmark", [])
            sets = [len(m.args[1]) for m in marks if m.name == "parametrize"]
            count = getattr(function, "cases", 1) * math.prod(sets)
            fault = function.__doc__.splitlines()[0]
            yield fault, count, any(m.name == "long" for m in marks), test


def table():
    """The whole table, a heading and a total for every file."""
    sys.path.insert(0, str(HERE))
    lines, total, behind = [], 0, 0
    for name in FILES:
        found = list(rows(name))
        title = inspect.getdoc(sys.modules[f"test_{name}"]).splitlines()[0]
        lines += [f"**{title}** ([test_{name}.py](../tests/faults/test_{name}.py))", ""]
        lines += ["| fault, and what must follow | cases | test |", "|---|---:|---|"]
        for fault, count, long, test in found:
            lines.append(f"| {fault} | {count:,} | `{test}` |")
            total, behind = total + count * (not long), behind + count * long
        lines.append("")
    lines.append(f"In all {total:,} cases, and {behind:,} more behind the marker `long`.")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
