"""`arcmtp pull` and `-m hf:…` against a server like a hub: what is downloaded, what is chosen, what is refused."""

import hashlib
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import constants
from huggingface_hub.utils import are_progress_bars_disabled

from arcmtp.cli import main
from arcmtp.hub import HubFile, download
from tests.hub.conftest import COMMIT, NAME, TOKEN, Hub

ROOT = Path(__file__).parents[2]
SOME = np.random.default_rng(0).bytes(300_000)
Q8 = "Tiny-Q8_0.gguf"

Pull = Callable[..., Path]
Refused = Callable[..., str]


@pytest.fixture
def pull(capsys: pytest.CaptureFixture[str]) -> Pull:
    """Pulls; the path that is printed."""

    def run(quant: str = "", *options: str) -> Path:
        status = main(["pull", f"hf:{NAME}{quant}", *options])
        output = capsys.readouterr()
        assert status == 0, output.err
        return Path(output.out.rstrip("\n"))

    return run


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Refused:
    """Runs a command that must end with status 2 and one line, progress and table aside; that line."""

    def run(*arguments: str) -> str:
        assert main(arguments) == 2
        output = capsys.readouterr()
        lines = [line for line in output.err.splitlines() if line.startswith("arcmtp: ")]
        assert output.out == "" and len(lines) == 1 and output.err.endswith(lines[0] + "\n")
        assert "Traceback" not in output.err
        return lines[0].removeprefix("arcmtp: ")

    return run


def cached(kind: str = "*") -> list[str]:
    """Names of files in the cache that could be taken for whole ones, or of another kind."""
    blobs = Path(constants.HF_HUB_CACHE).glob(f"models--*/blobs/{kind}")
    return sorted(path.name for path in blobs if kind != "*" or not path.name.endswith(".incomplete"))


def partial() -> Path:
    """The one file that is not whole."""
    (path,) = Path(constants.HF_HUB_CACHE).glob("models--*/blobs/*.incomplete")
    return path


def test_a_file_comes_into_the_librarys_cache_and_only_once(hub: Hub, pull: Pull) -> None:
    hub.files = {Q8: SOME, "README.md": b"#"}
    path = pull(":q8_0")
    assert path.read_bytes() == SOME and path.name == Q8
    assert path.parent == Path(constants.HF_HUB_CACHE) / "models--owner--Tiny-GGUF" / "snapshots" / COMMIT
    assert cached() == [hashlib.sha256(SOME).hexdigest()] and cached("*.incomplete") == []
    assert pull(":Q8_0") == path and len(hub.ranges()) == 1


def test_all_parts_of_a_split_file_come_and_the_first_is_named(hub: Hub, pull: Pull) -> None:
    parts = [f"Q8_0/Tiny-Q8_0-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
    hub.files = {part: SOME[: 1000 * number] for number, part in enumerate(parts, start=2)} | {"Tiny-Q4_0.gguf": SOME}
    path = pull(":Q8_0")
    assert path.name == "Tiny-Q8_0-00001-of-00003.gguf"
    assert sorted(len(file.read_bytes()) for file in path.parent.iterdir()) == [2000, 3000, 4000]


def test_a_download_that_ends_early_goes_on_where_it_ended(hub: Hub, pull: Pull, refused: Refused) -> None:
    hub.files, hub.cut_after = {Q8: SOME}, 0
    ended = f"hf:{NAME}: {Q8}: the download ended after {{}} of 300,000 bytes "
    ended += "(the connection was lost); the same command goes on"
    assert refused("pull", f"hf:{NAME}:Q8_0") == ended.format("0")
    partial().write_bytes(SOME[:70_000])
    assert refused("pull", f"hf:{NAME}:Q8_0") == ended.format("70,000")
    assert cached() == []
    hub.cut_after = None
    hub.requests.clear()
    assert pull(":Q8_0").read_bytes() == SOME
    assert hub.ranges() == ["bytes=70000-299999"] and cached("*.incomplete") == []
    assert are_progress_bars_disabled()  # of the library; and no line for each attempt
    assert not logging.getLogger("huggingface_hub.file_download").isEnabledFor(logging.WARNING)


def test_a_connection_that_is_cut_is_taken_up_again(hub: Hub, pull: Pull) -> None:
    hub.files, hub.cut_after = {Q8: SOME}, 140_000
    assert pull(":Q8_0").read_bytes() == SOME
    assert hub.ranges() == ["bytes=0-299999", "bytes=131072-299999", "bytes=262144-299999"]  # whole pieces of 65,536


def test_a_server_that_knows_no_ranges_begins_again(hub: Hub, pull: Pull, refused: Refused) -> None:
    hub.files, hub.cut_after = {Q8: SOME}, 0
    refused("pull", f"hf:{NAME}:Q8_0")
    partial().write_bytes(b"x" * 99)
    hub.cut_after, hub.ignores_range = None, True
    assert pull(":Q8_0").read_bytes() == SOME


def test_a_partial_file_that_is_too_long_is_begun_again(hub: Hub, pull: Pull, refused: Refused) -> None:
    hub.files, hub.cut_after = {Q8: SOME}, 0
    refused("pull", f"hf:{NAME}:Q8_0")
    partial().write_bytes(SOME + b"x")
    hub.cut_after = None
    assert pull(":Q8_0").read_bytes() == SOME


def test_other_bytes_than_the_hub_names_are_no_file(hub: Hub, pull: Pull, refused: Refused) -> None:
    hub.files, hub.wrong_bytes = {Q8: SOME}, True
    found, expected = (hashlib.sha256(data).hexdigest()[:12] for data in (SOME[::-1], SOME))
    message = f"hf:{NAME}: {Q8}: its SHA-256 is {found}…, expected {expected}…; download it again"
    assert refused("pull", f"hf:{NAME}:Q8_0") == message
    assert cached() == cached("*.incomplete") == []
    hub.wrong_bytes = False
    assert pull(":Q8_0").read_bytes() == SOME


def test_a_file_that_another_process_downloads_is_left_to_it(hub: Hub, refused: Refused) -> None:
    hub.files = {Q8: SOME}
    path = download.Download.plan(NAME, HubFile(Q8, len(SOME))).partial
    path.parent.mkdir(parents=True)
    with download.PartialFile(path, len(SOME)) as other:
        assert other.lock()
        assert refused("pull", f"hf:{NAME}:Q8_0") == f"hf:{NAME}: {Q8}: another process is downloading it"


def test_a_disk_that_is_too_small_is_told_before_any_download(
    hub: Hub, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.files = {f"Tiny-Q8_0-0000{number}-of-00002.gguf": SOME for number in (1, 2)}
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9 - 599_999, 599_999))
    folder = Path(constants.HF_HUB_CACHE) / "models--owner--Tiny-GGUF"
    assert refused("pull", f"hf:{NAME}:Q8_0") == (
        f"hf:{NAME}: 600,000 bytes are to be downloaded, the disk of {folder} has 599,999 free: make room, or set "
        "HF_HUB_CACHE to a folder on another disk"
    )
    assert hub.ranges() == [] and not folder.exists()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9 - 600_000, 600_000))
    assert main(["pull", f"hf:{NAME}:Q8_0"]) == 0


@pytest.mark.parametrize(("there", "missing"), [(70_000, 230_000), (300_001, 300_000)])
def test_what_is_there_of_a_file_needs_no_room(
    hub: Hub, refused: Refused, monkeypatch: pytest.MonkeyPatch, there: int, missing: int
) -> None:
    hub.files, hub.cut_after = {Q8: SOME}, 0
    refused("pull", f"hf:{NAME}:Q8_0")
    partial().write_bytes(bytes(there))
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 0))
    assert f": {missing:,} bytes are to be downloaded, the disk of " in refused("pull", f"hf:{NAME}:Q8_0")


def test_a_repository_or_quantisation_that_is_not_there_is_told_with_those_that_are(hub: Hub, refused: Refused) -> None:
    hub.files = {Q8: SOME, "Tiny-UD-Q4_K_XL.gguf": SOME[:9], "mmproj-F16.gguf": SOME, "mtp-Tiny-Q8_0.gguf": SOME[:5]}
    assert refused("pull", f"hf:{NAME}:Q5_K_M") == f"hf:{NAME}: has no Q5_K_M; it has Q8_0, UD-Q4_K_XL, MTP-Q8_0"
    missing = refused("pull", "hf:owner/Other:Q8_0")
    log_in = "log in with `hf auth login`, or set HF_TOKEN"
    assert missing == f"hf:owner/Other: no such repository at {hub.url}, or a private one: for that {log_in}"
    assert refused("pull", "hf:nobody").startswith("'hf:nobody' is not hf:OWNER/NAME or hf:OWNER/NAME:QUANT")
    hub.files = {"README.md": b"#"}
    assert refused("pull", f"hf:{NAME}") == f"hf:{NAME}: has no GGUF file of a model among its 1 files"
    hub.files = {"mtp-Tiny-Q8_0.gguf": SOME}
    assert refused("pull", f"hf:{NAME}").endswith("has no file that is more than an MTP block; it has MTP-Q8_0")


def test_gated_and_private_repositories_want_a_token(
    hub: Hub, pull: Pull, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.files, hub.gated = {Q8: SOME}, True
    log_in = "then log in with `hf auth login`, or set HF_TOKEN"
    gated = f"hf:{NAME}: is gated; accept its terms at {hub.url}/{NAME}, {log_in}"
    assert refused("pull", f"hf:{NAME}:Q8_0") == refused("pull", f"hf:{NAME}") == gated
    hub.gated, hub.private = False, True
    assert "no such repository" in refused("pull", f"hf:{NAME}:Q8_0")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert "no such repository" in refused("pull", f"hf:{NAME}:Q8_0")
    monkeypatch.delenv("HF_TOKEN")
    Path(constants.HF_TOKEN_PATH).write_text(TOKEN)  # where `hf auth login` leaves it
    hub.gated = True
    assert pull(":Q8_0").read_bytes() == SOME


def test_without_a_connection_the_cache_answers(
    hub: Hub, pull: Pull, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.files = {Q8: SOME, "Tiny-Q4_0.gguf": SOME[:100]}
    path = pull(":Q8_0")
    hub.requests.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert pull(":q8_0") == path and hub.requests == []
    assert refused("pull", f"hf:{NAME}:Q4_0") == f"hf:{NAME}: has no Q4_0; the cache, without a connection, has Q8_0"
    assert refused("pull", "hf:owner/Other") == (
        f"hf:owner/Other: offline (HF_HUB_OFFLINE is set), and {constants.HF_HUB_CACHE} has no file of it"
    )
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for status in (429, 503):
        hub.status = status
        assert pull(":q8_0") == path
        failed = refused("pull", "hf:owner/Other")
        assert failed.startswith(f"hf:owner/Other: {hub.url} answers with HTTP status {status}, and ")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # where nobody listens
    assert pull(":q8_0") == path
    unreachable = refused("pull", "hf:owner/Other")
    assert unreachable.startswith("hf:owner/Other: http://127.0.0.1:9 cannot be reached: ")


@pytest.mark.parametrize(
    "listed",
    [b"", b"<html>", b"[]", b"null", b"{}", b'{"id": "a/b", "siblings": [{}]}', b"[" * 100_000],
)
def test_a_server_that_is_no_hub_is_told(hub: Hub, refused: Refused, listed: bytes) -> None:
    hub.listed = listed
    assert refused("pull", f"hf:{NAME}:Q8_0") == f"hf:{NAME}: {hub.url} does not answer as a hub does"


def test_sizes_that_are_none_are_no_files(hub: Hub, refused: Refused) -> None:
    for size in ('"x"', "-5", "null", "0"):
        hub.listed = f'{{"id": "{NAME}", "siblings": [{{"rfilename": "{Q8}", "size": {size}}}]}}'.encode()
        assert refused("pull", f"hf:{NAME}:Q8_0") == f"hf:{NAME}: has no GGUF file of a model among its 0 files"


@pytest.mark.parametrize("etag", ["", "../../../outside", ".."])
def test_an_etag_that_is_no_name_of_a_file_is_refused(hub: Hub, refused: Refused, etag: str) -> None:
    hub.files, hub.etag = {Q8: SOME}, etag
    message = refused("pull", f"hf:{NAME}:Q8_0")
    assert message == f"hf:{NAME}: {hub.url} tells no size or no usable ETag of {Q8}"
    assert not Path(constants.HF_HUB_CACHE).exists()


def test_a_file_beyond_what_http_brings_is_told(hub: Hub, refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.files = {Q8: SOME}
    monkeypatch.setattr(constants, "MAX_HTTP_DOWNLOAD_SIZE", len(SOME) - 1)
    message = f"hf:{NAME}: {Q8}: has more than the 299,999 bytes that HTTP brings; `hf download` gets it"
    assert refused("pull", f"hf:{NAME}:Q8_0") == message


def test_a_cache_that_cannot_be_written_to_is_told(hub: Hub, refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.files = {Q8: SOME}
    monkeypatch.setattr(constants, "HF_HUB_CACHE", "/dev/null/cache")
    message = refused("pull", f"hf:{NAME}:Q8_0")
    assert message.startswith(f"hf:{NAME}: /dev/null/cache") and message.endswith(": Not a directory")


def test_ctrl_c_ends_a_download_and_leaves_what_the_next_goes_on_from(hub: Hub, tmp_path: Path) -> None:
    hub.files, hub.cut_after, hub.hold = {Q8: bytes(30 << 20)}, 12 << 20, threading.Event()
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "HF_ENDPOINT": hub.url, "HF_HUB_CACHE": constants.HF_HUB_CACHE,
        "HF_HUB_DISABLE_XET": "1",
    }  # fmt: skip
    command = [sys.executable, "-m", "arcmtp", "pull", f"hf:{NAME}:Q8_0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, env=environment, text=True) as process:
        assert process.stderr
        while not any(file.stat().st_size for file in Path(constants.HF_HUB_CACHE).glob("*/blobs/*")):
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        errors = process.stderr.read()
    hub.hold.set()
    assert (process.returncode, errors.splitlines(), cached()) == (130, [f"downloading {Q8} …", ""], [])
    assert len(cached("*.incomplete")) == 1
