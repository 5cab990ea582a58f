"""The table of kernels against their sources, and what the launcher refuses to run."""

import inspect
import re

import executor
import numpy as np
import pytest
import standin

from minigan import kernels, launch, twins
from minigan.cuda import kernels_dir

f4, f8, i4, i8 = map(np.dtype, ("f4", "f8", "i4", "i8"))
runs = pytest.mark.skipif(bool(executor.missing()), reason=executor.missing())


@pytest.fixture
def device():
    return launch.Kernels(standin, kernels_dir())


# ---- the table


def declarations():
    """The parameters of each __global__ function as the sources have them: (type, name)."""
    found = {}
    for path in kernels_dir().glob("*.cu"):
        text = executor.COMMENT.sub("", path.read_text())
        for name, parameters in re.findall(r"__global__ void BOUNDS (\w+)\(([^)]*)\)", text):
            split = [p.replace("__restrict__", "").split() for p in parameters.split(",")]
            found[name] = path.name, [(" ".join(words[:-1]), words[-1]) for words in split]
    return found


IN_THE_SOURCE = {
    "in REAL": "const REAL*",
    "out REAL": "REAL*",
    "in double": "const double*",
    "out double": "double*",
    "Table": "const Table",
}


def test_the_table_says_what_the_sources_say():
    written = declarations()
    assert written.keys() == kernels.KERNELS.keys()
    for name, kernel in kernels.KERNELS.items():
        file, parameters = written[name]
        assert kernel.file == file
        declared = [(IN_THE_SOURCE.get(p.type, p.type), p.name) for p in kernel.parameters]
        assert declared == parameters, name


def test_every_size_is_known():
    for kernel in kernels.KERNELS.values():
        numbers = {p.name for p in kernel.parameters if p.type in ("INDEX", "int")} | {"grid_y"}
        for p in kernel.parameters:
            assert bool(p.size) == p.is_array
            assert {f for f in p.size if isinstance(f, str)} <= numbers


def test_every_kernel_has_its_twin():
    """The same name, and the same parameters, as a function of twins.py and a method of Kernels."""
    for name in {kernel.twin for kernel in kernels.KERNELS.values()}:
        twin = inspect.signature(getattr(twins, name)).parameters
        method = inspect.signature(getattr(launch.Kernels, name)).parameters
        assert list(twin) == [p for p in method if p != "self"]
        assert [p.default for p in twin.values()] == [
            p.default for n, p in method.items() if n != "self"
        ]


def test_every_source_says_what_it_is():
    for file in kernels.FILES:
        head = (kernels_dir() / file).read_text().partition("\n\n")[0]
        for word in ("Twin", "Launch:", "Bytes:", "Saves:"):
            assert word in head, f"{file}: say {word}"
        for name in {k.twin for k in kernels.KERNELS.values() if k.file == file}:
            assert name in head


def test_sizes_that_two_files_share():
    """Numbers that stand both in a source and in Python."""
    common, adam = ((kernels_dir() / f).read_text() for f in ("common.cuh", "adam.cu"))
    assert f"#define THREADS {launch.THREADS}\n" in common
    assert f"#define TENSORS {kernels.TENSORS}\n" in adam
    assert f"#define ITEMS {kernels.ITEMS}\n" in adam
    assert kernels.table_type().itemsize + 10 * 8 <= 4096  # what a launch can carry


@runs
@pytest.mark.parametrize("real", [f4, f8])
@pytest.mark.parametrize("index", [i4, i8])
def test_the_compiled_parameters_are_the_declared(real, index):
    """As g++ understands the sources, types and constness included."""
    size = kernels.table_type().itemsize
    words = {"REAL": f"f{real.itemsize}", "double": "f8", "int": "i4", "Table": f"V{size}"}
    words["INDEX"] = f"i{index.itemsize}"
    for name, kernel in kernels.KERNELS.items():
        text = kernels.source(kernels_dir(), kernel.file)
        program = executor.Program(text, kernels.options(real, index), kernel.file)
        wanted = []
        for p in kernel.parameters:
            way, _, kind = p.type.rpartition(" ")
            wanted.append({"in": "c*", "out": "m*", "": ""}[way] + words[kind])
        assert program.signature(name) == wanted, name


def test_lanes_and_tiles():
    assert [launch.lanes(n) for n in (1, 2, 3, 4, 5, 31, 32, 33, 500)] == [
        *(1, 2, 4, 4, 8, 32, 32, 32, 32)
    ]
    for rows, channels in [(1, 1), (5, 3), (4096, 64), (10**7, 1), (10**7, 2000), (7, 10**5)]:
        (across, down), (wide, high), numbers = launch.tiles("f", (rows, channels))
        assert wide * high == 256
        assert (across - 1) * wide < channels <= across * wide
        assert (down - 1) * numbers["chunk"] < rows <= down * numbers["chunk"]
        assert down <= 1024


# ---- what is refused


def arguments(**changes):
    """A correct launch of bias_act_forward on (5, 3), with changes."""
    a = {
        "x": standin.empty((5, 3), f4),
        "bias": standin.empty(3, f4),
        "y": standin.empty((5, 3), f4),
        **{"rows": 5, "channels": 3, "chunk": 5, "slope": 0.2},
    }
    return {**a, **changes}


REFUSED = [
    ({"x": standin.empty((5, 3), f8)}, TypeError, "x: needs float32, got float64"),
    ({"x": np.zeros((5, 3), f4)}, TypeError, "x: needs an array of the device, got ndarray"),
    ({"x": standin.empty((3, 5), f4).T}, ValueError, r"x: needs a contiguous array.*strides \(4, "),
    ({"bias": standin.empty(6, f4)[::2]}, ValueError, "bias: needs a contiguous array"),
    (
        {"x": standin.empty((4, 3), f4)},
        ValueError,
        "x: needs rows · channels = 15 elements, got 12",
    ),
    ({"rows": 6}, ValueError, "x: needs rows · channels = 18 elements, got 15"),
    ({"rows": -5}, ValueError, r"rows: -5 is not in 0 \.\.\. 2147483647"),
    ({"chunk": 2**31}, ValueError, "chunk: 2147483648 is not in 0"),
    ({"chunk": 5.0}, TypeError, "chunk: needs a whole number of the host, got float"),
    ({"chunk": True}, TypeError, "chunk: needs a whole number of the host, got bool"),
    ({"slope": standin.empty((), f4)}, TypeError, "slope: needs a number of the host, got ndarray"),
    ({"slope": "0.2"}, TypeError, "slope: needs a number of the host, got str"),
    ({"bias": None}, TypeError, "bias: needs an array of the device, got NoneType"),
    ({"size": 3}, TypeError, "missing or unknown arguments: size"),
]


@pytest.mark.parametrize(("changes", "error", "words"), REFUSED, ids=[r[2][:30] for r in REFUSED])
def test_refused_arguments(device, changes, error, words):
    with pytest.raises(error, match=f"^kernel bias_act_forward: {words}"):
        device.launch("bias_act_forward", (1, 1), (4, 64), f4, **arguments(**changes))


def test_refused_launches(device):
    name, given = "bias_act_forward", arguments()
    with pytest.raises(ValueError, match="kernel bias_act_forward: y and x share memory"):
        device.launch(name, (1, 1), (4, 64), f4, **{**given, "y": given["x"]})
    with pytest.raises(ValueError, match=r"a grid of \(1, 70000\) blocks is empty or over the"):
        device.launch(name, (1, 70000), (4, 64), f4, **given)
    with pytest.raises(ValueError, match=r"a grid of \(0, 1\) blocks is empty"):
        device.launch(name, (0, 1), (4, 64), f4, **given)
    with pytest.raises(ValueError, match=r"a block of \(4, 65\) is not 256 threads"):
        device.launch(name, (1, 1), (4, 65), f4, **given)
    with pytest.raises(TypeError, match="is for float32 and float64, not float16"):
        device.launch(name, (1, 1), (4, 64), np.float16, **given)
    with pytest.raises(TypeError, match="missing or unknown arguments: slope"):
        device.launch(name, (1, 1), (4, 64), f4, **{k: given[k] for k in given if k != "slope"})


def test_refused_windows(device):
    x = standin.empty((1, 4, 4, 3), f4)
    fits = (3, 3), (1, 1), (0, 0), (1, 1)
    with pytest.raises(ValueError, match="kernel im2col: 2 groups do not divide 3 channels"):
        device.im2col(x, *fits, 2, (2, 2))
    with pytest.raises(ValueError, match=r"kernel im2col: 3 windows reach over 5 pixels .* to 4"):
        device.im2col(x, *fits, 1, (2, 3))
    with pytest.raises(ValueError, match=r"kernel col2im: columns: needs groups · .* = 108 "):
        device.col2im(standin.empty((1, 4, 26), f4), x.shape, *fits, 1, (2, 2))
    with pytest.raises(ValueError, match=r"kernel batch_norm_forward: there is nothing to reduce"):
        device.batch_norm_forward(x[:0], x[0, 0, 0], x[0, 0, 0], 1e-5)


def test_refused_parameters(device):
    p = standin.zeros(4, f4)
    options = 0.1, (0.9, 0.99), 1e-8, 1
    with pytest.raises(ValueError, match="kernel adam_step: grad 0: needs 4 = 4 elements, got 3"):
        device.adam_step([p], [p[:3]], [p], [p], *options)
    with pytest.raises(TypeError, match="kernel adam_step: m 1: needs float32, got float64"):
        device.adam_step([p, p], [p, p], [p, p.astype(f8)], [p, p], *options)
    with pytest.raises(ValueError, match="kernel adam_step: v 0: needs a contiguous array"):
        device.adam_step([p], [p], [p], [standin.zeros(8, f4)[::2]], *options)


@runs
def test_an_empty_array_launches_nothing(device):
    standin.count.reset()
    y = device.bias_act_forward(standin.empty((0, 3), f4), standin.empty(3, f4), 0.2)
    assert y.shape == (0, 3)
    gx, g_bias = device.bias_act_backward(y, y, 0.2)
    assert gx.shape == (0, 3)
    assert standin.count.launches == 1  # zeros
    assert g_bias.tolist() == [0, 0, 0]
    assert (
        device.im2col(
            standin.empty((0, 3, 3, 1), f4), *[(1, 1)] * 2, (0, 0), (1, 1), 1, (3, 3)
        ).size
        == 0
    )


def test_the_setting(monkeypatch):
    monkeypatch.delenv("MINIGAN_KERNELS", raising=False)
    assert kernels.wanted()
    monkeypatch.setenv("MINIGAN_KERNELS", "0")
    assert not kernels.wanted()
    monkeypatch.setenv("MINIGAN_KERNELS", "no")
    with pytest.raises(ValueError, match=r"MINIGAN_KERNELS must be 0 .* or 1 .*: 'no'"):
        kernels.wanted()
