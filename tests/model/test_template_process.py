"""Chat templates of downloaded files: limits of time and memory, and what comes after one was passed."""

import gc
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from arcmtp.errors import ArcmtpError
from arcmtp.model import template_process
from arcmtp.model.chat import ChatTemplate
from arcmtp.model.template_process import TemplateProcess

USER = {"role": "user", "content": "hi"}
TIME = "it takes more than the 0.3 s of processor time that it may have"
MEMORY = "it takes more than the 512 MiB of memory that it may have"
WORKER = Path(template_process.__file__).with_name("template_worker.py")


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_process, "SECONDS", 0.3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", TIME),
        ("{{ 9 ** (9 ** 9) }}", TIME),  # while it compiles, in one operation
        ("{{ (8 + messages | length) ** (9 ** 9) }}", TIME),
        ("{{ 'x' * 10**9 }}", MEMORY),
        ("{{ 'x' * (messages | length * 10**9) }}", MEMORY),
        ("{% set x = [1] * 10**9 %}", MEMORY),
        ("{{ '%999999999d'|format(1) }}", MEMORY),
        ("{{ lipsum() }}", "'lipsum' is undefined"),
        ("{{ 10**5000 }}", "Exceeds the limit (4300 digits) for integer string conversion"),
        ("{% for i in range(99999) %}{{ 'x' * 999 }}{% endfor %}",
         "its text has 99899001 characters; it may have 33554432"),
        ("{{ raise_exception('x' * 10**6) }}", "xxxxxxxxxx"),
        ("{{ raise_exception('\\x1b[2J\\nsecond') }}", "\\x1b[2J second"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "maximum recursion depth exceeded"),
    ],
)  # fmt: skip
def test_a_template_that_takes_too_much_ends_in_one_line_that_names_the_file(
    monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    if message != TIME:  # a busy machine may take longer than that for all else too
        monkeypatch.setattr(template_process, "SECONDS", 10)
    with pytest.raises(ArcmtpError) as caught:
        ChatTemplate(text, file="model.gguf: ").render([USER])
    said = str(caught.value)
    assert said.startswith(f"model.gguf: chat template: {message}")
    assert len(said) < 400 and said.isprintable()


@pytest.fixture
def counting() -> TemplateProcess:
    return TemplateProcess("{% for i in range(n) %}{% for j in range(n) %}{% endfor %}{% endfor %}{{ n }}", "it")


def test_after_a_limit_the_template_renders_again(counting: TemplateProcess) -> None:
    assert counting.render({"n": 3}) == "3"
    for _ in range(2):
        with pytest.raises(ArcmtpError, match=f"^it: {TIME}$"):
            counting.render({"n": 99999})
        assert counting.render({"n": 4}) == "4"


def test_time_counts_for_each_rendering_alone() -> None:
    process = TemplateProcess("{% for i in range(30000) %}{% for j in range(3) %}{% endfor %}{% endfor %}{{ n }}", "it")
    assert [process.render({"n": n}) for n in range(30)] == [str(n) for n in range(30)]


def test_a_process_that_something_ends_is_replaced(counting: TemplateProcess) -> None:
    process: Any = counting._worker._process
    process.kill()
    with pytest.raises(ArcmtpError, match=r"^it: its process ended with status -9$"):
        counting.render({"n": 1})
    assert counting.render({"n": 1}) == "1"


def test_ctrl_c_of_a_terminal_is_not_for_the_process(counting: TemplateProcess) -> None:
    process: Any = counting._worker._process
    assert os.getpgid(process.pid) != os.getpgid(0)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        process.send_signal(number)
    assert counting.render({"n": 1}) == "1"


def test_threads_get_their_own_texts(counting: TemplateProcess) -> None:
    found: dict[int, str] = {}
    threads = [
        threading.Thread(target=lambda n=n: found.update({n: counting.render({"n": n})}))
        for n in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {n: str(n) for n in range(16)}


def test_an_interrupted_rendering_gives_its_text_to_no_later_one(
    counting: TemplateProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    process: Any = counting._worker._process

    class Interrupted:
        def readline(self) -> bytes:
            raise KeyboardInterrupt

        close = process.stdout.close

    monkeypatch.setattr(process, "stdout", Interrupted())
    with pytest.raises(KeyboardInterrupt):
        counting.render({"n": 1})
    assert counting.render({"n": 2}) == "2"


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """All that are started."""
    started = list[Any]()

    class Popen(subprocess.Popen[bytes]):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            started.append(self)

    monkeypatch.setattr(subprocess, "Popen", Popen)
    yield started


def test_no_process_is_left(processes: list[Any]) -> None:
    template = TemplateProcess("x", "it")
    assert template.render({}) == "x"
    with pytest.raises(ArcmtpError):
        TemplateProcess("{{", "it")
    del template
    gc.collect()
    assert len(processes) == 2
    assert all(process.returncode is not None for process in processes)


@pytest.mark.parametrize("value", [object(), {1, 2}, b"x"])
def test_variables_that_are_no_json_are_refused(counting: TemplateProcess, value: Any) -> None:
    with pytest.raises(ArcmtpError, match=r"^it: .* stands among them; variables must be values of JSON$"):
        counting.render({"n": value})
    nested: Any = []
    for _ in range(100_000):
        nested = [nested]
    with pytest.raises(ArcmtpError, match=r"^it: .*recursion"):
        counting.render({"n": nested})


def test_the_process_imports_nothing_heavy() -> None:
    run = subprocess.run(
        [sys.executable, "-P", "-X", "importtime", str(WORKER), "1", str(2**29), "9"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True,
    )  # fmt: skip
    names = {line.rpartition("|")[2].strip() for line in run.stderr.splitlines()}
    assert "jinja2.sandbox" in names
    assert not [name for name in names if name.partition(".")[0] in ("arcmtp", "numpy", "dpctl", "tokenizers")]
