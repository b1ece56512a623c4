"""Names of repositories and quantisations, and which GGUF files of a repository are one model."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from arcmtp.errors import ArcmtpError

PREFIX = "hf:"

_NAME = re.compile(r"hf:([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?::(.+))?", re.ASCII)
_PART = re.compile(r"(.*)-(\d{5})-of-(\d{5})", re.DOTALL)
_QUANT = re.compile(
    r"(?:UD-)?(?:I?Q[1-8](?:_[A-Z0-9]+)*|TQ[12]_0|BF16|F16|F32|MXFP4(?:_MOE)?|NVFP4)", re.ASCII | re.IGNORECASE
)
_QUANT_IN_NAME = re.compile(rf"(?:(?<=^)|(?<=[-._]))({_QUANT.pattern})(?=$|[-.])", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True)
class HubName:
    """`hf:OWNER/NAME[:QUANT]`."""

    repository: str  # OWNER/NAME
    quant: str | None

    @classmethod
    def parse(cls, text: str) -> HubName:
        """Raises ArcmtpError for another form."""
        match = _NAME.fullmatch(text)
        if match is None:
            raise ArcmtpError(f"{text!r} is not hf:OWNER/NAME or hf:OWNER/NAME:QUANT, such as hf:unsloth/X-GGUF:Q4_K_M")
        return cls(match[1], match[2])


@dataclass(frozen=True)
class HubFile:
    """A file of a repository."""

    path: str  # in the repository
    nbytes: int


@dataclass(frozen=True)
class HubModel:
    """A GGUF file of a repository, or all parts of a split one.

    name: its quantisation, such as `UD-Q4_K_XL`; the file's name without `.gguf` if that has none or another file has
        the same quantisation. With `only_mtp` there is `MTP-` before the quantisation.
    only_mtp: whether it has an MTP block and no trunk, judged by its name.
    """

    name: str
    files: tuple[HubFile, ...]  # by number of their part
    only_mtp: bool = False

    @property
    def nbytes(self) -> int:
        """Of all parts."""
        return sum(file.nbytes for file in self.files)


def models(files: Iterable[HubFile]) -> list[HubModel]:
    """The models among a repository's files, the largest first.

    Left out are files whose names a terminal cannot show, split files that lack a part, `mmproj` files (the part of a
    model for images) and `imatrix` files (statistics for quantisers).
    """
    found = [
        HubModel(stem, parts)
        for stem, parts in _complete(files).items()
        if "mmproj" not in _words(stem) and ("imatrix" not in _words(stem) or _quant(stem))
    ]
    sizes = {model.name.lower(): model.nbytes for model in found}
    found = [replace(model, only_mtp=_is_only_mtp(model, sizes)) for model in found]
    labels = [_label(model) for model in found]
    named = [
        replace(model, name=label if label and labels.count(label) == 1 else PurePosixPath(model.name).name)
        for model, label in zip(found, labels, strict=True)
    ]
    return sorted(named, key=lambda model: (-model.nbytes, model.name))


def find(candidates: Sequence[HubModel], quant: str) -> HubModel | None:
    """The model that `quant` names, in any case: by its whole name, or by the end of it behind a hyphen or dot.

    Raises ArcmtpError if that could be several.
    """
    wanted = quant.lower()
    whole = [model for model in candidates if model.name.lower() == wanted]
    ending = [model for model in candidates if model.name.lower().endswith((f"-{wanted}", f".{wanted}"))]
    matching = whole or ending
    if len(matching) > 1:
        raise ArcmtpError(f"{quant} could be {' or '.join(model.name for model in matching)}")
    return matching[0] if matching else None


def _complete(files: Iterable[HubFile]) -> dict[str, tuple[HubFile, ...]]:
    """Single GGUF files and split ones with all their parts, by their path without part and `.gguf`."""
    groups: defaultdict[tuple[str, int], dict[int, HubFile]] = defaultdict(dict)
    for file in files:
        if file.path.lower().endswith(".gguf") and file.path.isprintable():
            stem = file.path[: -len(".gguf")]
            part = _PART.fullmatch(stem)
            stem, number, count = (part[1], int(part[2]), int(part[3])) if part else (stem, 1, 1)
            groups[stem, count][number] = file
    return {
        stem: tuple(parts[number] for number in sorted(parts))
        for (stem, count), parts in groups.items()
        if sorted(parts) == list(range(1, count + 1))
    }


def _words(stem: str) -> list[str]:
    return re.split(r"[-._/]", stem.lower())


def _quant(stem: str) -> str | None:
    """The last quantisation in a file's name, or else the one that its folder is called."""
    path = PurePosixPath(stem)
    found = _QUANT_IN_NAME.findall(path.name)
    if found:
        return str(found[-1]).upper()
    folder = path.parent.name
    return folder.upper() if _QUANT.fullmatch(folder) else None


def _label(model: HubModel) -> str | None:
    quant = _quant(model.name)
    return f"MTP-{quant}" if quant and model.only_mtp else quant


def _is_only_mtp(model: HubModel, sizes: Mapping[str, int]) -> bool:
    """Whether the file is called mtp-…, or has the word `mtp` and is smaller than a file with the rest of its name.

    A whole model may be called …-MTP-… as well."""
    words = _words(model.name)
    if _words(PurePosixPath(model.name).name)[0] == "mtp":
        return True
    rest = [word for word in words if word != "mtp"]
    return "mtp" in words and any(_words(name) == rest and model.nbytes < size for name, size in sizes.items())
