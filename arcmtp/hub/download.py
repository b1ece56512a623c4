"""A file of a repository into the library's cache, whole or not at all; an interrupted download goes on.

`hf_hub_download` begins anew after an interruption: what is there already is in no file that it would find again. So
the bytes come by the library's `http_get` into a partial file beside the place where it will look for the whole one.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import logging
import os
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError, HTTPError
from huggingface_hub.file_download import http_get, repo_folder_name
from huggingface_hub.utils import build_hf_headers, disable_progress_bars

from arcmtp.errors import ArcmtpError
from arcmtp.hub.names import HubFile
from arcmtp.progress import Progress

if TYPE_CHECKING:
    from typing_extensions import Buffer

_SHA256 = re.compile(r"[0-9a-f]{64}")
_ETAG = re.compile(r"\w[\w.-]*", re.ASCII)  # it becomes the name of a file


@dataclass(frozen=True)
class Download:
    """A file of a repository, and its place in the cache."""

    repository: str
    file: HubFile
    url: str
    etag: str  # of a large file its SHA-256
    blob: Path

    @classmethod
    def plan(cls, repository: str, file: HubFile) -> Download:
        """Ask the hub which version of the file there is."""
        url = hf_hub_url(repository, file.path)
        metadata = get_hf_file_metadata(url)
        etag = metadata.etag or ""
        if metadata.size is None or not _ETAG.fullmatch(etag):
            raise ArcmtpError(f"hf:{repository}: {constants.ENDPOINT} tells no size or no usable ETag of {file.path}")
        blob = cache_folder(repository) / "blobs" / etag
        return cls(repository, HubFile(file.path, metadata.size), url, etag, blob)

    @property
    def partial(self) -> Path:
        """Where it is until it is whole."""
        return self.blob.with_name(f"{self.etag}.arcmtp.incomplete")

    @property
    def missing(self) -> int:
        """Bytes that are not there yet."""
        if self.blob.exists():
            return 0
        there = self.partial.stat().st_size if self.partial.exists() else 0
        return self.file.nbytes - (there if there <= self.file.nbytes else 0)

    def run(self, progress: Progress) -> Path:
        """Download what is missing, and its path in the cache. ArcmtpError if the download ends early."""
        if not self.blob.exists():
            if self.file.nbytes > (most := constants.MAX_HTTP_DOWNLOAD_SIZE):
                raise self._error(f"has more than the {most:,} bytes that HTTP brings; `hf download` gets it")
            self.partial.parent.mkdir(parents=True, exist_ok=True)
            stage, size = f"downloading {self.file.path}", self.file.nbytes
            with PartialFile(self.partial, size, lambda done: progress(stage, done, size)) as partial:
                if not partial.lock():
                    raise self._error("another process is downloading it")
                if not self.blob.exists():  # the other process may just have finished
                    self._complete(partial)
                    self._check(progress)
                    self.partial.replace(self.blob)
        return Path(hf_hub_download(self.repository, self.file.path))

    def _complete(self, partial: PartialFile) -> None:
        size, there = self.file.nbytes, partial.seek(0, os.SEEK_END)
        if there > size:
            there = partial.seek(0)
            partial.truncate()
        partial.report(there)
        try:
            get(self.url, partial, size, there)
        except HfHubHTTPError:
            raise
        except (HTTPError, OSError) as error:
            reason = getattr(error, "strerror", None) or "the connection was lost"
            there = partial.seek(0, os.SEEK_END)
            message = f"the download ended after {there:,} of {size:,} bytes ({reason}); the same command goes on"
            raise self._error(message) from None

    def _check(self, progress: Progress) -> None:
        """Compare the SHA-256 of the whole file with the one that the hub names."""
        if not _SHA256.fullmatch(self.etag):
            return  # a small file: its etag is Git's
        progress(f"checking {self.file.path}", 0, 1)
        with self.partial.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != self.etag:
            self.partial.unlink()
            raise self._error(f"its SHA-256 is {found[:12]}…, expected {self.etag[:12]}…; download it again")

    def _error(self, message: str) -> ArcmtpError:
        return ArcmtpError(f"hf:{self.repository}: {self.file.path}: {message}")


def fetch(repository: str, files: Sequence[HubFile], progress: Progress) -> list[Path]:
    """The paths of files in the cache, downloaded where they are not there.

    Raises ArcmtpError, before any download, for a disk that has too little room, and for a download that ends early.
    """
    downloads = [Download.plan(repository, file) for file in files]
    missing, folder = sum(download.missing for download in downloads), cache_folder(repository)
    free = _free_bytes(folder)
    if missing > free:
        raise ArcmtpError(
            f"hf:{repository}: {missing:,} bytes are to be downloaded, the disk of {folder} has {free:,} free: "
            "make room, or set HF_HUB_CACHE to a folder on another disk"
        )
    return [download.run(progress) for download in downloads]


def cache_folder(repository: str) -> Path:
    """Where the library keeps a repository."""
    return Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repository, repo_type="model")


def get(url: str, file: PartialFile, nbytes: int, there: int = 0) -> None:
    """Write the first `nbytes` bytes of what is at `url` to the end of `file`, which has the first `there` of them."""
    disable_progress_bars()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it would tell each new attempt
    headers = build_hf_headers(headers={"Range": f"bytes=0-{nbytes - 1}"})
    http_get(url, cast(BinaryIO, file), headers=headers, resume_size=there, expected_size=nbytes)


class PartialFile(io.FileIO):
    """A file of `nbytes` bytes that comes in pieces; report: called with the bytes that are there."""

    def __init__(self, path: Path, nbytes: int, report: Callable[[int], None] = lambda done: None) -> None:
        super().__init__(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+")
        self.report, self._nbytes = report, nbytes

    def lock(self) -> bool:
        """Keep other processes out until it is closed; whether none was in."""
        try:
            fcntl.flock(self, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def write(self, data: Buffer) -> int:
        """Write all of `data` where the file stands. OSError if that is more than the file should have."""
        left = memoryview(data).cast("B")
        nbytes = len(left)
        if self.tell() + nbytes > self._nbytes:
            raise OSError(errno.EFBIG, "the server sends more than it was asked for")
        while left:
            left = left[super().write(left) :]
        self.report(self.tell())
        return nbytes


def _free_bytes(folder: Path) -> int:
    """Of the disk on which `folder` is, or will be."""
    return shutil.disk_usage(next(place for place in (folder, *folder.parents) if place.exists())).free
