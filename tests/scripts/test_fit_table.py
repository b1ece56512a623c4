"""The README says which card has room for which file."""

from pathlib import Path

from scripts.fit_table import table


def test_the_readme_has_the_table_of_today() -> None:
    assert table() in (Path(__file__).parents[2] / "README.md").read_text()
