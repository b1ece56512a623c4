"""`arcmtp bench mtp --matrix`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from arcmtp.cli.loading import MTP_OPTIONS, ProgressBar, bring_models, load, model_path
from arcmtp.cli.options import Parser, integer, positive
from arcmtp.errors import ArcmtpError, MemoryExceeded

if TYPE_CHECKING:
    from arcmtp import LLM
    from arcmtp.bench.matrix_text import Setup
    from arcmtp.engine.loading import Draft

NEED_MATRIX = ("max_prompt", "baseline", "tolerance", "plot")


def add_options(mtp: Parser) -> None:
    """What `bench mtp` takes for its matrix."""
    group = mtp.add_argument_group("draft settings × prompt lengths")
    group.add_argument(
        "--matrix", action="store_true", help="measure prompts of 1024 tokens and twice as many, until they do not fit"
    )
    group.add_argument("--max-prompt", metavar="N", type=integer(1), help="tokens of the longest prompt")
    group.add_argument(
        "--baseline", metavar="FILE", type=Path, help="name what is worse than in FILE, which -o json wrote (status 1)"
    )
    group.add_argument(
        "--tolerance", metavar="PERCENT", type=positive, help="by which speeds may be below the baseline (default 5)"
    )
    group.add_argument(
        "--plot", metavar="PATH", type=Path, help="draw PATH.png and PATH.svg, or the one that PATH ends with"
    )


def check_options(options: argparse.Namespace) -> None:
    """Refuse options of the matrix without `--matrix`: they would be lost."""
    for name in NEED_MATRIX:
        if getattr(options, name) is not None and not options.matrix:
            raise ArcmtpError(f"--{name.replace('_', '-')} needs --matrix")
    if options.output == "csv" and not options.matrix:
        raise ArcmtpError("-o csv needs --matrix")


def measure(options: argparse.Namespace) -> int:
    """Status 1 if a text depends on the draft setting, or if something is worse than in the baseline."""
    from arcmtp.bench.baseline import TOLERANCE, read_baseline
    from arcmtp.bench.matrix import DRAFTS, bench_matrix
    from arcmtp.bench.matrix_text import FORMS
    from arcmtp.bench.mtp import most_drafts
    from arcmtp.bench.plot import Plot

    plot = Plot(options.plot) if options.plot else None
    baseline = read_baseline(options.baseline) if options.baseline else None
    drafts = options.draft or DRAFTS
    llm, lengths = _open(options, most_drafts(drafts))
    with llm, ProgressBar() as progress:
        setup = _setup(options, llm)
        if baseline:
            baseline.check(setup, lengths, drafts)
        matrix = bench_matrix(llm, lengths, options.max_tokens, drafts, options.repetitions, progress)
    print(FORMS[options.output](matrix, setup))
    if plot:
        plot.draw(matrix, setup)
    tolerance = TOLERANCE if options.tolerance is None else options.tolerance / 100
    worse = baseline.regressions(matrix, tolerance) if baseline else []
    for line in worse:
        print(line, file=sys.stderr)
    return int(bool(matrix.differences or worse))


def _open(options: argparse.Namespace, draft: Draft) -> tuple[LLM, list[int]]:
    """The model with a context for the longest prompt that it and the device's memory allow, and the lengths."""
    from arcmtp.bench.matrix import prompt_lengths
    from arcmtp.engine.llm import BUNDLED_MODEL
    from arcmtp.gguf import GGUF
    from arcmtp.model.config import Config
    from arcmtp.runtime.paths import data_dir

    bring_models(options)
    trained = Config.from_gguf(GGUF(options.model or data_dir() / BUNDLED_MODEL)).context_length
    most = options.ctx or trained
    while True:
        lengths = prompt_lengths(most - options.max_tokens, options.max_prompt)
        try:
            llm = load(options, lengths[-1] + options.max_tokens, draft)
        except MemoryExceeded as error:
            if error.largest >= most:
                raise
            most = error.largest
        else:
            if options.max_prompt and lengths[-1] < options.max_prompt:
                print(f"no prompts of more than {lengths[-1]} tokens: the context holds {most}", file=sys.stderr)
            return llm, lengths


def _setup(options: argparse.Namespace, llm: LLM) -> Setup:
    from arcmtp.bench.matrix_text import Setup

    device = llm.device.sycl_device
    return Setup(
        model_path(options).name, llm.network.weights.nbytes, device.name, device.driver_version,
        llm.device.card.profile, llm.network.stage.graphs.enabled,
        {name: getattr(options, name) for name in ("max_tokens", "requant", *MTP_OPTIONS)},
    )  # fmt: skip
