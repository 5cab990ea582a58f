"""The shape of the code: floors, imports, devices, docstrings and sizes, read from the sources."""

import ast
from pathlib import Path

import pytest

import minigan

PACKAGE = Path(minigan.__file__).parent

# A file imports only from floors below its own. The ops stand on one another in a fixed order, and
# so do the files of the floors beneath them.
FLOORS = [
    ["gemm"],
    ["threads", "memory", "kernels", "twins"],
    ["workers"],
    ["launch"],
    ["backend"],
    ["cuda"],
    ["tensor"],
    ["autograd"],
    ["together"],
    ["ops.shape"],
    ["ops.arithmetic"],
    ["ops.reduction"],
    ["ops.linalg", "ops.activation", "ops.windows"],
    ["ops.columns", "ops.winograd", "ops.pool", "ops.norm"],
    ["ops.lines", "ops.planes"],
    ["ops.few", "ops.down"],
    ["ops.strips"],
    ["ops.conv"],
    ["ops.resample"],
    ["ops"],
    ["functional"],
    ["nn.init", "nn.module"],
    ["nn.layers", "nn.spectral"],
    ["gradcheck.noise"],
    ["gradcheck.differences"],
    ["nn", "losses", "optim", "ema", "gradcheck", "data"],
    ["metrics"],
    ["models"],
    ["training"],
    ["specs"],
    ["gradcheck.__main__"],
    [""],  # minigan/__init__.py
    ["info"],
]
RANK = {name: rank for rank, names in enumerate(FLOORS) for name in names}

# Imports at the time of use that may stay on their own floor, with the reason.
LATE = {
    ("backend", "cuda"): "CuPy takes a second to import: only for those who ask for it",
}

# Where an op's body may name `np`, with the reason.
HOST = {
    ("linalg.Matmul.forward", "broadcast_shapes"): "shapes are tuples of Python numbers",
    ("shape.Transpose.backward", "argsort"): "the axes are a tuple of Python numbers",
}

MAX_LINES = 430


def name_of(path):
    """minigan/ops/conv.py -> ops.conv; minigan/nn/__init__.py -> nn"""
    return (
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        .removesuffix("__init__")
        .rstrip(".")
    )


FILES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in FILES.items()}


def rank_of(name):
    """The floor of a module; packages such as data and training are one floor inside."""
    while name not in RANK and "." in name:
        name = name.rpartition(".")[0]
    assert name in RANK, f"minigan/{name.replace('.', '/')} stands on no floor: add it to FLOORS"
    return RANK[name]


def modules_named(node, name):
    """The modules of minigan that an import statement in the file `name` names."""
    if isinstance(node, ast.Import):
        named = [alias.name for alias in node.names]
    else:
        source = node.module
        if node.level:  # `from .files import f` in training/run.py
            assert node.level == 1, f"{name}, line {node.lineno}: a long way round"
            source = f"minigan.{name.split('.')[0]}.{node.module}"
        parts = [f"{source}.{alias.name}" for alias in node.names]
        known = [part for part in parts if part.removeprefix("minigan.") in FILES]
        named = known if len(known) == len(parts) else [*known, source]
    return [m.removeprefix("minigan").lstrip(".") for m in named if m.split(".")[0] == "minigan"]


def imports(name):
    """(module, whether at the top of the file) for everything of minigan that a file imports."""
    tree = TREES[name]
    top = {id(node) for node in tree.body}
    return [
        (module, id(node) in top)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for module in modules_named(node, name)
    ]


def same_package(a, b):
    """Files of a package without floors inside (data, training, ...) see one another."""
    package = a.split(".")[0]
    return package == b.split(".")[0] and package in (
        "data",
        "metrics",
        "training",
        "models",
        "specs",
    )


@pytest.mark.parametrize("name", FILES)
def test_a_file_imports_only_from_floors_below(name):
    for module, _ in imports(name):
        if same_package(name, module) or (name, module) in LATE:
            continue
        assert rank_of(module) < rank_of(name), (
            f"{name or 'minigan'} imports {module or 'minigan'}, which is not below it"
        )


def test_late_imports_are_late():
    for name, module in LATE:
        assert (module, False) in imports(name)
        assert (module, True) not in imports(name)


def test_no_circle_of_imports():
    """Whole files, at the top: a circle would work or not by who is imported first."""
    below = {name: {m for m, top in imports(name) if top and m in FILES} for name in FILES}
    done, path = set(), []

    def visit(name):
        assert name not in path, " -> ".join([*path[path.index(name) :], name])
        if name not in done:
            path.append(name)
            for module in sorted(below[name]):
                visit(module)
            done.add(path.pop())

    for name in FILES:
        visit(name)


def test_every_floor_is_there():
    assert [name for name in RANK if name not in FILES] == []


# ---- op bodies do not ask where they are


def op_classes(name):
    """The op classes of a file of ops, with those that inherit from them."""
    known = {"Op", "Binary", "ConvOp"}
    for node in TREES[name].body:
        if isinstance(node, ast.ClassDef):
            bases = {base.id for base in node.bases if isinstance(base, ast.Name)}
            if bases & known:
                known.add(node.name)
                yield node


OPS = [name for name in FILES if name.startswith("ops.")]


def test_the_ops_are_found():
    counts = {name: len(list(op_classes(name))) for name in OPS}
    assert counts["ops.arithmetic"] >= 15
    assert counts["ops.conv"] >= 3
    assert counts["ops.norm"] >= 1


@pytest.mark.parametrize("name", OPS)
def test_op_bodies_never_ask_for_the_device(name):
    asked = {"device", "to_host", "from_host", "cpu", "cuda", "cupy", "CPU", "isinstance"}
    for op in op_classes(name):
        for node in ast.walk(op):
            word = getattr(node, "attr", getattr(node, "id", getattr(node, "value", None)))
            assert not (isinstance(word, str) and word in asked), f"{op.name}: {word}"


@pytest.mark.parametrize("name", OPS)
def test_op_bodies_compute_with_self_xp(name):
    for op in op_classes(name):
        for method in (node for node in op.body if isinstance(node, ast.FunctionDef)):
            where = f"{name.removeprefix('ops.')}.{op.name}.{method.name}"
            for node in ast.walk(method):
                owner = getattr(node, "value", None) if isinstance(node, ast.Attribute) else None
                if isinstance(owner, ast.Name) and owner.id in ("np", "numpy", "scipy"):
                    assert (where, node.attr) in HOST, (
                        f"{where} calls np.{node.attr}: use self.xp, or list it with a reason"
                    )


def test_only_the_backend_knows_cupy():
    for name, path in FILES.items():
        if rank_of(name) > RANK["cuda"] and rank_of(name) <= RANK["nn"]:
            assert "cupy" not in path.read_text(encoding="utf-8").lower(), name


# ---- words and sizes


def public(tree):
    """(name, node) of public functions, classes and their public methods."""
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            yield node.name, node
            if isinstance(node, ast.ClassDef):
                for method in node.body:
                    if isinstance(method, ast.FunctionDef) and not method.name.startswith("_"):
                        yield f"{node.name}.{method.name}", method


# Methods whose class says what they do, in every class that has them.
SPEAK_FOR_THEMSELVES = {
    *("forward", "backward", "fused_backward"),
    *("update", "decay", "factor", "describe", "with_weight"),
}


def is_property(node):
    return isinstance(node, ast.FunctionDef) and any(
        (isinstance(d, ast.Name) and d.id == "property") or isinstance(d, ast.Attribute)
        for d in node.decorator_list
    )


def is_stub(node):
    """A method of a Protocol: `def state_dict(self) -> dict: ...`"""
    return isinstance(node.body[0], ast.Expr) and getattr(node.body[0].value, "value", 0) is ...


@pytest.mark.parametrize("name", FILES)
def test_what_is_public_has_a_docstring(name):
    tree = TREES[name]
    if FILES[name].read_text(encoding="utf-8").strip():
        assert ast.get_docstring(tree), f"{name}: say what the file is for"
    in_ops = name.startswith("ops.") or name == "cuda"  # helpers of an op stand by its formula
    for what, node in public(tree):
        method = what.rpartition(".")[2]
        if "." in what and (
            method in SPEAK_FOR_THEMSELVES or is_property(node) or is_stub(node) or in_ops
        ):
            continue
        assert ast.get_docstring(node), f"{name}.{what} has no docstring"


@pytest.mark.parametrize("name", FILES)
def test_files_stay_short(name):
    lines = FILES[name].read_text(encoding="utf-8").count("\n")
    assert lines <= MAX_LINES, f"{FILES[name].name} has {lines} lines: split it"
