"""Scenarios, timing and scoring with scripted sessions; the machine's description from made-up files."""

from __future__ import annotations

import time
from types import SimpleNamespace

import numpy as np
import pytest

from hrm_edge import parity
from hrm_edge.bench.accuracy import score, score_by_views, steps_histogram
from hrm_edge.bench.run import Subject, bench, evaluate
from hrm_edge.bench.scenarios import MIN_QUERIES, BenchOptions, Solver, camera, offline, single_stream
from hrm_edge.bench.timing import WINDOW_STEPS, TimedSession, process_age_s, warm_up
from hrm_edge.report.schema import Data, ModelInfo
from hrm_edge.solve import SolveOptions, solve
from hrm_edge.tasks.puzzles import Puzzles
from hrm_edge.tasks.sudoku import Sudoku
from tests import machines
from tests.bench.simulated import Clock
from tests.scripted import ScriptedSession, answer_of, puzzles, spec_of

MINI = Sudoku(2, 2)
MODEL = ModelInfo(
    name="m", path="m", kind="artifact", task="mini-sudoku", variant="nano", precision="fp32", parameters=1,
    size_bytes=1, sha256=None, gate_passed=True,
)  # fmt: skip


def made(count: int, blanks: int) -> Puzzles:
    return Puzzles.of(MINI, puzzles(MINI, count, blanks=blanks), called="made")


def solver(slots=1, views=1, **options) -> Solver:
    return Solver(
        ScriptedSession(MINI, spec_of(MINI), **options), MINI, SolveOptions(max_steps=8, views=views, slots=slots)
    )


def ignore(share: float) -> None:
    assert 0 <= share <= 1


def test_single_stream_goes_round_the_set_and_scores_each_puzzle_once():
    given, s = made(10, 8), solver()
    measured = single_stream(s, given, BenchOptions(duration_s=0.0), ignore)
    assert len(measured.latency_s) == MIN_QUERIES
    assert (measured.solutions.givens == given.givens).all()
    expected = s(given)
    assert (measured.solutions.steps == expected.steps).all()
    per_round = expected.verified
    assert measured.verified == sum(per_round[query % 10] for query in range(MIN_QUERIES))
    assert set(measured.timed.batches) == {1}
    assert len(measured.timed.step_s) == sum(int(expected.steps[query % 10]) for query in range(MIN_QUERIES))
    assert sum(measured.timed.step_s) < sum(measured.latency_s) < measured.duration_s


def test_single_stream_lasts_as_long_as_asked():
    seen = []
    measured = single_stream(solver(), made(3, 4), BenchOptions(duration_s=0.3), seen.append)
    assert measured.duration_s >= 0.3
    assert len(measured.latency_s) >= MIN_QUERIES
    assert seen == sorted(seen)
    assert seen[-1] == 1.0


def test_single_stream_latency_is_what_the_caller_waits():
    class Slow(ScriptedSession):
        def step(self, tokens, puzzle_ids, carry):
            time.sleep(0.002)
            return super().step(tokens, puzzle_ids, carry)

    s = Solver(Slow(MINI, spec_of(MINI), hopeless=0.0, longest=1), MINI, SolveOptions(max_steps=8, slots=1))
    measured = single_stream(s, made(4, 4), BenchOptions(duration_s=0.0), ignore)
    assert min(measured.latency_s) >= 0.002
    assert min(measured.timed.step_s) >= 0.002


def test_camera_takes_the_newest_frame_and_counts_from_it():
    class Slow(ScriptedSession):
        def step(self, tokens, puzzle_ids, carry):
            time.sleep(0.004)
            return super().step(tokens, puzzle_ids, carry)

    slow = Solver(Slow(MINI, spec_of(MINI), hopeless=0.0, longest=1), MINI, SolveOptions(max_steps=8, slots=1))
    given = made(4, 4)
    measured = camera(slow, given, BenchOptions(duration_s=0.0, fps=1000.0), ignore)
    assert measured.pace is not None
    assert len(measured.latency_s) == MIN_QUERIES
    assert measured.pace.frames == len(measured.latency_s) + measured.pace.dropped
    assert measured.pace.dropped > MIN_QUERIES  # four frames come while one is solved
    assert min(measured.latency_s) >= 0.004
    paced = camera(solver(hopeless=0.0, longest=1), given, BenchOptions(duration_s=0.0, fps=200.0), ignore)
    assert paced.duration_s >= (MIN_QUERIES - 1) / 200
    assert sorted(paced.answered_at_s) == paced.answered_at_s


def test_stages_are_inside_the_latency():
    measured = single_stream(solver(), made(4, 4), BenchOptions(duration_s=0.0), ignore)
    assert set(measured.stage_s) == {"encode", "step", "decode", "halt check"}
    assert min(measured.stage_s.values()) > 0
    assert sum(measured.stage_s.values()) <= sum(measured.latency_s)
    assert measured.stage_s["step"] >= sum(measured.timed.step_s)


def test_the_age_of_this_process():
    first = process_age_s()
    assert first is not None
    assert 0 < first < 86400
    time.sleep(0.02)
    assert process_age_s() - first == pytest.approx(0.02, abs=0.02)


def test_offline_answers_the_whole_set_through_the_slots():
    given, s = made(60, 8), solver(slots=4)
    measured = offline(s, given, BenchOptions(duration_s=0.3), ignore)
    rounds, rest = divmod(len(measured.latency_s), len(measured.solutions))
    assert rest == 0
    assert rounds >= 1
    assert (measured.solutions.givens == given.givens[: len(measured.solutions)]).all()
    assert max(measured.timed.batches) == 4
    assert measured.verified == rounds * measured.solutions.verified.sum()


def test_offline_takes_no_more_than_fits_the_time_and_no_less_than_shows_refilling():
    class Slow(ScriptedSession):
        def step(self, tokens, puzzle_ids, carry):
            time.sleep(0.005)
            return super().step(tokens, puzzle_ids, carry)

    s = Solver(Slow(MINI, spec_of(MINI)), MINI, SolveOptions(max_steps=8, slots=2))
    measured = offline(s, made(200, 8), BenchOptions(duration_s=0.01), ignore)
    assert len(measured.solutions) == len(measured.latency_s) == 8


def test_timed_session_counts_every_step():
    model = ScriptedSession(MINI, spec_of(MINI))
    timed = TimedSession(model)
    found = solve(timed, MINI, puzzles(MINI, 9, blanks=8), slots=4)
    assert timed.batches == model.batches
    assert sum(timed.batches) == found.steps.sum()
    assert (timed.backend, timed.max_batch, timed.spec) == ("scripted", 64, model.spec)


def test_warm_up_stops_when_stable_and_says_when_it_never_was(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("hrm_edge.bench.timing.time", SimpleNamespace(monotonic=clock))

    class Paced(ScriptedSession):
        pace_s = 0.002
        factor = 1.0

        def step(self, tokens, puzzle_ids, carry):
            clock.now += self.pace_s
            self.pace_s *= self.factor
            return super().step(tokens, puzzle_ids, carry)

    givens = puzzles(MINI, 2, blanks=4)
    assert warm_up(Paced(MINI, spec_of(MINI)), givens).stable
    slower = Paced(MINI, spec_of(MINI))
    slower.factor = 1.2
    found = warm_up(slower, givens, limit_s=0.1)
    assert not found.stable
    assert found.seconds >= 0.1
    assert found.steps % WINDOW_STEPS == 0


def solved(views=16, **options):
    givens = puzzles(MINI, 60, blanks=8)
    found = solve(ScriptedSession(MINI, spec_of(MINI), hopeless=0.6, **options), MINI, givens, views=views, max_steps=6)
    return givens, found


def test_score_counts():
    _, found = solved(views=1)
    labels = found.answers.copy()  # what is verified is right, until we say otherwise
    labels[~found.verified, 0] = 1
    right = int(found.verified.sum())
    answers = score(found, labels)
    assert (answers.count, answers.verified, answers.false_verified) == (60, right, 0)
    assert answers.exact_accuracy == right / 60
    assert answers.mean_steps == found.steps.mean()
    first = int(np.flatnonzero(found.verified)[0])
    labels[first, 0] = 1  # obeys the rules, but is not the answer: counted, not hidden
    answers = score(found, labels)
    assert (answers.verified, answers.false_verified) == (right, 1)
    assert answers.exact_accuracy == (right - 1) / 60


def test_score_by_views_is_the_score_of_so_many_views():
    _, found = solved(views=20)
    labels = np.where(found.verified[:, None], found.answers, 0)
    marks = score_by_views(found, labels, 20)
    assert [at.views for at in marks] == [1, 4, 16, 20]
    for at in marks:
        _, fewer = solved(views=at.views)
        assert at.verified == fewer.verified.sum()
        assert at.exact_accuracy == fewer.verified.mean()
        assert at.mean_steps == fewer.steps.mean()
    assert marks[0].verified < marks[-1].verified
    assert [at.views for at in score_by_views(found, labels, 16)] == [1, 4, 16]
    assert [at.views for at in score_by_views(found, labels, 1)] == [1]


def test_steps_histogram():
    _, found = solved(views=1)
    histogram = steps_histogram(found)
    assert sum(histogram.values()) == 60
    assert sum(steps * count for steps, count in histogram.items()) == found.steps.sum()


def test_reports_join_measurement_and_score(tmp_path):
    givens = puzzles(MINI, 20, blanks=4)
    given = Puzzles.of(MINI, givens, np.stack([answer_of(MINI, puzzle) for puzzle in givens]), called="made")
    data = Data(path="p", task="mini-sudoku", puzzles=20, answers="solver")
    s = solver(slots=8, views=3, hopeless=0.5)
    found = evaluate(s, given, Subject(MODEL, data, threads=2))
    assert (found.count, found.views, found.engine.threads, found.engine.slots) == (20, 3, 2, 8)
    assert found.throughput_per_s == pytest.approx(20 / found.duration_s)
    for system, power, words in (
        (machines.bare(tmp_path / "bare").system, "none", "--power none"),
        (machines.bare(tmp_path / "bare").system, "auto", "no power meter: ina238: no INA238"),
    ):
        report = bench(
            s, given, subject=Subject(MODEL, data), on_progress=ignore,
            options=BenchOptions(scenario="offline", duration_s=0.05, power=power), system=system,
        )  # fmt: skip
        assert report.power.power_w_mean is None
        assert report.energy_j_per_puzzle is None
        assert words in (report.energy_reason or "")
    assert report.exact_accuracy == found.exact_accuracy
    assert report.steps_histogram == found.steps_histogram
    assert report.throughput_per_s == pytest.approx(report.queries / report.duration_s)
    assert report.solved_per_s <= report.throughput_per_s
    assert 1 <= report.mean_batch <= 8


def test_a_reference_that_takes_few_puzzles_at_a_time_is_asked_for_no_more(monkeypatch):
    monkeypatch.setattr(parity, "_state", lambda carry, rotation: np.ones((len(carry.steps), 2, 4), np.float32))
    reference, other = (ScriptedSession(MINI, spec_of(MINI), max_batch=most) for most in (3, 64))
    rows = parity.measure(reference, other, made(10, 4), 4).everywhere
    assert [(row.steps, row.puzzles, row.same_answers) for row in rows] == [(1, 10, 1.0), (4, 10, 1.0)]
