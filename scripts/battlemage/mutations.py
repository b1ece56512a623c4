#!/usr/bin/env python3
"""Make deliberate errors in the GPU's code, one at a time, and see that a test on the emulated card catches each.

usage: mutations.py [PART OF A NAME...]

The errors are those of mutations.toml, each undone afterwards. Runs operator tests with all checks of the emulator
(run.sh --execute) and prints what caught each error. Exit status 1: one went unseen, or a test fails without any error.
2: sycl_kernels/ or profiles/ hold changes of your own, which this must not mix with.
"""

import os
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Mutation:
    """An entry of mutations.toml."""

    name: str
    file: str
    old: str
    new: str
    test: str


def main() -> int:
    changed = _output("git", "status", "--porcelain", "sycl_kernels", "profiles")
    if changed:
        print(f"mutations.py: not committed: {' '.join(changed.split()[1::2])}", file=sys.stderr)
        return 2
    listed = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))["mutation"]
    wanted = sys.argv[1:] or [""]
    chosen = [m for m in (Mutation(**entry) for entry in listed) if any(part in m.name for part in wanted)]
    for test in sorted({mutation.test for mutation in chosen}):
        if failure := failure_of(test):
            print(f"{test} fails without any error: {failure}")
            return 1
    unseen = 0
    for mutation in chosen:
        caught = with_mutation(mutation)
        unseen += caught is None
        print(f"{mutation.name} ({mutation.file}): {caught or 'NOT CAUGHT by ' + mutation.test}", flush=True)
    print(f"{len(chosen) - unseen} of {len(chosen)} errors caught")
    return 1 if unseen else 0


def with_mutation(mutation: Mutation) -> str | None:
    """What its test says with the error made, or None where it passes."""
    path = ROOT / mutation.file
    text = path.read_text(encoding="utf-8")
    if text.count(mutation.old) != 1:
        raise SystemExit(f"mutations.py: {mutation.file} holds {text.count(mutation.old)} of {mutation.old!r}")
    try:
        path.write_text(text.replace(mutation.old, mutation.new), encoding="utf-8")
        return failure_of(mutation.test)
    finally:
        path.write_text(text, encoding="utf-8")


def failure_of(test: str) -> str | None:
    """The line that says why a test file fails on the emulated card; None if it passes."""
    environment = os.environ | {
        "ARCMTP_EMULATOR_CHECKS": "poison,races", "ONEAPI_DEVICE_SELECTOR": "opencl:cpu;level_zero:gpu",
        "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    run = str(ROOT / "scripts/battlemage/run.sh")
    command = [run, "--execute", sys.executable, "-m", "pytest", "-m", "emulated", "-xq", test]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return None
    lines = [line.strip() for line in (done.stdout + done.stderr).splitlines()]
    signs = ("emulator: ", "E   ", "FAILED")
    return next((line for sign in signs for line in lines if line.startswith(sign)), f"status {done.returncode}")


def _output(*command: str) -> str:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    sys.exit(main())
