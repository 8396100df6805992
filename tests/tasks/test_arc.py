"""ARC: encoding, augmentations, text, votes, scores, the submission file."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hrm_edge.errors import UserError
from hrm_edge.tasks import get_task
from hrm_edge.tasks.arc import (
    Arc,
    Augmentation,
    Grid,
    _corner,
    check_grid,
    decode,
    encode,
    random_augmentation,
    split_identifier,
)  # fmt: skip
from hrm_edge.tasks.arc_votes import Question, Questions, Votes, score, submission

ARC = Arc()
SEEDS = st.integers(0, 2**32 - 1)


def random_grid(rng: np.random.Generator, most: int = 30) -> Grid:
    return rng.integers(0, 10, size=rng.integers(1, most + 1, size=2)).astype(np.uint8)


def test_is_a_task() -> None:
    task = get_task("arc")
    assert (task.name, task.vocab, task.seq_len, task.grid) == ("arc", 12, 900, (30, 30, 30, 30))


def test_encoding_is_the_published_one() -> None:
    canvas = encode(np.array([[0, 9, 1], [2, 0, 5]], np.uint8), 4, 7).reshape(30, 30)
    assert canvas[4:7, 7:11].tolist() == [[2, 11, 3, 1], [4, 2, 7, 1], [1, 1, 1, 0]]
    assert np.count_nonzero(canvas) == 11
    full = encode(np.full((30, 30), 3, np.uint8))
    assert (full == 5).all(), "no room for markers"
    with pytest.raises(ValueError, match="does not fit"):
        encode(np.zeros((29, 30), np.uint8), 2, 0)


@given(seed=SEEDS)
@settings(max_examples=60, deadline=None)
def test_encode_and_decode_invert_anywhere_on_the_canvas(seed: int) -> None:
    rng = np.random.default_rng(seed)
    grid = random_grid(rng)
    row, column = (int(rng.integers(30 - size + 1)) for size in grid.shape)
    tokens = encode(grid, row, column)
    assert _corner(tokens) == (row, column)
    found = decode(tokens, row, column)
    assert found is not None
    assert (found.shape, found.dtype) == (grid.shape, np.uint8)
    assert (found == grid).all()


def test_decode_of_predictions_that_are_not_well_formed() -> None:
    canvas = encode(np.full((4, 5), 7, np.uint8)).reshape(30, 30).copy()
    canvas[10:, 10:] = 6  # beyond the markers
    assert decode(canvas.ravel()).shape == (4, 5)  # type: ignore[union-attr]
    canvas[2, 1] = 1  # a marker inside: 2 x 5 cells are left
    assert decode(canvas.ravel()).shape == (2, 5)  # type: ignore[union-attr]
    canvas[0, 1] = 0  # 4 x 1 are
    assert decode(canvas.ravel()).shape == (4, 1)  # type: ignore[union-attr]
    canvas[0, 0] = 1
    assert decode(canvas.ravel()) is None
    assert decode(np.zeros(900, np.uint8)) is None


@given(seed=SEEDS)
@settings(max_examples=60, deadline=None)
def test_augmentations_invert_and_survive_their_name(seed: int) -> None:
    rng = np.random.default_rng(seed)
    grid, augmentation = random_grid(rng), random_augmentation(rng)
    changed = augmentation.apply(grid)
    assert (augmentation.invert(changed) == grid).all()
    assert (augmentation.apply(augmentation.invert(grid)) == grid).all()
    assert ((changed == 0).sum() == (grid == 0).sum()) and augmentation.colours[0] == 0  # noqa: PT018
    assert sorted(np.bincount(changed.ravel(), minlength=10)) == sorted(np.bincount(grid.ravel(), minlength=10))
    name = augmentation.identifier("Copy_1")
    assert split_identifier(name) == ("Copy_1", augmentation)
    assert split_identifier(name.replace("_t", "|||t").replace("_0", "|||0")) == ("Copy_1", augmentation)


def test_a_rule_still_holds_under_augmentation() -> None:
    """'Mirror left-right' becomes 'mirror' along the turned axis: the answer to the turned question is the turned
    answer."""
    rng = np.random.default_rng(0)
    for which in range(8):
        augmentation = Augmentation(which, (0, *(rng.permutation(9) + 1).tolist()))
        grid = random_grid(rng, 9)
        along = np.fliplr if which in (0, 2, 4, 5) else np.flipud
        assert (along(augmentation.apply(grid)) == augmentation.apply(np.fliplr(grid))).all()


def test_identifiers() -> None:
    assert Augmentation(3, (0, 2, 1, 3, 4, 5, 6, 7, 8, 9)).identifier("007bbfb7") == "007bbfb7_t3_0213456789"
    assert split_identifier("007bbfb7") == ("007bbfb7", Augmentation())
    assert split_identifier("x_t9_0123456789") == ("x_t9_0123456789", Augmentation())
    with pytest.raises(UserError, match="no symmetry with a permutation"):
        split_identifier("007bbfb7_t3_0013456789")


@given(seed=SEEDS)
@settings(max_examples=30, deadline=None)
def test_views_invert_and_turn_a_canvas_into_another(seed: int) -> None:
    rng = np.random.default_rng(seed)
    grids = [random_grid(rng) for _ in range(4)]
    tokens = np.stack([encode(grid) for grid in grids])
    views = ARC.random_views(4, rng)
    seen = views.apply(tokens)
    assert (views.inverse().apply(seen) == tokens).all()
    for grid, view, cells, labels in zip(grids, seen, views.cells, views.labels, strict=True):
        turned = 6 if cells[1] == 30 else 0
        assert (encode(Augmentation(turned, tuple((labels[2:] - 2).tolist())).apply(grid)) == view).all()
    assert (ARC.identity_views(4).apply(tokens) == tokens).all()


@given(seed=SEEDS)
@settings(max_examples=30, deadline=None)
def test_text_round_trip(seed: int) -> None:
    grid = random_grid(np.random.default_rng(seed))
    tokens = encode(grid)
    assert (ARC.parse(ARC.format(tokens)) == tokens).all()
    assert (ARC.parse(json.dumps(grid.tolist())) == tokens).all()
    assert (ARC.parse(ARC.pretty(tokens).replace(".", "0")) == tokens).all()
    assert ARC.format(encode(grid[:4, :4], 9, 3)) == ARC.format(encode(grid[:4, :4]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a list of rows"),
        ("01|2", "rows have 1 to 2 cells"),
        ("01|2x", "bad character 'x' in row 2, column 2"),
        ("|".join(["0"] * 31), "31x1 cells, more than 30x30"),
        ("0" * 31, "1x31 cells, more than 30x30"),
        ("[[0, 1], [2", "no JSON"),
        ("[[0, 10]]", "10 is no colour"),
        ("[[0, true]]", "True is no colour"),
        ("[[0, -1]]", "-1 is no colour"),
        ("[[0, 1.5]]", "1.5 is no colour"),
        ("[[]]", "a list of rows"),
        ("[3]", "a list of rows"),
    ],
)
def test_malformed_text(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        ARC.parse(text)
    assert caught.value.hint


def test_no_grid() -> None:
    assert ARC.format(np.zeros(900, np.uint8)) == ""
    assert ARC.pretty(np.zeros(900, np.uint8)) == "(no grid)"
    with pytest.raises(UserError, match="a list of rows"):
        check_grid(None)


def test_the_rules_never_say_that_an_answer_is_right() -> None:
    tokens = np.stack([encode(np.zeros((2, 2), np.uint8))] * 3)
    assert ARC.verify(tokens, tokens).tolist() == [False] * 3


# -- votes ------------------------------------------------------------------------------------------------------------


def ballot(question: Question, answers: list[tuple[Grid, float]], rng: np.random.Generator) -> tuple:
    """Answers to a question under one random augmentation each, as ``Votes.add`` takes them."""
    rows = []
    for index, (answer, halt) in enumerate(answers):
        augmentation = random_augmentation(rng) if index else Augmentation()
        name = augmentation.identifier(question.task) if index else question.task
        rows.append((name, encode(augmentation.apply(question.input)), encode(augmentation.apply(answer)), halt))
    names, inputs, outputs, halts = zip(*rows, strict=True)
    return list(names), np.stack(inputs), np.stack(outputs), np.array(halts)


@given(seed=SEEDS)
@settings(max_examples=30, deadline=None)
def test_votes_are_counted_for_the_question_without_augmentation(seed: int) -> None:
    rng = np.random.default_rng(seed)
    asked = [Question("a", random_grid(rng), random_grid(rng)), Question("a", random_grid(rng), random_grid(rng))]
    wrong = random_grid(rng, 20)
    votes = Votes()
    for question in asked:
        assert question.output is not None
        votes.add(*ballot(question, [(wrong, 9.0), (question.output, -1.0), (question.output, 0.5)], rng))
    for question in asked:
        first, second = votes.ranked(question)
        assert question.output is not None
        assert (first.grid == question.output).all()
        assert (first.votes, first.halt) == (2, -0.25)
        assert (second.grid == wrong).all()
        assert (second.votes, second.halt) == (1, 9.0)
    assert votes.ranked(Question("b", asked[0].input, None)) == []


def test_ties_go_to_the_surer_answer_whatever_the_order() -> None:
    question = Question("a", np.zeros((1, 1), np.uint8), None)
    one, two, three = (np.full((1, 2), colour, np.uint8) for colour in (1, 2, 3))
    answers = [(one, 0.0), (two, 1.0), (three, 0.0)]
    for order in ([0, 1, 2], [2, 1, 0], [1, 2, 0]):
        votes = Votes()
        for index in order:
            votes.add(*ballot(question, [answers[index]], np.random.default_rng(0)))
        assert [candidate.grid[0, 0] for candidate in votes.ranked(question)] == [2, 1, 3]


def test_score_and_submission() -> None:
    rng = np.random.default_rng(0)
    grids = [np.full((1, size), size, np.uint8) for size in range(1, 9)]
    asked = [
        Question("both", grids[0], grids[1]),
        Question("both", grids[1], grids[2]),
        Question("second", grids[0], grids[3]),
        Question("none", grids[0], grids[4]),
        Question("unknown", grids[0], None),
    ]
    votes = Votes()
    votes.add(*ballot(asked[0], [(grids[1], 0.0)], rng))
    votes.add(*ballot(asked[1], [(grids[2], 0.0), (grids[5], 0.0), (grids[2], 0.0)], rng))
    votes.add(*ballot(asked[2], [(grids[6], 2.0), (grids[3], 1.0), (grids[7], 0.0)], rng))
    votes.add(*ballot(asked[4], [(grids[0], 0.0)], rng))
    votes.add(["none"], encode(grids[0])[None], np.zeros((1, 900), np.uint8), [1.0])  # unreadable
    result = score(votes, asked)
    assert result.pass_at == pytest.approx({1: 1 / 3, 2: 2 / 3})
    assert (result.solved, result.tasks, result.questions) == ({1: 1, 2: 2}, 3, 4)
    file = json.loads(json.dumps(submission(votes, asked)))
    assert list(file) == ["both", "second", "none", "unknown"]
    assert file["both"] == [
        {"attempt_1": [[2, 2]], "attempt_2": [[2, 2]]},
        {"attempt_1": [[3, 3, 3]], "attempt_2": [[6] * 6]},
    ]
    assert file["second"] == [{"attempt_1": [[7] * 7], "attempt_2": [[4] * 4]}]
    assert file["none"] == [{"attempt_1": [[0]], "attempt_2": [[0]]}]
    assert score(Votes(), []).pass_at == {1: 0.0, 2: 0.0}


def test_half_of_a_task_counts_half() -> None:
    rng = np.random.default_rng(0)
    grids = [np.full((1, size), size, np.uint8) for size in range(1, 5)]
    asked = [Question("a", grids[0], grids[1]), Question("a", grids[1], grids[2])]
    votes = Votes()
    votes.add(*ballot(asked[0], [(grids[1], 0.0)], rng))
    result = score(votes, asked)
    assert (result.pass_at, result.solved) == ({1: 0.5, 2: 0.5}, {1: 0, 2: 0})


def test_questions_are_the_examples_without_augmentation() -> None:
    rng = np.random.default_rng(0)
    grids = [random_grid(rng, 6) for _ in range(4)]
    augmentation = random_augmentation(rng)
    names = ["a", "a", augmentation.identifier("a"), "b"]
    inputs = np.stack([encode(grids[0]), encode(grids[1]), encode(augmentation.apply(grids[0])), encode(grids[2])])
    labels = np.stack(
        [encode(grids[1]), encode(grids[2]), encode(augmentation.apply(grids[1])), np.zeros(900, np.uint8)]
    )
    found = Questions(names, np.arange(4, dtype=np.int32), np.array([0, 0, 1, 0]), inputs, labels, 5).originals()
    assert [question.task for question in found] == ["a", "a", "b"]
    assert (found[1].input == grids[1]).all()
    assert (found[1].output == grids[2]).all()
    assert found[2].output is None
