"""What others measured lies inside what bytes and launches predict."""

import pytest

from scripts.battlemage.published_speeds import FOUND, Measured


@pytest.mark.parametrize("measured", FOUND, ids=lambda one: one.what)
def test_what_was_measured_is_inside_the_range(measured: Measured) -> None:
    of = measured.predicted()
    assert of.best < of.expected < of.worst < 2 * of.best
    assert measured.inside
