"""Files that are there whole or not at all."""

from pathlib import Path

import pytest

from arcmtp.runtime.files import OutputFile


def test_a_file_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt), OutputFile(path):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    with OutputFile(path) as output:
        output.write("text")
    assert path.read_text() == "text" and list(tmp_path.iterdir()) == [path]
