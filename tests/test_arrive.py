"""Three users get to their first result by the documents' commands alone; how many those are is counted."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("cv2", reason="pip install 'hrm-edge[web]'")
from hrm_edge.errors import UserError
from hrm_edge.files import read_json
from scripts import arrive
from tests.needs import installed

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("name", arrive.USERS)
def test_the_documents_have_the_users_commands_and_no_more(name):
    user = arrive.USERS[name]
    commands = arrive.to_type(user)
    assert 3 <= len(commands) <= user.most
    for command in commands:
        assert command.printed in (ROOT / command.document).read_text()
    typed = "\n".join(command.typed for command in commands)
    for pattern, text in user.replaced:  # a replacement that nothing needs any more hides a difference
        assert re.search(pattern, "\n".join(command.printed for command in commands)), (pattern, text)
    assert "HOST" not in typed


def test_what_the_page_says_of_a_cpu_is_what_is_typed():
    assert f"`{arrive.SMALL}`" in (ROOT / "docs/how-to/published.md").read_text().replace("\n", " ")


def test_a_heading_that_is_gone_is_said():
    with pytest.raises(UserError, match=r"README\.md has no commands under 'Four commands'"):
        arrive.block("README.md", "Four commands")


def test_a_new_user_has_nothing_of_this_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    monkeypatch.setenv("PATH", f"{Path(sys.prefix) / 'bin'}:/usr/bin")
    environ = arrive.fresh_environ(tmp_path)
    assert "PYTHONPATH" not in environ
    assert environ["PATH"] == f"{tmp_path / 'bin'}:/usr/bin"
    assert environ["HOME"] == str(tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", arrive.USERS)
def test_they_arrive(name, tmp_path):
    for tool, package in (("ssh", "openssh-client"), ("rsync", "rsync")) if arrive.USERS[name].board else ():
        installed(tool, package)
    report = tmp_path / "report.json"
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "arrive.py", name, "--out", report], capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert read_json(report)["count"] == len(arrive.to_type(arrive.USERS[name]))
