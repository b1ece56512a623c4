"""Codex and Claude Code, each with a home of its own: a question, and one more in the same conversation.

Usage: command_lines.py codex|claude FOLDER, where npm has installed them.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from scripts.clients.checks import MODEL, URL, expect, run

SECONDS = 300
CODEX_CONFIG = f"""\
model = "{MODEL}"
model_provider = "arcmtp"

[model_providers.arcmtp]
name = "arcmtp"
base_url = "{URL}/v1"
wire_api = "responses"
"""
CLAUDE_SETTINGS = {
    "ANTHROPIC_BASE_URL": URL,
    "ANTHROPIC_API_KEY": "none",
    "ANTHROPIC_MODEL": MODEL,
    "ANTHROPIC_SMALL_FAST_MODEL": MODEL,
    "CLAUDE_CODE_MAX_OUTPUT_TOKENS": "600",
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
}
command, programs = sys.argv[1], Path(sys.argv[2]) / "node_modules" / ".bin"
home = tempfile.TemporaryDirectory(prefix="arcmtp-client-")


def output(arguments: Sequence[str], settings: Mapping[str, str]) -> str:
    """What a program prints; RuntimeError with its last words if it fails."""
    result = subprocess.run(
        [str(programs / arguments[0]), *arguments[1:]], cwd=home.name, stdin=subprocess.DEVNULL, capture_output=True,
        env={"PATH": os.environ["PATH"], "HOME": home.name, **settings}, text=True, timeout=SECONDS,
    )  # fmt: skip
    if result.returncode:
        raise RuntimeError(f"exit status {result.returncode}: {(result.stdout + result.stderr)[-400:]}")
    return result.stdout


def codex(*arguments: str) -> None:
    folder = Path(home.name)
    (folder / "config.toml").write_text(CODEX_CONFIG)
    last = folder / "last"
    options = ["--skip-git-repo-check", "--output-last-message", str(last)]
    output(["codex", "exec", *arguments, *options], {"CODEX_HOME": home.name})
    expect(last.read_text().strip(), "no text")


def codex_question() -> None:
    """a question."""
    codex("Say hello")


def codex_further() -> None:
    """one more in the same conversation."""
    codex("resume", "--last", "And again")


def claude(*arguments: str) -> None:
    result = json.loads(output(["claude", "-p", *arguments, "--output-format", "json"], CLAUDE_SETTINGS))
    expect(not result["is_error"] and result["result"], result)


def claude_question() -> None:
    """a question."""
    claude("Say hello")


def claude_further() -> None:
    """one more in the same conversation."""
    claude("--continue", "And again")


run(*{"codex": (codex_question, codex_further), "claude": (claude_question, claude_further)}[command])
