"""The object that :func:`hrm_edge.load` returns. Axes: N puzzles, S cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from hrm_edge.api.export import Exported, ExportOptions, Target, export
from hrm_edge.api.measure import bench, evaluate
from hrm_edge.api.open import Opened, is_published, open_model
from hrm_edge.api.solve import Result, solve_all
from hrm_edge.callbacks import OnMessage, OnProgress, ignore, log
from hrm_edge.packages import explained
from hrm_edge.solve import Halt, SolveOptions

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from hrm_edge.backends import Backend
    from hrm_edge.report.schema import BenchReport, EvalReport, Scenario
    from hrm_edge.runtime.trt.build import BuildOptions


@dataclass(frozen=True, eq=False)
class Model(Opened):
    """An opened model: solve puzzles, measure accuracy and speed, export. Made by :func:`hrm_edge.load`."""

    def __repr__(self) -> str:
        return f"<hrm_edge.Model {self.about.name}: {self.task.name}, {self.about.precision}, {self.backend}>"

    def solve(
        self,
        puzzles: str | Path | Sequence[str] | ArrayLike,
        *,
        views: int = 64,
        guesses: int | None = None,
        budget_s: float | None = None,
        parallel_views: int = 1,
        max_steps: int | None = None,
        seed: int = 0,
        on_message: OnMessage = log,
        on_progress: OnProgress = ignore,
    ) -> Result | list[Result]:
        """Solve a puzzle and return its result, or solve many and return a list.

        One result: a puzzle as text (its cells row by row, blanks as 0 or a dot), an integer array [S] or
        [side, side] of digits with 0 for a blank, the path of a picture (.jpg, .png …; needs the extra ``vision``).
        A list: a list of texts, an array [N, S] or [N, side, side], the path of a file of puzzles in whatever form, or
        of a folder of pictures. ``-`` is standard input.

        A puzzle that no answer solves is tried again under another symmetry: up to ``views`` of them, and for at most
        ``budget_s`` seconds. ``guesses``: cells guessed in each view after the first. ``parallel_views`` of them share
        a batch. ``max_steps``: ACT steps of one view. ``seed`` chooses the symmetries.

        Raises ``UserError`` for text that is no puzzle, for a puzzle without exactly one solution, and for a picture
        without a puzzle. A puzzle that stays unsolved raises nothing: ``result.verified`` is False.
        """
        options = SolveOptions(
            views=views,
            guesses=guesses,
            budget_s=budget_s,
            parallel_views=parallel_views,
            max_steps=max_steps,
            seed=seed,
        )
        results, single = solve_all(self, puzzles, options, on_message=on_message, on_progress=on_progress)
        return results[0] if single else results

    def evaluate(
        self,
        data: str | Path,
        *,
        limit: int | None = None,
        views: int | None = None,
        halt: Halt = "rules",
        max_steps: int | None = None,
        slots: int = 64,
        guesses: int | None = None,
        seed: int = 0,
        paired: Model | None = None,
        on_message: OnMessage = log,
        on_progress: OnProgress = ignore,
    ) -> EvalReport:
        """Answer the puzzles of ``data`` and return the report: exact accuracy, steps, time.

        ``data``: a file of puzzles or a built data folder, of which the first ``limit`` are taken; answers that it
        lacks are searched. ``views``: symmetries tried per puzzle (1; of ARC all that the folder has). ``halt``: stop
        when the ``rules`` are kept, when the model's ``head`` says so, or after all steps (``fixed``). ``slots``:
        puzzles in the batch at most. ``paired``: another model that answers the same puzzles, to be compared with.

        Accuracy counts whole puzzles that are exactly right, in [0, 1]; times are seconds or milliseconds, as the
        fields' names say. Raises ``UserError`` for data that cannot be read or that the model is not for.
        """
        options = SolveOptions(halt=halt, max_steps=max_steps, slots=slots, guesses=guesses, seed=seed)
        report, _ = evaluate(
            self,
            str(data),
            options,
            limit=limit,
            views=views,
            paired=paired,
            on_message=on_message,
            on_progress=on_progress,
        )
        return report

    def bench(
        self,
        data: str | Path | None = None,
        *,
        duration_s: float = 60.0,
        scenario: Scenario = "single-stream",
        limit: int | None = None,
        fps: float = 30.0,
        views: int = 1,
        halt: Halt = "rules",
        max_steps: int | None = None,
        slots: int | None = None,
        seed: int = 0,
        power: str = "auto",
        idle_s: float = 10.0,
        reference: str | None = None,
        strict: bool = False,
        on_message: OnMessage = log,
        on_progress: OnProgress = ignore,
    ) -> BenchReport:
        """Measure latency, throughput and energy for ``duration_s`` seconds and return the report.

        ``data``: puzzles to answer (None: the package's own). ``scenario``: ``single-stream`` answers one after the
        other, ``offline`` as many as fit into ``slots``, ``camera`` one with every frame at ``fps``. ``power``: the
        meter (``auto``, ``none`` or a name); with one, the machine is first measured at rest for ``idle_s`` seconds.
        ``reference``: a float32 artifact of the same model whose answers are compared. ``strict``: refuse a machine
        that is hot, busy or not locked to its clocks. For ``views``, ``halt``, ``max_steps`` see :meth:`evaluate`.

        Fields carry their unit in the name: ``latency_ms``, ``throughput_per_s``, ``energy_j_per_puzzle``. Raises
        ``UserError`` for a meter, a set or a reference that is not there, ``GateError`` for an engine that computes
        something else than its artifact.
        """
        from hrm_edge.bench.scenarios import BenchOptions

        options = BenchOptions(
            data=None if data is None else str(data),
            limit=limit,
            scenario=scenario,
            duration_s=duration_s,
            fps=fps,
            views=views,
            halt=halt,
            max_steps=max_steps,
            slots=slots,
            seed=seed,
            power=power,
            idle_s=idle_s,
            reference=reference,
            strict=strict,
        )
        return bench(self, options, on_message=on_message, on_progress=on_progress)[0]

    def export(
        self,
        out: str | Path,
        *,
        precision: Literal["fp32", "fp16", "int8", "fastest"] | None = None,
        calibration: str | Path | None = None,
        policy: str | Path | None = None,
        sensitivity: str | Path | None = None,
        puzzles: int | None = None,
        max_steps: int | None = None,
        plugin: bool = False,
        backend: Target = "onnx",
        engine: BuildOptions | None = None,
        on_message: OnMessage = log,
        on_progress: OnProgress = ignore,
    ) -> Exported:
        """Write the model into the new folder ``out``, compare it with the original, and return what was written.

        ``precision``: ``fp32`` (the default), ``fp16``, ``int8``, or ``fastest``, the quicker of fp32 and int8 that
        holds its limits. ``calibration``: puzzles that INT8 is calibrated on (None: the package's set).
        ``sensitivity``: write this policy file of layers to keep in float, and export by it; ``policy``: read one.
        ``puzzles``: how many both are compared on. ``max_steps``: ACT steps of the artifact. ``plugin``: attention as
        one node for TensorRT. ``backend``: ``onnx``, or an engine for the GPU here, built as ``engine`` says.

        It needs the extra ``export``; an engine of an artifact needs TensorRT only. Raises ``UserError`` for an
        ``out`` that holds something and for what the model or the machine cannot do, ``GateError`` where the export
        misses its recipe's limits: the folder is written then, and marked.
        """
        files = [None if path is None else Path(path) for path in (calibration, policy, sensitivity)]
        options = ExportOptions(precision, files[0], files[1], files[2], puzzles, max_steps, plugin)
        task = self.task.name if is_published(self.folder) else None
        with explained("Model.export"):
            exported = export(
                self.folder,
                Path(out),
                options,
                backend=backend,
                engine=engine,
                task=task,
                on_message=on_message,
                on_progress=on_progress,
            )
        exported.check()
        return exported


def load(
    name: str | Path,
    *,
    backend: Backend | None = None,
    threads: int | None = None,
    task: str | None = None,
    slots: int = 1,
    folder: Path | None = None,
    on_message: OnMessage = log,
) -> Model:
    """Open a model and return an object that solves, measures and exports.

    ``name``: a shipped model (``sudoku-nano``), an artifact or an engine of ``hrm-edge export``, a run or a checkpoint
    of ``hrm-edge train`` (which needs torch), or a published state-dict file.

    ``backend``: ``onnxruntime``, ``openvino``, ``openvino-bf16``, ``native``, ``tensorrt``, ``torch-tensorrt``, or
    ``auto``, the CPU backend that a trial finds fastest for ``slots`` puzzles at a time. None: TensorRT where the
    folder holds an engine, else ONNX Runtime; a checkpoint always runs in torch.
    ``threads``: of one step, on the CPU. ``task``: ``sudoku``, ``maze`` or ``arc``, of a published file that does not
    say it. ``folder``: where the model is, whatever ``name`` is the name of in the current folder.
    ``on_message`` gets notes in words: a missed export gate, what had to be assumed; by default they are logged.

    Raises ``UserError`` (``problem``, ``hint``) where nothing is called that, or the folder is torn, incomplete, or
    not valid on this machine.
    """
    opened = open_model(
        name, backend=backend, threads=threads, task=task, slots=slots, folder=folder, on_message=on_message
    )
    return Model(**vars(opened))
