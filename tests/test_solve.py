"""The step loop, driven with scripted sessions whose every step is known beforehand."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hrm_edge.errors import UserError
from hrm_edge.solve import solve
from hrm_edge.spec import variant_spec
from hrm_edge.tasks.sudoku import Sudoku
from tests.scripted import NEVER, ScriptedSession, answer_of, puzzles, spec_of

MINI = Sudoku(2, 2)
SPEC = spec_of(MINI)
HALTS = ["rules", "head", "fixed"]


class Slow(ScriptedSession):
    """Takes a millisecond a step."""

    def step(self, tokens, puzzle_ids, carry):
        time.sleep(0.001)
        return super().step(tokens, puzzle_ids, carry)


def session(**options: object) -> ScriptedSession:
    return ScriptedSession(MINI, SPEC, **options)


def one_by_one(model, givens, halt, max_steps, views, seed):
    """What the loop has to come to for puzzle after puzzle, written without slots: (answer, verified, steps, views)."""
    results = []
    for index, puzzle in enumerate(givens):
        total = 0
        for view in range(views):
            there = MINI.random_views(1, np.random.default_rng((seed, index, view))) if view else MINI.identity_views(1)
            shown = there.apply(puzzle[None])[0]
            for steps in range(1, max_steps + 1):
                turned = there.inverse().apply(model.predict(shown, steps)[None])[0]
                right = bool(MINI.verify(puzzle, turned))
                if (halt == "rules" and right) or (halt == "head" and model.halts(shown, steps)):
                    break
            total += steps
            if view == 0 or right:
                answer = turned
            if right:
                break
        results.append((answer.tolist(), right, total, view + 1))
    return results


def outcome(found):
    return [(s.answer.tolist(), s.verified, s.steps, s.views) for s in found]


@given(
    count=st.integers(1, 14),
    slots=st.integers(1, 6),
    max_steps=st.integers(1, 8),
    views=st.integers(1, 4),
    seed=st.integers(0, 5),
    halt=st.sampled_from(HALTS),
    early_claims=st.booleans(),
    hopeless=st.sampled_from([0.0, 0.3, 1.0]),
    longest=st.sampled_from([2, 6]),
)
@settings(max_examples=200)
def test_any_number_of_slots_does_what_one_puzzle_at_a_time_does(
    count, slots, max_steps, views, seed, halt, early_claims, hopeless, longest
):
    """Order, every puzzle exactly once, exact steps, views turned back, no mixing (the carry asserts it)."""
    givens = puzzles(MINI, count, blanks=6, seed=seed)
    model = session(early_claims=early_claims, hopeless=hopeless, longest=longest)
    expected = one_by_one(model, givens, halt, max_steps, views, seed)
    found = solve(model, MINI, givens, halt=halt, max_steps=max_steps, views=views, slots=slots, seed=seed)
    assert outcome(found) == expected
    assert sum(model.batches) == sum(steps for _, _, steps, _ in expected)  # not one step of waste
    assert max(model.batches) == min(slots, count)
    assert (found.givens == givens).all()
    assert (found.latency_s > 0).all()


@given(
    count=st.integers(1, 9),
    slots=st.integers(1, 8),
    views=st.integers(1, 6),
    parallel=st.integers(2, 5),
    seed=st.integers(0, 5),
    hopeless=st.sampled_from([0.0, 0.3, 0.9]),
)
@settings(max_examples=100)
def test_views_side_by_side_solve_what_one_after_another_does(count, slots, views, parallel, seed, hopeless):
    """The same puzzles, answers that obey the rules, no view twice, and every step that was taken is booked."""
    givens = puzzles(MINI, count, blanks=6, seed=seed)
    alone, together = session(hopeless=hopeless, longest=6), session(hopeless=hopeless, longest=6)
    one = solve(alone, MINI, givens, max_steps=4, views=views, slots=slots, seed=seed)
    found = solve(together, MINI, givens, max_steps=4, views=views, parallel_views=parallel, slots=slots, seed=seed)
    assert (found.verified == one.verified).all()
    assert (found.verified == MINI.verify(givens, found.answers)).all()
    assert (found.answers[~found.verified] == one.answers[~found.verified]).all()  # the first view's
    assert sum(together.batches) == found.steps.sum()
    assert max(together.batches) <= slots
    assert (found.views <= views).all()
    assert (found.views[~found.verified] == views).all()


def test_views_side_by_side_end_a_single_puzzle_in_fewer_steps_of_the_batch():
    """Ten further views in fives: eight steps of the batch, not forty."""
    givens = puzzles(MINI, 1, blanks=6, seed=3)
    alone, together = session(hopeless=1.0), session(hopeless=1.0)
    solve(alone, MINI, givens, max_steps=4, views=11, seed=1)
    found = solve(together, MINI, givens, max_steps=4, views=11, parallel_views=5, seed=1)
    assert alone.batches == [1] * 44
    assert together.batches == [1] * 4 + [5] * 8
    assert found.steps_by_view.tolist() == [[4] * 11]


def test_a_budget_ends_all_views_of_a_puzzle_at_once():
    model = Slow(MINI, SPEC, hopeless=1.0)
    givens = puzzles(MINI, 1, blanks=6)
    found = solve(model, MINI, givens, views=10_000, parallel_views=4, max_steps=3, budget_s=0.05)
    assert not found.verified.any()
    assert 0.05 <= found.latency_s[0] < 10
    assert found.steps.sum() == sum(model.batches)


def test_a_trace_is_of_one_view_after_another():
    with pytest.raises(ValueError, match="trace needs parallel_views=1"):
        solve(session(), MINI, puzzles(MINI, 1, blanks=6), views=2, parallel_views=2, trace=True)


@pytest.mark.parametrize(("count", "slots"), list(itertools.product(range(3, 12), range(2, 6))))
def test_the_last_puzzles_of_the_queue_keep_their_carries(count, slots):
    """Slots that halt together when the queue holds fewer puzzles than that: some are refilled, some dropped."""
    givens = puzzles(MINI, count, blanks=6, seed=count)
    model = session(longest=3, hopeless=0.0)
    found = solve(model, MINI, givens, slots=slots)
    assert found.steps.tolist() == [model.needed(puzzle) for puzzle in givens]


def test_latency_is_the_time_in_slots_of_all_views():
    givens = puzzles(MINI, 6, blanks=6)
    found = solve(Slow(MINI, SPEC, hopeless=1.0), MINI, givens, views=4, max_steps=3, slots=2)
    assert found.steps.tolist() == [12] * 6
    assert (found.latency_s >= 0.012).all()
    began = time.perf_counter()
    alone = solve(Slow(MINI, SPEC, hopeless=1.0), MINI, givens, views=4, max_steps=3, slots=1)
    assert alone.latency_s.sum() <= time.perf_counter() - began  # waiting in the queue is not in it


@pytest.mark.parametrize("halt", HALTS)
def test_verified_is_what_the_rules_say_however_it_halted(halt):
    givens = puzzles(MINI, 40, blanks=8)
    found = solve(session(early_claims=True), MINI, givens, halt=halt, max_steps=4)
    assert (found.verified == MINI.verify(givens, found.answers)).all()
    assert 0 < found.verified.sum() < 40  # both kinds are met


def test_a_head_that_claims_too_soon_is_believed_about_halting_and_never_about_the_answer():
    givens = puzzles(MINI, 30, blanks=8)
    model = session(early_claims=True, hopeless=0.0)
    found = solve(model, MINI, givens, halt="head", max_steps=10)
    late = np.array([model.needed(puzzle) > 1 for puzzle in givens])
    assert late.any()
    assert (found.verified == ~late).all()
    assert set(found.halted_by) == {"head"}


def test_a_model_that_changes_a_given_is_not_repaired():
    givens = puzzles(MINI, 4, blanks=3)

    class Careless(ScriptedSession):
        def predict(self, tokens, steps):
            return MINI.random_views(1, np.random.default_rng(1)).apply(answer_of(MINI, tokens)[None])[0]

    found = solve(Careless(MINI, SPEC), MINI, givens, max_steps=2)
    filled = found.answers != givens
    assert (filled & (givens > 1)).any(axis=1).all()  # a whole grid by the rules, but of another puzzle
    assert MINI.verify(np.ones_like(givens), found.answers).all()
    assert not found.verified.any()


def test_halted_by():
    givens = puzzles(MINI, 40, blanks=8)
    for halt, word in (("rules", "rules"), ("head", "head")):
        model = session(hopeless=0.3)
        found = solve(model, MINI, givens, halt=halt, max_steps=6)
        assert found.halted_by == ["limit" if model.needed(p) == NEVER else word for p in givens]
        assert "limit" in found.halted_by
    assert set(solve(session(), MINI, givens, halt="fixed", max_steps=3).halted_by) == {"limit"}


def test_a_halted_slot_is_refilled_at_once_and_the_batch_shrinks_with_the_queue():
    givens = puzzles(MINI, 12, blanks=8)
    model = session(hopeless=0.0)
    needed = [model.needed(puzzle) for puzzle in givens]
    solve(model, MINI, givens, max_steps=10, slots=4)
    running, queue, expected = [], list(needed), []
    while running or queue:
        running += [queue.pop(0) for _ in range(min(4 - len(running), len(queue)))]
        expected.append(len(running))
        running = [left - 1 for left in running if left > 1]
    assert model.batches == expected
    assert model.batches[0] == 4
    assert model.batches == sorted(model.batches, reverse=True)
    assert model.batches[-1] < 4


def test_the_sessions_largest_batch_is_respected():
    model = session(max_batch=3)
    found = solve(model, MINI, puzzles(MINI, 10, blanks=8), slots=64, views=2, max_steps=3)
    assert len(found) == 10
    assert max(model.batches) == 3


def test_more_views_only_help_and_seeds_choose_other_views():
    givens = puzzles(MINI, 60, blanks=8)
    by_views = [solve(session(hopeless=0.6), MINI, givens, views=n, max_steps=6) for n in (1, 4, 16)]
    for fewer, more in itertools.pairwise(by_views):
        assert (more.verified | ~fewer.verified).all()
        assert more.verified.sum() > fewer.verified.sum()
        same = fewer.verified
        assert (more.steps[same] == fewer.steps[same]).all()
    other = solve(session(hopeless=0.6), MINI, givens, views=16, max_steps=6, seed=1)
    assert (other.views != by_views[-1].views).any()
    assert (by_views[-1].views[by_views[-1].verified] <= 16).all()


def test_trace_has_each_steps_prediction_in_the_puzzles_own_frame():
    givens = puzzles(MINI, 20, blanks=8)
    found = solve(session(hopeless=0.6), MINI, givens, views=8, max_steps=5, trace=True, slots=3)
    assert (found.views > 1).any()
    for solution in found:
        assert solution.trace is not None
        assert solution.trace.shape == (solution.steps, 16)
        right = MINI.verify(np.tile(solution.givens, (solution.steps, 1)), solution.trace)
        assert not right[:-1].any()
        assert right[-1] == solution.verified
        kept = (solution.givens == 1) | (solution.givens == solution.trace)
        assert kept.all()  # the script keeps the givens: a trace in a view's frame would not
    assert solve(session(), MINI, givens, max_steps=1)[0].trace is None


def test_on_step_sees_every_step_in_the_puzzles_own_frame_and_may_end_the_loop():
    givens = puzzles(MINI, 6, blanks=8)
    seen: dict[int, list[tuple[int, int, list[int]]]] = {}

    def watch(puzzle, view, step, logits):
        seen.setdefault(puzzle, []).append((view, step, logits.argmax(axis=1).tolist()))

    options = {"views": 4, "max_steps": 3, "slots": 4}
    found = solve(session(hopeless=0.6), MINI, givens, on_step=watch, trace=True, **options)
    assert (found.views > 1).any()
    for index, solution in enumerate(found):
        steps = found.steps_by_view[index].tolist()
        assert [(v, s) for v, s, _ in seen[index]] == [(v, s) for v in range(4) for s in range(1, steps[v] + 1)]
        assert [answer for _, _, answer in seen[index]] == solution.trace.tolist()

    class Enough(Exception):
        pass

    def stop(puzzle, view, step, logits):
        raise Enough

    model = session()
    with pytest.raises(Enough):
        solve(model, MINI, givens, on_step=stop, **options)
    assert len(model.batches) == 1


def test_progress_counts_every_puzzle_once():
    calls = []
    found = solve(
        session(), MINI, puzzles(MINI, 15, blanks=8), slots=4, views=2, on_progress=lambda *a: calls.append(a)
    )
    assert calls[-1] == (15, found.verified.sum())
    assert all(a[0] < b[0] and a[1] <= b[1] for a, b in itertools.pairwise(calls))


def test_steps_default_to_the_models_own():
    found = solve(session(hopeless=1.0), MINI, puzzles(MINI, 2, blanks=4))
    assert found.steps.tolist() == [SPEC.max_steps] * 2


def test_puzzle_ids_travel_with_their_puzzle():
    seen: dict[bytes, set[int]] = {}

    class Watching(ScriptedSession):
        def step(self, tokens, puzzle_ids, carry):
            for row, number in zip(tokens, puzzle_ids, strict=True):
                seen.setdefault(row.tobytes(), set()).add(int(number))
            return super().step(tokens, puzzle_ids, carry)

    givens = puzzles(MINI, 9, blanks=8)
    model = Watching(MINI, spec_of(MINI, puzzle_dim=8, puzzles=20))
    solve(model, MINI, givens, puzzle_ids=np.arange(5, 14), slots=2)
    assert seen == {puzzle.tobytes(): {5 + index} for index, puzzle in enumerate(givens)}


@pytest.mark.parametrize("ids", [[0, 20], [0, -1]])
def test_a_puzzle_id_beyond_the_table_is_the_users_error(ids):
    model = ScriptedSession(MINI, spec_of(MINI, puzzle_dim=8, puzzles=20))
    with pytest.raises(UserError, match=f"puzzle id {ids[1]} is not in the model's table of 20"):
        solve(model, MINI, puzzles(MINI, 2, blanks=4), puzzle_ids=np.array(ids, np.int32))


def test_a_model_of_another_task_is_refused():
    big = variant_spec("nano", vocab=11, seq_len=81, grid=(9, 9, 3, 3))
    with pytest.raises(UserError, match="81 cells and 11 tokens, mini-sudoku has 16 cells and 6 tokens"):
        solve(ScriptedSession(MINI, big), MINI, puzzles(MINI, 1, blanks=4))


@pytest.mark.parametrize("wrong", [{"max_steps": 0}, {"views": 0}, {"slots": 0}])
def test_counts_below_one_are_refused(wrong):
    with pytest.raises(ValueError, match="must be at least 1"):
        solve(session(), MINI, puzzles(MINI, 1, blanks=4), **wrong)


@pytest.mark.parametrize("shape", [(16,), (2, 15)])
def test_a_wrong_shape_is_refused(shape):
    with pytest.raises(ValueError, match="are not"):
        solve(session(), MINI, np.ones(shape, np.uint8))


def test_a_token_beyond_the_vocabulary_is_refused():
    with pytest.raises(ValueError, match="token 6 is beyond the vocabulary of 6"):
        solve(session(), MINI, np.full((1, 16), 6, np.uint8))


def test_nothing_to_solve():
    found = solve(session(), MINI, np.zeros((0, 16), np.uint8))
    assert len(found) == 0
    assert found.answers.shape == (0, 16)
    assert list(found) == []
