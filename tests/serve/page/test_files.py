"""The page's files over HTTP."""

import json
import re
from pathlib import Path

import httpx
import pytest

from arcmtp.runtime.paths import data_dir
from tests.serve.conftest import started

FILES = data_dir() / "page"
PAGE = Path(__file__).parents[3] / "page"


def test_the_page_and_its_files_are_served_and_cached(http: httpx.Client) -> None:
    names = [name.removeprefix("/page/") for name in re.findall(r'"(/page/[^"]+)"', http.get("/").text)]
    assert sorted([*names, "NOTICE.txt", "index.html"]) == sorted(path.name for path in FILES.iterdir())
    for url, file in (("/", "index.html"), *((f"/page/{name}", name) for name in (*names, "NOTICE.txt"))):
        answer, head = http.get(url), http.head(url)
        assert (answer.status_code, answer.content) == (200, (FILES / file).read_bytes())
        assert (head.status_code, head.content, head.headers["etag"]) == (200, b"", answer.headers["etag"])
        assert answer.headers["cache-control"] == "no-cache"
        again = http.get(url, headers={"If-None-Match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy


@pytest.mark.parametrize("path", ["/page/none.js", "/page/", "/page/..%2fNOTICE", "/page/%2e%2e%2fNOTICE", "/page/%00"])
def test_there_is_nothing_else_below_page(http: httpx.Client, path: str) -> None:
    answer = http.get(path)
    assert answer.status_code == 404 and "there is no route" in answer.json()["error"]["message"]


def test_other_methods_are_refused(http: httpx.Client) -> None:
    answer = http.post("/", json={})
    assert (answer.status_code, sorted(answer.headers["allow"].split(", "))) == (405, ["GET", "HEAD"])
    assert answer.json()["error"]["message"].startswith("'/' takes ")


def test_the_documentation_stays(http: httpx.Client) -> None:
    assert http.get("/docs").status_code == 200
    assert not [path for path in http.get("/openapi.json").json()["paths"] if path == "/" or path.startswith("/page")]


def test_the_shipped_page_names_no_other_address() -> None:
    for path in FILES.iterdir():
        if path.name != "NOTICE.txt":
            found = set(re.findall(r"https?://[\w.-]+", path.read_text(encoding="utf-8")))
            # XML's names, and a line that an error of marked would have.
            assert found <= {"http://www.w3.org", "https://github.com"}, path


def test_libraries_in_the_page_are_named_with_their_licences() -> None:
    notice = (FILES / "NOTICE.txt").read_text(encoding="utf-8")
    package = json.loads((PAGE / "package.json").read_text(encoding="utf-8"))
    for name, version in package["dependencies"].items():
        assert f"\n{name} {version} (" in notice


def test_the_list_of_libraries_names_no_registry() -> None:
    text = (PAGE / "package-lock.json").read_text(encoding="utf-8")
    assert '"integrity"' in text and '"resolved"' not in text


def test_no_page_switches_it_off(tmp_path: Path) -> None:
    with started(tmp_path / "log", "--no-page") as server, server.http() as http:
        assert [http.get(path).status_code for path in ("/", "/page/page.js")] == [404, 404]
