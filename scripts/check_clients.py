"""Tries clients of other projects with a real server of the bundled model, and prints which work.

The clients are installed from PyPI and npm into a temporary folder, or one that is kept and used again, and talk to
`arcmtp serve` on this machine; nothing else is reached. The bundled model's answers mean nothing: what is checked is
that a client gets an answer that it understands. Exit status 1 if any check fails.

    python scripts/check_clients.py [--keep FOLDER] [--only NAME ...] [--markdown]
"""

import argparse
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path

from arcmtp.engine.llm import bundled_model

ROOT = Path(__file__).parents[1]
CONTEXT = 16384  # the prompts of coding agents are long, and so are their answers here, whose length they do not limit
SECONDS = 900  # for the checks of a client
MARK = "CHECK "  # of scripts/clients/checks.py


@dataclass(frozen=True)
class Client:
    """What is installed, and the script that tries it with its arguments."""

    name: str
    pypi: tuple[str, ...] = ()
    npm: tuple[str, ...] = ()
    script: str = ""
    arguments: tuple[str, ...] = ()


CLIENTS = (
    Client("openai", pypi=("openai",), script="openai_client"),
    Client("anthropic", pypi=("anthropic",), script="anthropic_client"),
    Client("litellm", pypi=("litellm",), script="litellm_client"),
    Client("langchain-openai", pypi=("langchain-openai",), script="langchain_client"),
    Client("instructor", pypi=("instructor",), script="instructor_client"),
    Client("pydantic-ai", pypi=("pydantic-ai-slim[openai]",), script="pydantic_ai_client"),
    Client("openai-agents", pypi=("openai-agents",), script="openai_agents_client"),
    Client("lm-eval", pypi=("lm_eval[api]",), script="lm_eval_client"),
    Client("Vercel ai", npm=("ai", "@ai-sdk/openai-compatible", "zod"), script="vercel_ai.mjs"),
    Client("Codex", npm=("@openai/codex",), script="command_lines", arguments=("codex",)),
    Client("Claude Code", npm=("@anthropic-ai/claude-code",), script="command_lines", arguments=("claude",)),
)


@dataclass(frozen=True)
class Check:
    """A check's line in the table."""

    client: str
    version: str
    tried: str
    ok: bool
    why: str


class Environment:
    """A folder with a virtual environment and npm's packages."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.python = folder / "venv" / "bin" / "python"

    def install(self, clients: Sequence[Client]) -> None:
        """What they need, in versions that go together. CalledProcessError if that fails."""
        if not self.python.exists():
            venv.create(self.folder / "venv", with_pip=True)
        pypi = [package for client in clients for package in client.pypi]
        npm = [package for client in clients for package in client.npm]
        self._quietly([self.python, "-m", "pip", "install", "--quiet", "pydantic", *pypi])
        if npm:
            self._quietly(["npm", "install", "--no-audit", "--no-fund", "--loglevel=error", *npm])

    def version(self, client: Client) -> str:
        """Of the package that the client is named by."""
        if client.npm:
            package = self.folder / "node_modules" / client.npm[0] / "package.json"
            return str(json.loads(package.read_text())["version"])
        name = client.pypi[0].partition("[")[0].replace("_", "-")
        (site,) = (self.folder / "venv" / "lib").glob("python*/site-packages")
        found = (one.version for one in distributions(path=[str(site)]) if one.name.replace("_", "-") == name)
        return next(found)

    def run(self, client: Client, url: str, log: Path) -> list[Check]:
        """The checks of a client; its own output goes to `log`."""
        version, command = self.version(client), [str(self.python), "-m", f"scripts.clients.{client.script}"]
        if client.script.endswith(".mjs"):
            shutil.copy(ROOT / "scripts" / "clients" / client.script, self.folder)  # beside its packages
            command = ["node", str(self.folder / client.script)]
        elif client.npm:
            command += [*client.arguments, str(self.folder)]
        with log.open("w") as errors:
            process = subprocess.run(
                command, cwd=self.folder, stdout=subprocess.PIPE, stderr=errors, text=True, timeout=SECONDS,
                env={**os.environ, "ARCMTP_URL": url, "PYTHONPATH": str(ROOT), "HOME": str(self.folder)},
            )  # fmt: skip
        lines = [line.removeprefix(MARK) for line in process.stdout.splitlines() if line.startswith(MARK)]
        checks = [Check(client.name, version, **json.loads(line)) for line in lines]
        if process.returncode:
            why = f"exit status {process.returncode}: {' '.join(log.read_text()[-300:].split())}"
            checks.append(Check(client.name, version, "start", False, why))
        return checks

    def _quietly(self, command: list[str | Path]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["nice", *map(str, command)], cwd=self.folder, check=True, stdout=sys.stderr)


def longer_model(path: Path) -> None:
    """The bundled model with a context for long prompts, whose answers are no worse for it."""
    content = bundled_model().read_bytes()
    key = b"qwen35moe.context_length"
    at = content.index(key) + len(key) + 4  # behind the value's type
    path.write_bytes(content[:at] + struct.pack("<I", CONTEXT) + content[at + 4 :])


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """The address of a server that is ready."""
    model = folder / "model.gguf"
    longer_model(model)
    command = [
        sys.executable, "-m", "arcmtp", "serve", "-m", str(model), "--ctx", str(CONTEXT), "--device", "cpu",
        "--alias", "tiny", "--seed", "1", "--port", "0",
    ]  # fmt: skip
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, cwd=ROOT)
        try:
            assert process.stdout is not None
            listening, ready = process.stdout.readline(), process.stdout.readline()
            if not ready.startswith("ready: "):
                raise SystemExit(f"the server has not started: {(folder / 'server.log').read_text()[-500:]}")
            yield listening.removeprefix("listening on ").partition(",")[0]
        finally:
            process.terminate()
            process.wait()


def table(checks: list[Check]) -> str:
    """Markdown: a line for each client, and one for each check that fails."""
    lines = ["| client | version | works |", "|---|---|---|"]
    for client in dict.fromkeys(check.client for check in checks):
        own = [check for check in checks if check.client == client]
        good = "; ".join(check.tried for check in own if check.ok) or "nothing"
        lines.append(f"| {client} | {own[0].version} | {good} |")
    lines += [f"\nfails: {check.client}, {check.tried}: {check.why}" for check in checks if not check.ok]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="install there, or use what is there")
    parser.add_argument("--only", nargs="+", choices=[client.name for client in CLIENTS], metavar="NAME")
    options = parser.parse_args()
    chosen = [client for client in CLIENTS if options.only is None or client.name in options.only]
    checks: list[Check] = []
    with tempfile.TemporaryDirectory(prefix="arcmtp-clients-") as temporary:
        environment = Environment((options.keep or Path(temporary) / "clients").absolute())
        environment.install(chosen)
        with server(Path(temporary)) as url:
            for client in chosen:
                log = environment.folder / f"{client.name}.log"
                for check in environment.run(client, url, log):
                    verdict = "works" if check.ok else "FAILS"
                    print(verdict, check.client, check.version, check.tried, check.why, sep=" | ", flush=True)
                    checks.append(check)
    print(f"\n{table(checks)}")
    return 0 if checks and all(check.ok for check in checks) else 1


if __name__ == "__main__":
    sys.exit(main())
