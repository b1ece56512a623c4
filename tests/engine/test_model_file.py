"""What a model file says before any weight is read, and how errors name it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from arcmtp import ArcmtpError
from arcmtp.engine.llm import bundled_model
from arcmtp.engine.model_file import ModelFile
from arcmtp.engine.prompts import Prompting
from arcmtp.model.chat import TEMPLATE

MESSAGES = [{"role": "user", "content": "Why?"}]


def prompting(template: Any) -> Prompting:
    """Of the bundled model, whose template is another one."""
    file = ModelFile.open(bundled_model())
    file.gguf.metadata = {**file.gguf.metadata, TEMPLATE: template}
    return file.prompting(64)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{% if %}", "chat template, line 1: Expected an expression"),
        ("{{ 1 / 0 }}", "chat template: division by zero"),
        ("{{ raise_exception('a\x1b[2J' + 'x' * 999) }}", "chat template: a\\x1b[2J" + "x" * 50),
        ("", "the file has no chat template (tokenizer.chat_template): give it a raw prompt"),
        (np.array([1, 2]), "the file has no chat template"),
    ],
)
def test_errors_of_the_template_name_the_file_and_are_one_short_line(template: Any, message: str) -> None:
    with pytest.raises(ArcmtpError, match=f"^{bundled_model().name}: {re.escape(message)}") as caught:
        prompting(template).ids(MESSAGES)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 400


@pytest.mark.parametrize(("template", "has"), [("x", True), ("", False), (np.array([1, 2]), False), (["x"], False)])
def test_only_text_is_a_template(template: Any, has: bool) -> None:
    assert prompting(template).has_chat_template is has


def test_what_is_wrong_with_messages_does_not_name_the_file() -> None:
    with pytest.raises(ArcmtpError, match=r"^messages\[0\]\.role: expected a string$"):
        ModelFile.open(bundled_model()).prompting(64).ids([{"content": "x"}])


def test_a_tokenizer_that_cannot_be_used_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(bundled_model().read_bytes().replace(b"tokenizer.ggml.pre", b"tokenizer.ggml.prx", 1))
    with pytest.raises(ArcmtpError, match=rf"^{path}: tokenizer\.ggml\.pre is missing"):
        ModelFile.open(path)
