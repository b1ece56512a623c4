#!/usr/bin/env python3
"""Whether this machine still does what it did: text, speed and acceptance of the bundled model, in about a minute.

A fresh process with an empty folder for compiled kernels runs a small `arcmtp bench mtp --matrix`. Each of its lines is
compared with a baseline, which `--write` makes. Exit status 1: something is worse, or a text depends on the draft
setting. A speed is worse if its fastest repetition is below the baseline's slowest by more than the tolerance.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from arcmtp.bench.baseline import Baseline, read_baseline
from arcmtp.bench.matrix import Matrix, name_of
from arcmtp.cli.options import positive
from arcmtp.errors import ArcmtpError

MATRIX = ["bench", "mtp", "--matrix", "--max-prompt", "1024", "--draft", "off,2,auto", "-n", "128", "-r", "5"]
STORED = Path("build/sanity.json")


def run_cold(output: Path, device: str | None) -> float:
    """Write the matrix to `output` as JSON; the seconds that the process took. Raises ArcmtpError if it fails."""
    command = [sys.executable, "-c", "import sys; from arcmtp.cli import main; sys.exit(main())", *MATRIX, "-o", "json"]
    command += ["--device", device] if device else []
    with tempfile.TemporaryDirectory() as cache, output.open("wb") as file:
        empty = {"XDG_CACHE_HOME": cache, "SYCL_CACHE_DIR": cache}
        began = time.perf_counter()
        done = subprocess.run(command, stdout=file, stderr=subprocess.PIPE, text=True, env={**os.environ, **empty})
        seconds = time.perf_counter() - began
    if done.returncode not in (0, 1):  # 1: the matrix says itself which texts differ
        raise ArcmtpError((done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1])
    return seconds


def verdicts(before: Baseline | None, now: Matrix, tolerance: float) -> Iterator[tuple[bool, str]]:
    """Whether something is as it should be, and what; without a baseline only that the texts are the same."""
    yield not now.differences, "; ".join(now.differences) or "texts are the same with every draft setting"
    for cell, old in zip(now.cells, before.matrix.cells, strict=True) if before else ():
        assert before is not None
        speeds = median(cell.inputs) / median(old.inputs), median(cell.outputs) / median(old.outputs)
        fine = "{} tokens, draft {}: input × {:.2f}, output × {:.2f}".format(cell.prompt, name_of(cell.draft), *speeds)
        worse = before.regressions(Matrix([cell], []), tolerance)
        yield not worse, "; ".join(worse) or fine


def check(options: argparse.Namespace) -> int:
    """Measure, print a line for each verdict, and write the baseline if asked to and nothing failed."""
    before = None if options.write else read_baseline(options.baseline)
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "matrix.json")
        print(f"{run_cold(output, options.device):.1f} s from a cold start to the end")
        now = read_baseline(output)
        content = output.read_bytes()
    if before:
        before.check(now.setup, now.matrix.lengths, now.matrix.drafts)
    found = list(verdicts(before, now.matrix, options.tolerance / 100))
    for passed, what in found:
        print(f"{'pass' if passed else 'FAIL'}  {what}")
    failed = not all(passed for passed, _ in found)
    if options.write and not failed:
        options.baseline.parent.mkdir(parents=True, exist_ok=True)
        options.baseline.write_bytes(content)
        print(f"written: {options.baseline}")
    return int(failed)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="make the baseline")
    parser.add_argument("--baseline", type=Path, default=STORED, metavar="FILE", help="(%(default)s)")
    parser.add_argument("--tolerance", type=positive, default=20, metavar="PERCENT", help="of speed (%(default)s)")
    parser.add_argument("--device", metavar="D", help="a dpctl filter string such as cpu or level_zero:gpu:0")
    try:
        return check(parser.parse_args(arguments))
    except ArcmtpError as error:
        print(f"sanity: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
