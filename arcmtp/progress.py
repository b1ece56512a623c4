"""How work that takes a while tells how far it is."""

from collections.abc import Callable

Progress = Callable[[str, int, int], None]  # called as progress(stage, done, total)
