"""The table in the docs is the one that the tests make."""

from harness import ROOT
from table import FILES, HERE, table


def test_the_table_in_the_docs_is_up_to_date():
    page = (ROOT / "docs" / "runs.md").read_text(encoding="utf-8")
    assert table() in page, "paste what `python tests/faults/table.py` prints into docs/runs.md"


def test_every_file_is_in_the_table():
    names = {path.stem.removeprefix("test_") for path in HERE.glob("test_*.py")}
    assert names == {*FILES, "table"}
