"""``hrm-edge solve`` on pictures: a verified answer, or what is wrong with the picture."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from hrm_edge.tasks.sudoku import Sudoku
from hrm_edge.vision.formats import pictures_of
from tests.artifacts import write_singles_artifact
from tests.vision import kinds
from tests.vision.rendered import PUZZLES, photo

ANSWER = "483921657967345821251876493548132976729564138136798245372689514814253769695417382"


def save(folder, name: str, image) -> str:
    cv2.imwrite(str(folder / name), image)
    return str(folder / name)


def board(side: int, box: int, cell: int, thin: int = 1, thick: int = 4) -> np.ndarray:
    """A board of another size, with thick lines around its boxes and digits in every third cell."""
    far = 40 + side * cell
    image = np.full((far + 40, far + 40, 3), 240, np.uint8)
    for line in range(side + 1):
        at, width = 40 + line * cell, thin if line % box else thick
        cv2.line(image, (40, at), (far, at), (20, 20, 20), width)
        cv2.line(image, (at, 40), (at, far), (20, 20, 20), width)
    for index in range(0, side * side, 3):
        place = (40 + index % side * cell + cell // 4, 40 + index // side * cell + 3 * cell // 4)
        cv2.putText(image, str(index % min(side, 9) + 1), place, cv2.FONT_HERSHEY_SIMPLEX, cell / 45, (20, 20, 20), 2)
    return image


@pytest.mark.parametrize("size", [(4, 2, 100), (4, 2, 100, 3, 3), (6, 3, 70), (12, 4, 40), (16, 4, 40),
                                  (16, 4, 40, 2, 2), (16, 4, 24, 1, 3), (25, 5, 30, 1, 3)], ids=str)  # fmt: skip
@pytest.mark.parametrize("how", ["straight", "askew", "light on dark"])
def test_a_board_of_another_size_is_called_by_its_size(run, tmp_path, size, how):
    image = board(*size)
    side, width = size[0], len(image)
    if how == "askew":
        seen = np.float32([[30, 60], [0.95 * width, 10], [0.9 * width, 0.97 * width], [60, 0.9 * width]])
        matrix = cv2.getPerspectiveTransform(np.float32([[0, 0], [width, 0], [width, width], [0, width]]), seen)
        image = cv2.GaussianBlur(cv2.warpPerspective(image, matrix, (width, width), borderValue=(90,) * 3), (3, 3), 0)
    done = run("solve", save(tmp_path, "a.png", 255 - image if how == "light on dark" else image))
    assert done.code == 2
    assert f"the picture shows a {side}x{side} grid, only 9x9 Sudokus are read" in done.err
    assert "with a model of its size" in done.err


def test_several_solutions_read_clearly_mean_more_rules(run, tmp_path):
    """As a Sudoku-X looks: read without a doubt, and open under Sudoku's own rules; a doubtful reading is another."""
    givens = ["0"] * 81
    for cell in [c for c in range(81) if PUZZLES[0][c] != "0"][:20]:
        givens[cell] = PUZZLES[0][cell]
    done = run("solve", save(tmp_path, "a.png", photo(9, cell=50, puzzle="".join(givens)).image))
    assert done.code == 2
    message = " ".join(done.err.split())
    assert "cannot be solved: the puzzle has several solutions" in message
    assert "more rules than Sudoku's, such as diagonals (Sudoku-X) or extra boxes (Hyper-Sudoku)" in message
    assert "sharper" not in message


def test_a_folder_in_which_nothing_was_read_is_not_advised_more_views(run, tmp_path):
    for name in ("a.png", "b.png"):
        save(tmp_path, name, np.full((480, 640, 3), 200, np.uint8))
    done = run("solve", tmp_path)
    assert done.code == 1
    assert "Failed: 2 of 2 pictures not read\n  take those pictures again as is said of each" in done.err
    assert "--views" not in done.err + done.out


def test_a_folder_is_looked_through_once(run, tmp_path, monkeypatch):
    save(tmp_path, "a.png", np.full((48, 64, 3), 200, np.uint8))
    looked = []

    def listed(folder):
        looked.append(folder)
        return pictures_of(folder)

    monkeypatch.setattr("hrm_edge.api.pictures.pictures_of", listed)
    assert run("solve", tmp_path).code == 1
    assert looked == [tmp_path]


def test_a_photo_is_solved_with_the_shipped_model(run, tmp_path):
    path = save(tmp_path, "a.jpg", photo(9, cell=34, turn=90).image)
    done = run("solve", path, "--json")
    assert done.code == 0, done.err
    (result,) = json.loads(done.out)["results"]
    assert (result["source"], result["puzzle"], result["answer"]) == (path, PUZZLES[0], ANSWER)
    assert result["verified"] is True
    assert result["picture"]["orientation"] == 90
    assert (result["picture"]["read"], result["picture"]["grids"]) == (PUZZLES[0], 1)
    assert np.array(result["picture"]["corners"]).shape == (4, 2)
    done = run("solve", path)
    assert done.code == 0
    assert f"{path}: solved, verified by the rules (" in done.out


def test_the_answer_is_drawn_into_the_blanks(run, tmp_path):
    taken = photo(9, cell=34)
    path = save(tmp_path, "a.png", taken.image)
    done = run("solve", path, "--overlay", tmp_path / "solved.png")
    assert done.code == 0, done.err
    changed = np.abs(cv2.imread(str(tmp_path / "solved.png")).astype(int) - taken.image).sum(axis=2) > 60
    for cell in range(81):
        x, y = (int(v) for v in taken.mesh[cell // 9 : cell // 9 + 2, cell % 9 : cell % 9 + 2].mean(axis=(0, 1)))
        assert changed[y - 10 : y + 10, x - 10 : x + 10].any() == (PUZZLES[0][cell] == "0")
    done = run("solve", PUZZLES[0], "--overlay", tmp_path / "b.png")
    assert (done.code, "is no picture" in done.err) == (2, True)
    done = run("solve", path, "--overlay", tmp_path / "b.txt")
    assert (done.code, "what format?" in done.err) == (2, True)


def test_in_a_folder_a_bad_picture_is_a_result(run, tmp_path):
    save(tmp_path, "b.png", photo(9, cell=26).image)
    (tmp_path / "a.jpg").write_bytes(b"no picture")
    (tmp_path / "notes.txt").write_text("not looked at")
    done = run("solve", tmp_path, "--json")
    assert done.code == 1
    bad, good = json.loads(done.out)["results"]
    assert (bad["puzzle"], bad["answer"], bad["verified"]) == (None, None, False)
    assert "a.jpg is no picture" in bad["picture"]["error"]
    assert good["answer"] == ANSWER
    assert "Failed: 1 of 2 pictures not read\n  take those pictures again as is said of each\n" in done.err


@pytest.mark.parametrize(
    ("image", "what"),
    [
        (np.full((480, 640, 3), 200, np.uint8), "no Sudoku grid in the picture"),
        (photo(9, cell=34).image[:, 190:], "only a part of a grid is in the picture"),
        (board(4, 2, 70), "the picture shows a 4x4 grid, only 9x9 Sudokus are read"),
        (photo(9, cell=34, puzzle="0" * 81).image, "cannot be solved: only 0 digits were read"),
        (photo(9, cell=34, puzzle="55" + PUZZLES[0][2:]).image, "cannot be solved: two 5s in row 1"),
        (np.zeros((1, 1, 3), np.uint8), "the picture has 1x1 pixels, too small to hold a puzzle"),
    ],
    ids=["no grid", "half a grid", "4x4", "empty grid", "contradiction", "1x1"],
)
def test_a_picture_without_a_puzzle_says_why(run, tmp_path, image, what):
    done = run("solve", save(tmp_path, "a.png", image))
    assert (done.code, done.out) == (2, "")
    assert what in done.err


def test_a_picture_needs_a_nine_by_nine_model(run, tmp_path):
    mini = write_singles_artifact(tmp_path / "mini", Sudoku(2, 2))
    done = run("solve", save(tmp_path, "a.png", photo(9).image), "--model", mini)
    assert done.code == 2
    assert "pictures are read as 9x9 Sudokus" in done.err


def test_a_picture_that_is_not_there(run):
    done = run("solve", "nothere.jpg")
    assert (done.code, "nothere.jpg: no such file" in done.err) == (2, True)


def test_what_is_left_out_is_said(run, tmp_path):
    path = tmp_path / "shot"  # no ending: known by its content
    path.write_bytes(cv2.imencode(".png", kinds.played({2: (200, 80, 20)}))[1].tobytes())
    done = run("solve", path, "--json", "--overlay", tmp_path / "a.webp")
    assert done.code == 0, done.err
    (result,) = json.loads(done.out)["results"]
    assert (result["puzzle"], result["answer"]) == (kinds.PUZZLE, kinds.ANSWER)
    picture = result["picture"]
    assert picture["written_disagreeing"] == [2]
    assert 2 in picture["written_ignored"]
    assert (picture["repaired"], picture["doubtful"]) == ([], [])
    assert (tmp_path / "a.webp").read_bytes()[8:12] == b"WEBP"
    done = run("solve", path)
    count = len(picture["written_ignored"])
    assert f"{count} written digits ignored, 1 of them disagrees, row 1 column 3 read as 5" in " ".join(
        done.out.split()
    )


def test_cells_in_doubt_are_said(run, tmp_path):
    image = photo(9, cell=34).image
    cell = PUZZLES[0].index("3")
    taken = photo(9, cell=34).mesh
    x, y = (int(v) for v in taken[cell // 9 : cell // 9 + 2, cell % 9 : cell % 9 + 2].mean(axis=(0, 1)))
    cv2.line(image, (x - 9, y - 8), (x - 9, y + 9), (60, 60, 60), 2)  # a stroke beside the 3: an 8, nearly
    image[y - 9 : y + 10, x - 9 : x + 10] = cv2.GaussianBlur(image[y - 9 : y + 10, x - 9 : x + 10], (0, 0), 3)
    done = run("solve", save(tmp_path, "a.png", image), "--json")
    assert done.code == 0, done.err
    picture = json.loads(done.out)["results"][0]["picture"]
    said = {entry["cell"]: entry for entry in picture["doubtful"]}
    assert cell in said or picture["read"][cell] == "0"
    for entry in picture["doubtful"]:
        assert (entry["row"], entry["column"]) == (entry["cell"] // 9 + 1, entry["cell"] % 9 + 1)
        assert str(entry["read"]) == picture["read"][entry["cell"]]
        assert 0 < entry["probability"] <= 1
