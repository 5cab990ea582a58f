"""The chapters in docs/: their code runs, and what they point at is there.

Every ```python block of a page is executed from top to bottom in one namespace, and where it
shows output (`>>>`) the output must be that.
"""

import ast
import gc
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sybil import Document
from sybil.parsers.myst import PythonCodeBlockParser

from minigan import backend

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGES = [DOCS.parent / "README.md", *sorted(DOCS.glob("**/*.md"))]
SCRIPTS = sorted((DOCS / "figures").glob("*.py"))
FENCE = re.compile(r"^(?P<fence>`{3,}|~{3,}).*?^(?P=fence)[ \t]*$", re.DOTALL | re.MULTILINE)
QUOTE = re.compile(r"^```\{literalinclude\} (?P<file>\S+)\n(?P<options>.*?)^```", re.S | re.M)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def name_of(path):
    return str(path.relative_to(DOCS.parent))


pages = pytest.mark.parametrize("page", PAGES, ids=name_of)


@pytest.fixture
def _settings_put_back(monkeypatch):
    """Undo what a page may leave behind when it stops halfway."""
    monkeypatch.setattr(backend._settings, "generator", np.random.default_rng(0))
    monkeypatch.setattr(backend._settings, "device", "cpu")
    monkeypatch.setattr(backend.CPU, "xp", np)
    yield
    gc.enable()


@pytest.mark.usefixtures("_settings_put_back")
@pages
def test_the_code_of_a_page_runs(page):
    document = Document.parse(str(page), PythonCodeBlockParser())
    for example in document:
        example.evaluate()


@pages
def test_no_python_is_hidden_from_the_test(page):
    languages = re.findall(r"^`{3,}[ \t]*(\S*)", page.read_text(), re.MULTILINE)
    odd = {word for word in languages if word.lower().startswith("py") and word != "python"}
    assert not odd, f"write ```python, the only spelling that is executed, instead of {odd}"


def defined_names(source):
    """Return the functions and classes of a file, methods as Class.method."""
    names = set()

    def visit(node, prefix):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                names.add(prefix + child.name)
                visit(child, f"{prefix}{child.name}.")

    visit(ast.parse(source), "")
    return names


@pages
def test_quoted_sources_exist(page):
    for quote in QUOTE.finditer(page.read_text()):
        path = (page.parent / quote["file"]).resolve()
        assert path.is_file(), f"{quote['file']} is quoted but not there"
        options = dict(re.findall(r"^:([\w-]+):[ \t]*(.*)$", quote["options"], re.MULTILINE))
        quoted = options.get("pyobject")
        if path.suffix == ".py":
            assert quoted, f"quote {quote['file']} by name, with :pyobject:"
            assert quoted in defined_names(path.read_text()), f"{quoted} is not in {path.name}"


@pages
def test_quoted_sources_are_linked_too(page):
    """GitHub shows no literalinclude, so its readers need a link to the file."""
    text = page.read_text()
    links = LINK.findall(FENCE.sub("", text))
    missing = {quote["file"] for quote in QUOTE.finditer(text)} - set(links)
    assert not missing, f"add a link to {missing}"


@pages
def test_relative_links_lead_somewhere(page):
    for link in LINK.findall(FENCE.sub("", page.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        target, _, anchor = link.partition("#")
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), f"{link} leads nowhere"
        if anchor and path.suffix == ".md":
            assert anchor in anchors(path.read_text()), f"{link}: no such heading"


def anchors(text):
    """Return the anchors that GitHub and MyST make of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_chapter_is_in_the_index():
    linked = set(LINK.findall((DOCS / "README.md").read_text()))
    chapters = {str(page.relative_to(DOCS)) for page in PAGES[1:]}
    missing = chapters - linked - {"README.md"}
    assert not missing, f"docs/README.md does not mention {missing}"


@pytest.mark.parametrize("script", SCRIPTS, ids=name_of)
def test_a_figure_can_be_drawn_again(script, tmp_path):
    pytest.importorskip("matplotlib")
    environment = {**os.environ, "MPLCONFIGDIR": str(tmp_path / "matplotlib")}
    command = [sys.executable, str(script), str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    drawn = tmp_path / f"{script.stem}.png"
    assert drawn.is_file(), f"{script.name} should draw {drawn.name} into the folder it is given"
    kept = script.with_suffix(".png")
    assert kept.is_file(), f"run {script.name}: {kept.name} is not there"
    assert kept.stat().st_size < 100_000


def test_every_figure_has_its_script():
    orphans = {
        p.name for p in (DOCS / "figures").glob("*.png") if not p.with_suffix(".py").exists()
    }
    assert not orphans
