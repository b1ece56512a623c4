"""What operator tests share with `arcmtp selftest`: its bench, and that all differences are allowed ones."""

from collections.abc import Iterable

from arcmtp.selftest.bench import POISON, Bench, interleaved, unpack_rows
from arcmtp.selftest.findings import Difference

__all__ = ["POISON", "Bench", "agree", "interleaved", "unpack_rows"]


def agree(differences: Iterable[Difference]) -> None:
    """Every result is what it must be, and there are some."""
    count = 0
    for difference in differences:
        assert difference.ok, str(difference)
        count += difference.count
    assert count
