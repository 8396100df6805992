"""Draw the README's picture: a Sudoku rendered by program, and the same with the answer that hrm-edge wrote into it.

python scripts/picture.py    # writes docs/pictures/photo.jpg and solved.jpg, photo and answer; needs hrm-edge[vision]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the scene is the one that the tests show to the camera

import hrm_edge  # noqa: E402
from tests.vision.scenes import EASY, paper, scene  # noqa: E402

PICTURES = ROOT / "docs" / "pictures"


def main() -> None:
    seen = scene(paper(EASY), (560, 520), at=0.12, turn=9)
    with tempfile.TemporaryDirectory() as folder:
        photo, solved = Path(folder) / "photo.png", Path(folder) / "solved.png"
        cv2.imwrite(str(photo), seen)
        result = hrm_edge.load("sudoku-nano").solve(photo)
        assert not isinstance(result, list), "it is one picture"
        result.save(solved)
        answered = cv2.imread(str(solved))
        assert answered is not None
    both = np.hstack([seen, np.full((seen.shape[0], 12, 3), 255, np.uint8), answered])
    for name, image in (("photo", seen), ("solved", both)):
        cv2.imwrite(str(PICTURES / f"{name}.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, 82])


if __name__ == "__main__":
    main()
