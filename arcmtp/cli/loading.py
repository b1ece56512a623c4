"""Opening the model and the texts that a command names, with progress on standard error."""

from __future__ import annotations

import argparse
import contextlib
import functools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from arcmtp.errors import ArcmtpError
from arcmtp.progress import Progress
from arcmtp.runtime import environment

if TYPE_CHECKING:
    from arcmtp import LLM
    from arcmtp.engine.loading import Draft
    from arcmtp.engine.model_file import ModelFile
    from arcmtp.hub import HubModel, Repository

CACHE_OPTIONS = ("cache_mib", "cache_host_mib")
MTP_OPTIONS = ("draft_p_min", "draft_vocab", "draft_requant", "mtp_model", "mtp_hidden")


def open_model(options: argparse.Namespace) -> ModelFile:
    """The file that `--model` names, to check what else was given before it is loaded; ArcmtpError if it cannot be
    used."""
    from arcmtp.engine.llm import bundled_model
    from arcmtp.engine.model_file import ModelFile

    bring_models(options)
    return ModelFile.open(bundled_model() if options.model is None else options.model)


def read_files(options: argparse.Namespace, file: ModelFile) -> list[Path]:
    """The files that are read until the end, which no output may replace."""
    named = (getattr(options, name, None) for name in ("mtp_model", "draft_vocab"))
    return [*file.gguf.paths, *(Path(name) for name in named if isinstance(name, str) and Path(name).is_file())]


def load(
    options: argparse.Namespace, ctx: int | None, draft: Draft | None = 0, parallel: int = 1,
    file: ModelFile | None = None,
) -> LLM:  # fmt: skip
    """The model that `add_model_options` and `add_mtp_options` describe, whose file may be open already; ArcmtpError if
    it cannot be used."""
    from arcmtp.engine import LLM

    bring_models(options)
    _tell_cache_problem()
    with ProgressBar() as progress:
        others = {name: getattr(options, name) for name in MTP_OPTIONS if hasattr(options, name)}
        others |= {name: getattr(options, name, 0) for name in CACHE_OPTIONS}  # a single prompt comes back to nothing
        llm = LLM(
            file or options.model, options.device, ctx, options.requant, options.graph, progress, draft,
            parallel=parallel, experts_host=options.experts_host, kv_type=options.kv_type,
            ignore_selftest=options.ignore_selftest, **others,
        )  # fmt: skip
    for line in (*llm.without, *_what_memory_decided(llm, ctx)):
        print(line, file=sys.stderr)
    for name, error in llm.requant_errors.items():
        print(f"{name}: relative RMS error {error:.4f} in INT4", file=sys.stderr)
    return llm


def _what_memory_decided(llm: LLM, ctx: int | None) -> Iterator[str]:
    """A line if the context is less than usual for want of memory, and one if experts lie in host memory."""
    from arcmtp.predict import predicted_tokens_per_second

    usual = llm.config.usable_context(ctx)
    if llm.context < usual:
        yield f"ctx is {llm.context}: the memory does not hold the {usual} tokens that are usual"
    if llm.memory.experts:
        hardware = llm.device.card.hardware
        speed = predicted_tokens_per_second(llm.network, hardware).expected if hardware else None
        predicted = f": {speed:.0f} tokens/s predicted for {llm.device.card.name}, without drafts" if speed else ""
        yield llm.memory.experts + predicted


@functools.cache
def _tell_cache_problem() -> None:
    """Say once, on standard error, that kernels will be compiled at each start."""
    if problem := environment.cache_problem():
        print(f"{problem}: no kernel is kept, each start compiles them all", file=sys.stderr)


def model_path(options: argparse.Namespace) -> Path:
    """The path that `--model` gives; without one the file name of the bundled model."""
    from arcmtp.engine.llm import BUNDLED_MODEL

    bring_models(options)
    return Path(options.model or BUNDLED_MODEL)


def bring_models(options: argparse.Namespace) -> None:
    """Put paths in the places of `hf:` names in `--model` and `--mtp-model`, and download what is not there."""
    for option in ("model", "mtp_model"):
        name = getattr(options, option, None)
        if name and name.startswith("hf:"):
            setattr(options, option, str(bring(name, options, only_mtp=option == "mtp_model")))


def bring(name: str, options: argparse.Namespace, only_mtp: bool = False) -> Path:
    """The path of the model that an `hf:` name means, downloaded if it is not there.

    Without a quantisation it is the largest that fits the device and context of the options, told in a table on
    standard error; with `only_mtp` the largest file that has an MTP block alone. Raises ArcmtpError if there is none.
    """
    from arcmtp.hub import HubName, Repository

    parsed = HubName.parse(name)
    repository = Repository.open(parsed.repository)
    if repository.offline:
        print(f"hf:{repository.name}: without a connection, from the cache", file=sys.stderr)
    if parsed.quant:
        model = repository.find(parsed.quant, only_mtp)
    elif only_mtp:
        model = repository.of_kind(only_mtp)[0]
    else:
        model = _largest_that_fits(repository, options)
    with ProgressBar() as progress:
        return repository.fetch(model, progress)


def read_text(path: Path, most: int = -1) -> str:
    """The text of a file, or of standard input for `-`; ArcmtpError for what is no UTF-8 text, and for more than `most`
    bytes, if that is not below 0."""
    if str(path) == "-" and sys.stdin is None:
        raise ArcmtpError("-: standard input is closed; expected a text")
    try:
        with contextlib.nullcontext(sys.stdin.buffer) if str(path) == "-" else path.open("rb") as file:
            content = file.read(most + 1 if most >= 0 else -1)
        if 0 <= most < len(content):
            raise ArcmtpError(f"{path}: it has more than {most} bytes")
        return content.decode()
    except OSError as error:
        raise ArcmtpError(f"{path}: {error.strerror}; expected a text file") from None
    except UnicodeDecodeError as error:
        raise ArcmtpError(f"{path}: byte {error.start} is not UTF-8; expected a UTF-8 text") from None


class ProgressBar:
    """A bar per stage on a terminal's standard error, a line per stage elsewhere; a context manager.

    Entering gives the function to call as progress(stage, done, total).
    """

    def __init__(self) -> None:
        self._bar: tqdm | None = None
        self._stage = ""

    def __enter__(self) -> Progress:
        return self._update

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def _update(self, stage: str, done: int, total: int) -> None:
        if stage != self._stage:
            self.__exit__()
            self._stage = stage
            if not sys.stderr.isatty():
                print(f"{stage} …", file=sys.stderr, flush=True)
            in_bytes = stage.startswith(("loading weights", "writing tensors", "counting tokens", "downloading "))
            self._bar = tqdm(
                desc=stage, total=total, unit="B" if in_bytes else "", unit_scale=in_bytes, leave=False, disable=None
            )
        if self._bar is not None:
            self._bar.update(done - self._bar.n)


def _largest_that_fits(repository: Repository, options: argparse.Namespace) -> HubModel:
    from arcmtp.engine.fitting import Place, candidates, table
    from arcmtp.runtime.device import Device

    given = vars(options)
    device = Device(given.get("device"))
    place = Place(
        device, given.get("ctx"), given.get("parallel", 1), given.get("requant"), given.get("kv_type", "f16"),
        (given.get("cache_mib"), given.get("cache_host_mib")),
    )  # fmt: skip
    with ProgressBar() as progress:
        found = candidates(repository, place, progress)
    print(table(found), file=sys.stderr)
    model = next((candidate.model for candidate in found if candidate.fits), None)
    if model is None:
        smallest = found[-1].model.name
        raise ArcmtpError(
            f"hf:{repository.name}: no file fits {device.sycl_device.name}: name one all the same, such as "
            f"hf:{repository.name}:{smallest}"
        )
    print(f"taking hf:{repository.name}:{model.name}, the largest that fits {device.sycl_device.name}", file=sys.stderr)
    return model
