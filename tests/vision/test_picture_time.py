"""``benchmarks/picture_time.py``: a checkout beside itself, and beside a folder that is none."""

from __future__ import annotations

import json

import cv2

from tests.bench.programs import ROOT, load_program, run_program
from tests.vision.kinds import draw


def test_a_checkout_beside_itself(tmp_path, monkeypatch, capsys):
    program = load_program("picture_time", tmp_path, monkeypatch)
    monkeypatch.setattr(program, "ROOT", ROOT)
    (tmp_path / "photos").mkdir()
    cv2.imwrite(str(tmp_path / "photos/a.jpg"), draw())
    out = tmp_path / "a.json"
    assert (
        run_program(program, monkeypatch, str(ROOT), str(tmp_path / "photos"), "--rounds", "1", "--json", str(out)) == 0
    )
    report = json.loads(out.read_text())
    assert (report["kind"], report["pictures"]) == ("picture-time", 1)
    assert report["commits"]["new"] == report["commits"]["old"]
    assert report["slowest"]["a.jpg"]["new_ms"] > 0
    assert report["ratio_max"] == report["ratio_of_sums"] > 0
    (tmp_path / "empty").mkdir()
    assert run_program(program, monkeypatch, str(tmp_path / "empty"), str(tmp_path / "photos")) == 2
    assert "its code cannot read a.jpg" in capsys.readouterr().err
    assert run_program(program, monkeypatch, str(ROOT), str(tmp_path / "empty")) == 2
    assert "no .jpg files" in capsys.readouterr().err
