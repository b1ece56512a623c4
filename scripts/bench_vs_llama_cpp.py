#!/usr/bin/env python3
"""Compare with llama.cpp on the same file and machine, in alternating rounds: the speed of prompts and of decoding
without drafts; with `--draft` speed and acceptance of drafts over the requests of `arcmtp bench mtp`; with `--golden`
log-probabilities.

The binaries are those of `--build DIR`. If it has none, llama.cpp is built there for this machine's CPU, from the
source package of llama-cpp-python: about ten minutes on two cores.
"""

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from arcmtp import LLM
from arcmtp.bench.mtp import Request, answer, prompts, questions
from arcmtp.bench.mtp_text import aggregate, speeds
from arcmtp.cli.options import integers
from arcmtp.errors import ArcmtpError
from arcmtp.gguf import GGUF
from arcmtp.model.tokenizer import Tokenizer

PACKAGE = "llama-cpp-python==0.3.36"
TARGETS = ("llama-bench", "llama-server", "llama-perplexity", "llama-quantize")
START_SECONDS = 300  # for the server to load the file
ANSWER_SECONDS = 3600


def build(folder: Path) -> Path:
    """The folder of llama.cpp's binaries below `folder`, built if it has none."""
    binaries = folder / "bin"
    if all((binaries / target).exists() for target in TARGETS):
        return binaries
    for tool in ("cmake", "ninja", "c++"):
        if shutil.which(tool) is None:
            raise ArcmtpError(f"{tool} is missing: building llama.cpp needs cmake, ninja and a C++ compiler")
    folder.mkdir(parents=True, exist_ok=True)
    download = [sys.executable, "-m", "pip", "download", "--no-binary", ":all:", "--no-deps", "--dest", str(folder)]
    run([*download, PACKAGE])
    (package,) = folder.glob("llama_cpp_python-*.tar.gz")
    with tarfile.open(package) as archive:
        archive.extractall(folder / "source", filter="data")
    (source,) = (folder / "source").glob("*/vendor/llama.cpp")
    # Without AMX: its code, built by g++ 12, crashes; with that repaired, Q4_K gave other tokens than without AMX.
    flags = ["CMAKE_BUILD_TYPE=Release", "CMAKE_C_FLAGS=-mno-amx-int8", "CMAKE_CXX_FLAGS=-mno-amx-int8"]
    flags += ["GGML_NATIVE=ON", "LLAMA_CURL=OFF", "LLAMA_OPENSSL=OFF", "LLAMA_BUILD_UI=OFF"]
    run(["cmake", "-G", "Ninja", "-S", str(source), "-B", str(folder), *(f"-D{flag}" for flag in flags)])
    run(["cmake", "--build", str(folder), "--target", *TARGETS])
    return binaries


def run(command: list[str]) -> None:
    """Run a command that may print; ArcmtpError when it fails."""
    if status := subprocess.run(command).returncode:
        raise ArcmtpError(f"exit status {status} of: {' '.join(command)}")


def json_of(command: list[str]) -> Any:
    """The JSON that a command prints to its standard output; ArcmtpError with the end of its messages when it fails."""
    done = subprocess.run(command, capture_output=True, text=True)
    try:
        if done.returncode == 0:
            return json.loads(done.stdout)
    except json.JSONDecodeError:
        pass
    last = (done.stderr.strip().splitlines() or ["no message"])[-1]
    raise ArcmtpError(f"exit status {done.returncode} and no JSON from: {' '.join(command)}: {last}")


@contextmanager
def server(binaries: Path, file: Path, context: int, threads: int, draft: int = 0) -> Iterator[str]:
    """A running llama-server that drafts so many tokens by the MTP block; its address."""
    with socket.socket() as any_port:
        any_port.bind(("127.0.0.1", 0))
        port = any_port.getsockname()[1]
    command = [str(binaries / "llama-server"), "-m", str(file), "-c", str(context), "-np", "1", "-t", str(threads)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--no-ui"]
    command += ["--spec-type", "draft-mtp", "--spec-draft-n-max", str(draft)] if draft else []
    with tempfile.TemporaryFile() as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            wait_for(process, f"http://127.0.0.1:{port}", log)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def wait_for(process: subprocess.Popen[bytes], address: str, log: Any) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(address + "/health", timeout=5).close()
            return
        except OSError:
            time.sleep(0.2)
    log.seek(0)
    last = (log.read().decode(errors="replace").strip().splitlines() or ["no message"])[-1]
    raise ArcmtpError(f"llama-server does not start: {last}")


def complete(address: str, prompt: list[int], tokens: int, top: int = 0) -> Any:
    """What llama-server answers: a greedy continuation of token ids."""
    question = {
        "prompt": prompt, "n_predict": tokens, "temperature": 0, "n_probs": top, "cache_prompt": False,
        "return_tokens": True,
    }  # fmt: skip
    request = urllib.request.Request(
        address + "/completion", json.dumps(question).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        raise ArcmtpError(f"llama-server refuses the prompt: {error.read().decode(errors='replace')}") from None


def golden(address: str, prompt: list[int], positions: int, top: int) -> dict[str, Any]:
    """The greedy `ids` after a prompt, and per position the `top` [id, log-probability] of the unscaled softmax."""
    answer = complete(address, prompt, positions, top)
    rows = answer["completion_probabilities"]
    return {
        "ids": answer["tokens"],
        "top": [[[token["id"], round(token["logprob"], 5)] for token in row["top_logprobs"]] for row in rows],
    }


def write_golden(options: argparse.Namespace, binaries: Path) -> None:
    """Set `prompt_ids` and models[FILE's stem] in OUT and leave the rest of it as it is."""
    prompt_file, out = map(Path, options.golden)
    document = json.loads(out.read_text()) if out.exists() else {}
    prompt = read_prompt(prompt_file)
    if document.setdefault("prompt_ids", prompt) != prompt:
        raise ArcmtpError(f"{out} has golden numbers of another prompt than {prompt_file}: name another file")
    context = -(-(len(prompt) + options.positions) // 256) * 256
    with server(binaries, options.file, context, options.threads) as address:
        answer = golden(address, prompt, options.positions, options.top)
    document.setdefault("models", {})[options.file.stem] = answer
    out.write_text(lines_of(document) + "\n")
    print(f"{out}: {len(answer['ids'])} positions of {options.file.stem}")


def read_prompt(path: Path) -> list[int]:
    """Token ids from a JSON list, or from the `prompt_ids` of an object."""
    try:
        prompt = json.loads(path.read_text())
        prompt = prompt["prompt_ids"] if isinstance(prompt, dict) else prompt
        if prompt and all(type(token) is int for token in prompt):
            return list(prompt)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArcmtpError(f"{path} has no token ids: {error!r}") from None
    raise ArcmtpError(f"{path} should be a JSON list of token ids")


def lines_of(value: Any, indent: str = "") -> str:
    """JSON with a line per member of an object, and lists on one line."""
    if not isinstance(value, dict):
        return json.dumps(value)
    members = (f"{indent} {json.dumps(key)}: {lines_of(member, indent + ' ')}" for key, member in value.items())
    return "{\n" + ",\n".join(members) + f"\n{indent}}}"


def random_text(file: Path, tokens: int) -> str:
    """Text of about `tokens` random tokens: a prompt whose tokens reach many experts, as llama-bench's do."""
    tokenizer = Tokenizer.from_gguf(GGUF(file))
    ids = np.random.default_rng(0).integers(0, tokenizer.vocab_used, 4 * tokens)
    words = "".join(word for word in (tokenizer.decode([int(i)]) for i in ids) if word.strip(" ").isalnum())
    return tokenizer.decode(tokenizer.encode(words)[:tokens])


def peer_speed(options: argparse.Namespace, binaries: Path) -> tuple[float, float]:
    """llama.cpp's tokens per second: prompt, decoding."""
    command = [str(binaries / "llama-bench"), "-m", str(options.file), "-r", "1", "-o", "json"]
    command += ["-p", str(options.prompt_tokens), "-n", str(options.tokens), "-t", str(options.threads)]
    prompt, decode = json_of(command)
    return prompt["avg_ts"], decode["avg_ts"]


def our_speed(options: argparse.Namespace, prompt: Path) -> tuple[float, float]:
    """arcmtp's tokens per second without drafts: prompt, decoding."""
    command = [sys.executable, "-c", "import sys; from arcmtp.cli import main; sys.exit(main())", "generate", "--raw"]
    command += ["--json", "-m", str(options.file), "-f", str(prompt), "-n", str(options.tokens)]
    command += ["--ctx", str(options.prompt_tokens + options.tokens + 8)]
    command += ["--draft", "0"]  # as llama-bench, which never drafts; a file with an MTP block would by default
    if options.device:
        command += ["--device", options.device]
    stats = json_of(command)["stats"]
    return stats["prompt_tokens_per_second"], stats["decode_tokens_per_second"]


def compare(options: argparse.Namespace, binaries: Path) -> None:
    """Alternate both programs and print medians, and the median and the range of the rounds' ratios."""
    with tempfile.TemporaryDirectory() as folder:
        prompt = Path(folder, "prompt.txt")
        prompt.write_text(random_text(options.file, options.prompt_tokens))
        rounds = []
        for number in range(options.rounds + 1):  # the first one fills the caches of kernels and file pages
            pair = peer_speed(options, binaries), our_speed(options, prompt)
            speeds_text = ", ".join(f"{prompt:.1f} and {decode:.1f}" for prompt, decode in pair)
            print(f"round {number or 'to warm up'}, prompt and decoding: {speeds_text}", file=sys.stderr)
            rounds.append(pair)
    speeds = np.array(rounds[1:])  # [rounds, 2 programs, prompt and decoding]
    print(f"{options.file.name}, {options.threads} threads, {options.rounds} rounds, tokens per second")
    print(f"{'':24} {'llama.cpp':>10} {'arcmtp':>10}   ratio (lowest – highest)")
    for column, what in enumerate((f"prompt of {options.prompt_tokens}", f"decoding {options.tokens}")):
        peer, ours = speeds[:, 0, column], speeds[:, 1, column]
        ratios = ours / peer
        print(
            f"{what:24} {median(peer):10.1f} {median(ours):10.1f}   "
            f"{median(ratios):.2f} ({ratios.min():.2f} – {ratios.max():.2f})"
        )
    print("arcmtp decodes behind the prompt, llama-bench from an empty context.")


def peer_answer(address: str, name: str, prompt: list[int], tokens: int) -> Request:
    """A request to llama-server, with its own times."""
    answer = complete(address, prompt, tokens)
    times = answer["timings"]
    return Request(
        name, answer["tokens"], times.get("draft_n", 0), times.get("draft_n_accepted", 0),
        (times["prompt_ms"] + times["predicted_ms"]) / 1e3, times["predicted_ms"] / 1e3,
    )  # fmt: skip


def compare_drafts(options: argparse.Namespace, binaries: Path) -> None:
    """Alternate both programs at each draft length and print medians, with the range of the rounds' ratios."""
    theirs: dict[int, list[list[Request]]] = {k: [] for k in options.draft}
    ours: dict[int, list[list[Request]]] = {k: [] for k in options.draft}
    with LLM(options.file, options.device, draft=max(options.draft)) as llm:
        asked = questions(llm.prompting, llm.context, prompts(), options.tokens)
        warm_up = next(iter(asked.items()))
        for number in range(options.rounds + 1):  # the first one fills the caches of kernels and file pages
            print(f"round {number or 'to warm up'}", file=sys.stderr)
            for k in options.draft:
                with server(binaries, options.file, llm.context, options.threads, k) as address:
                    peer_answer(address, *warm_up, options.tokens)
                    theirs[k].append([peer_answer(address, *item, options.tokens) for item in asked.items()])
                ours[k].append([answer(llm, *item, options.tokens, k) for item in asked.items()])
    print(f"{options.file.name}, {options.threads} threads, {options.rounds} rounds of {len(asked)} requests")
    print("| k | llama.cpp tok/s | arcmtp tok/s | ratio (lowest – highest) | acc/draft, rate | arcmtp's | same text |")
    print("|---:|---:|---:|---:|---:|---:|---:|")
    for k in options.draft:
        print(draft_row(k, theirs[k][1:], ours[k][1:]))


def draft_row(k: int, theirs: list[list[Request]], ours: list[list[Request]]) -> str:
    """A line of the table: the rounds of both programs at one draft length."""
    ratios = [our / their for our, their in zip(speeds(ours), speeds(theirs), strict=True)]
    counts = [aggregate(rounds) for rounds in (theirs, ours)]
    shares = [
        f"{c['total_draft_accepted']}/{c['total_draft']}, {c['aggregate_accept_rate']:.3f}" if k else "–"
        for c in counts
    ]
    same = sum(our.ids == their.ids for our, their in zip(ours[0], theirs[0], strict=True))
    return (
        f"| {k} | {median(speeds(theirs)):.0f} | {median(speeds(ours)):.0f} | "
        f"{median(ratios):.2f} ({min(ratios):.2f} – {max(ratios):.2f}) | {' | '.join(shares)} | "
        f"{same} of {len(ours[0])} |"
    )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, metavar="FILE", help="GGUF file")
    parser.add_argument("--build", type=Path, default=Path("build/llama.cpp"), metavar="DIR", help="(%(default)s)")
    parser.add_argument(
        "--golden", nargs=2, metavar=("PROMPT", "OUT"),
        help="add llama.cpp's log-probabilities after the token ids in PROMPT (a JSON list) to OUT",
    )  # fmt: skip
    parser.add_argument(
        "--draft", type=integers, metavar="N,N…", help="compare speculation with drafts of so many tokens (0: none)"
    )
    parser.add_argument("--positions", type=int, default=4, help="of golden numbers (%(default)s)")
    parser.add_argument("--top", type=int, default=20, help="log-probabilities of a position (%(default)s)")
    parser.add_argument("--prompt-tokens", type=int, default=512, help="of a round (%(default)s)")
    parser.add_argument("--tokens", type=int, default=64, help="that a round decodes (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="(%(default)s)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of llama.cpp (%(default)s)")
    parser.add_argument("--device", help="of arcmtp, as dpctl's filter string")
    options = parser.parse_args()
    for name in ("positions", "top", "prompt_tokens", "tokens", "rounds", "threads"):
        if getattr(options, name) < 1:
            parser.error(f"--{name.replace('_', '-')} should be at least 1")
    return options


def main() -> int:
    options = parse()
    try:
        if not options.file.is_file():
            raise ArcmtpError(f"{options.file}: no such file")
        binaries = build(options.build)
        if options.golden:
            write_golden(options, binaries)
        elif options.draft:
            compare_drafts(options, binaries)
        else:
            compare(options, binaries)
    except ArcmtpError as error:
        print(f"bench_vs_llama_cpp: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
