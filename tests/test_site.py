"""The documentation site as a browser shows it, on a desk and on a phone."""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

pytest.importorskip("websockets", reason="pip install 'hrm-edge[web]'")
from tests.demo.chromium import browser, installed
from tests.test_docs_run import commands

ROOT = Path(__file__).resolve().parent.parent
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),  # minutes on a busy machine: 60 pages are laid out
    pytest.mark.skipif(importlib.util.find_spec("mkdocs") is None, reason="mkdocs is not installed: make docs"),
    pytest.mark.skipif(installed() is None, reason="Chromium is not installed: apt-get install chromium"),
]
# What sticks out of the window, other than by something that can be moved sideways or is hidden on purpose.
STICKS_OUT = """
[...document.querySelectorAll('article *')].filter((element) => {
  const box = element.getBoundingClientRect()
  if (!box.width || box.right <= innerWidth + 1) return false
  for (let at = element; at.tagName !== 'ARTICLE'; at = at.parentElement)
    if (getComputedStyle(at).overflowX !== 'visible') return false
  return true
}).map((element) => element.outerHTML.slice(0, 80))
"""
TYPED = "[...document.querySelectorAll('.language-sh code')].map((code) => code.textContent).join('')"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None: ...


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, list[str]]]:
    """The built site's address and its pages."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder], cwd=ROOT, capture_output=True,
        text=True, check=False, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    pages = sorted(str(file.parent.relative_to(folder)) for file in folder.rglob("index.html"))
    yield f"http://127.0.0.1:{server.server_port}", pages
    server.shutdown()
    server.server_close()


def test_every_page_fits_a_desk_and_a_phone(site, tmp_path):
    address, pages = site
    assert len(pages) >= 17
    with browser(tmp_path) as chromium:
        tab = chromium.page()
        for page in pages:
            for width in (1280, 390):
                tab.open(f"{address}/{page}/", width, phone=width < 600)
                assert tab.evaluate("document.documentElement.scrollWidth") <= width, page
                assert tab.evaluate(STICKS_OUT) == [], f"{page} at {width}"
            assert tab.logged == [], page


def test_a_wrapped_command_is_copied_as_one_line(site, tmp_path):
    with browser(tmp_path) as chromium:
        tab = chromium.page()
        tab.open(f"{site[0]}/how-to/container/", 390, phone=True)
        typed = tab.evaluate(TYPED).splitlines()
    assert [line for line in typed if line] == commands("how-to/container")


def test_the_python_page_has_names_that_can_be_typed_and_no_words_of_another_markup(site):
    with urllib.request.urlopen(f"{site[0]}/reference/python/") as answer:
        page = answer.read().decode()
    assert re.search(r":(func|meth|class|mod|attr):", page) is None
    for name in ("hrm_edge.load", "hrm_edge.train"):
        assert re.search(rf"<h2[^>]*>.*?{re.escape(name)}.*?</h2>", page, re.DOTALL), name
