"""A repository of the hub, or what the cache has of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from json import JSONDecodeError
from pathlib import Path
from tempfile import TemporaryDirectory

from huggingface_hub import HfApi, constants, hf_hub_url

from arcmtp.errors import ArcmtpError
from arcmtp.gguf import GGUF
from arcmtp.hub.download import PartialFile, cache_folder, fetch, get
from arcmtp.hub.errors import HubError, Unreachable, explained
from arcmtp.hub.names import HubFile, HubModel, find, models
from arcmtp.progress import Progress

TIMEOUT = 20.0  # seconds for the hub to answer
# To read of a header. That of Qwen3.6-35B-A3B, with 248,320 tokens and 247,587 merges, has about 10 MB (estimated).
HEADER_BYTES = (16 << 20, 64 << 20)


@dataclass(frozen=True)
class Repository:
    """The models of `name`, OWNER/NAME, the largest first; offline: they are what the cache has."""

    name: str
    models: Sequence[HubModel]
    offline: bool

    @classmethod
    def open(cls, name: str) -> Repository:
        """Ask the hub, or where it cannot be reached the cache.

        Raises ArcmtpError for a repository that is not there, not accessible or without a model.
        """
        try:
            files, offline = _listed(name), False
        except Unreachable as error:
            files, offline = _cached(name), True
            if not files:
                raise ArcmtpError(f"{error}, and {constants.HF_HUB_CACHE} has no file of it") from None
        found = models(files)
        if not found:
            raise ArcmtpError(f"hf:{name}: has no GGUF file of a model among its {len(files)} files")
        return cls(name, found, offline)

    def find(self, quant: str, only_mtp: bool = False) -> HubModel:
        """The model that `quant` names; only_mtp: rather one that is an MTP block alone.

        Raises ArcmtpError, naming those that are there, for none or several.
        """
        blocks = [model for model in self.models if model.only_mtp and only_mtp]
        try:
            found = find(blocks, quant) or find(self.models, quant)
        except ArcmtpError as error:
            raise ArcmtpError(f"hf:{self.name}: {error}") from None
        if found is None:
            names = ", ".join(model.name for model in self.models)
            where = "the cache, without a connection," if self.offline else "it"
            raise ArcmtpError(f"hf:{self.name}: has no {quant}; {where} has {names}")
        return found

    def of_kind(self, only_mtp: bool) -> list[HubModel]:
        """The models that are, or are not, MTP blocks alone. Raises ArcmtpError if there is none."""
        candidates = [model for model in self.models if model.only_mtp == only_mtp]
        if not candidates:
            kind = "with an MTP block alone (mtp-….gguf)" if only_mtp else "that is more than an MTP block"
            raise ArcmtpError(f"hf:{self.name}: has no file {kind}; it has {', '.join(m.name for m in self.models)}")
        return candidates

    def fetch(self, model: HubModel, progress: Progress) -> Path:
        """The path of the model's first file in the cache, where all of it is downloaded to.

        progress: called as progress("downloading FILE", done bytes, all bytes). Raises ArcmtpError for a disk that has
        too little room, before any download, and for a download that ends early; the next one goes on from there.
        """
        if self.offline:
            return _snapshot(self.name) / model.files[0].path
        with explained(self.name):
            return fetch(self.name, model.files, progress)[0]

    @contextmanager
    def header(self, model: HubModel) -> Iterator[GGUF]:
        """The model as a file whose header alone can be read: the first megabytes are downloaded, the rest is a hole.

        Raises ArcmtpError for what is no GGUF file.
        """
        if self.offline:
            yield GGUF(_snapshot(self.name) / model.files[0].path)
            return
        with TemporaryDirectory(prefix="arcmtp-") as folder:
            try:
                yield self._header(model, Path(folder))
            except HubError:
                raise
            except ArcmtpError as error:  # it names the file by its name in the repository
                raise ArcmtpError(str(error).replace(f"{folder}/", "")) from None

    def _header(self, model: HubModel, folder: Path) -> GGUF:
        for nbytes in HEADER_BYTES:
            with explained(self.name):
                paths = [self._head(file, folder, nbytes) for file in model.files]
            with suppress(ArcmtpError):  # more is needed, or it is wrong
                return GGUF(paths[0], only_header=True)
        return GGUF(paths[0], only_header=True)

    def _head(self, file: HubFile, folder: Path, nbytes: int) -> Path:
        """A file of the right size in `folder` with the first `nbytes` bytes."""
        path = folder / Path(file.path).name
        nbytes = min(nbytes, file.nbytes)
        with PartialFile(path, nbytes) as partial:
            get(hf_hub_url(self.name, file.path), partial, nbytes)
            partial.truncate(file.nbytes)
        return path


def _listed(name: str) -> list[HubFile]:
    """The files that the hub names, without empty ones."""
    with explained(name):
        try:
            siblings = HfApi().model_info(name, files_metadata=True, timeout=TIMEOUT).siblings or []
        except (AttributeError, JSONDecodeError, KeyError, RecursionError, TypeError):
            raise HubError(f"hf:{name}: {constants.ENDPOINT} does not answer as a hub does") from None
    return [
        HubFile(file.rfilename, file.size)
        for file in siblings
        if isinstance(file.rfilename, str) and isinstance(file.size, int) and file.size > 0
    ]


def _cached(name: str) -> list[HubFile]:
    folder = _snapshot(name)
    return [
        HubFile(str(path.relative_to(folder)), path.stat().st_size) for path in folder.rglob("*") if path.is_file()
    ]


def _snapshot(name: str) -> Path:
    """The folder of the files that were downloaded last; one that is not there if there are none."""
    cache = cache_folder(name)
    reference = cache / "refs" / constants.DEFAULT_REVISION
    commit = reference.read_text().strip() if reference.is_file() else "none"
    return cache / "snapshots" / commit
