"""What a GPU can tell us, in one run of ten minutes on a machine that is lent: tests, speeds, the first training.

    python scripts/gpu_day.py pack --python 3.12 --out build/gpu-day
    export PYTHONPATH=build/gpu-day
    python scripts/gpu_day.py run --out OUT --data DATA [--budget 600] [--part NAME]… [--dry-run]
    python scripts/gpu_day.py join OUT --to RUN

The machine needs PyTorch and Triton, and no internet: ``pack`` gathers the few packages that it may lack (some 10 MB),
for its Python; DATA is a folder of 'hrm-edge data build'; both travel with the checkout. A part that fails is said in
the report, and the others run. OUT gets at most 8 files of 16 MiB: ``gpu-day.tar.gz`` with every report and log, and
the weights of the first minutes of training in pieces. ``join`` puts them together, and another machine trains on from
them: 'hrm-edge train sudoku-extreme-1k_full init=RUN'.

``--dry-run`` does all of it on a CPU at tiny sizes: what would fail on the day fails here. Its numbers mean nothing.
"""

from __future__ import annotations

import io
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

import click

from hrm_edge.child import python_command
from hrm_edge.errors import HrmEdgeError, UserError
from hrm_edge.files import read_json, sha256, write_json

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("tests", "attention", "training-full", "training-reduced", "train")
TESTS = "tests/ops/test_kernel_gpu.py"  # the other tests marked gpu need TensorRT, too
PACKAGES = (  # of constraints.txt: what training, benchmarks and these tests import beside torch, Triton and NumPy
    *("click", "rich", "markdown-it-py", "mdurl", "pygments", "pydantic", "pydantic-core", "annotated-types"),
    *("typing-inspection", "typing-extensions", "pyyaml", "safetensors"),
    *("pytest", "pytest-timeout", "iniconfig", "pluggy", "packaging"),
)
MOST_FILES, MOST_BYTES = 8, 16 << 20  # of what such a machine gives back
PIECE_BYTES = 15 << 20
REPORTS, PIECES = "gpu-day.tar.gz", "weights.tar"
LEAST_S = 20  # a part is not begun with less left
SHARES = {"tests": 0.25, "attention": 0.25, "training-full": 0.15, "training-reduced": 0.1, "train": 1.0}  # of the rest
TINY = ("model.hidden=64", "model.heads=2", "train.batch=4", "train.precision=fp32", "evaluate.puzzles=4")


def commands(work: Path, data: Path, dry: bool, seconds: float) -> dict[str, list[str]]:
    """Return part → its command, which has ``seconds``; results go into ``work``."""
    bench = str(ROOT / "benchmarks" / "training.py")
    speed = ["--data", str(data), "--out", str(work / "training.json")]
    speed += ["--rounds", "1", "--steps", "1", "--precision", "fp32"] if dry else ["--rounds", "5", "--steps", "10"]
    variants = {"training-full": "nano" if dry else "full", "training-reduced": "nano" if dry else "reduced"}
    batches = {"training-full": "2" if dry else "384", "training-reduced": "3" if dry else "384"}
    limit = f"{max(1, int(seconds) - 45)}s"  # the rest is for starting and saving
    recipe = ["sudoku-extreme-1k_full", *(TINY if dry else ()), *(["train.steps=2"] if dry else [])]
    return {
        "tests": python_command("-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", TESTS),
        "attention": [sys.executable, str(ROOT / "benchmarks" / "attention.py"), "--out", str(work / "attention.json"),
                      *(["--dry-run"] if dry else [])],
        **{name: [sys.executable, bench, "--variant", variants[name], "--batch", batches[name], *speed]
           for name in variants},
        "train": python_command("-m", "hrm_edge", "train", *recipe, "--data", str(data), "--out", str(work / "run"),
                                "--time-limit", limit),
    }  # fmt: skip


def run_part(command: list[str], log: Path, seconds: float, environ: dict[str, str]) -> dict[str, Any]:
    """Run one part for so long at most, its output into ``log``; return what became of it."""
    begun = time.monotonic()
    with log.open("wb") as out:
        try:
            done = subprocess.run(
                command, cwd=ROOT, env=environ, stdout=out, stderr=subprocess.STDOUT, timeout=seconds, check=False
            )
            code: int | None = done.returncode
        except subprocess.TimeoutExpired:
            code = None
    text = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    last = text[-1] if text else "it said nothing"
    return {"command": command, "exit_code": code, "seconds": round(time.monotonic() - begun, 1), "last_line": last}


def about(dry: bool) -> dict[str, Any]:
    """Return the machine, as the report names it."""
    import torch

    found: dict[str, Any] = {"python": platform.python_version(), "torch": str(torch.__version__), "dry_run": dry}
    found["date"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    found["gpu"] = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    found["cuda"] = torch.version.cuda
    nvcc = shutil.which("nvcc")
    asked = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=False) if nvcc else None
    found["nvcc"] = asked.stdout.strip().splitlines()[-1] if asked and asked.stdout.strip() else None
    return found


def keep_weights(run: Path, out: Path) -> dict[str, Any]:
    """Write the newest checkpoint's weights into ``out`` in pieces; return what is needed to put them together."""
    from hrm_edge.checkpoint import MODEL_FILE, checkpoints
    from hrm_edge.training.checkpoint import Restored, Snapshot, save_checkpoint

    if not checkpoints(run):
        raise UserError(f"{run} holds no checkpoint", "give the training more time: --budget")
    newest = Restored(run)
    with tempfile.TemporaryDirectory() as scratch:
        # without optimizer and carry, which are twice as large: another run starts from the weights
        recipe = (newest.folder / "recipe.yaml").read_text(encoding="utf-8")
        moment = Snapshot(newest.info, {MODEL_FILE: newest.tensors(MODEL_FILE)}, newest.loop, recipe)
        save_checkpoint(Path(scratch) / "run", moment)
        packed = Path(scratch) / PIECES
        with tarfile.open(packed, "w") as archive:
            archive.add(Path(scratch) / "run", arcname="run")
        whole = packed.read_bytes()
        digest = sha256(packed)
    pieces = [whole[at : at + PIECE_BYTES] for at in range(0, len(whole), PIECE_BYTES)]
    if len(pieces) > MOST_FILES - 1:
        raise UserError(
            f"the weights are {len(whole) >> 20} MiB, more than {MOST_FILES - 1} pieces", "train a smaller one"
        )
    for number, piece in enumerate(pieces):
        (out / f"{PIECES}.{number}").write_bytes(piece)
    return {"step": newest.info.step, "pieces": len(pieces), "bytes": len(whole), "sha256": digest}


@click.group(help=(__doc__ or "").partition("\n")[0])
def cli() -> None:
    """See the module."""


@cli.command()
@click.option("--python", "version", required=True, metavar="3.12", help="Of the machine with the GPU.")
@click.option("--machine", default="x86_64", show_default=True, type=click.Choice(["x86_64", "aarch64"]))
@click.option("--out", type=click.Path(path_type=Path), default=Path("build/gpu-day"), show_default=True)
def pack(version: str, machine: str, out: Path) -> None:
    """Gather the packages that the machine may lack, for PYTHONPATH."""
    command = python_command("-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:", f"--target={out}")
    command += [f"--python-version={version}", "--implementation=cp", f"--platform=manylinux_2_28_{machine}"]
    command += [f"--platform=manylinux2014_{machine}", f"--constraint={ROOT / 'constraints.txt'}", *PACKAGES]
    if subprocess.run(command, check=False).returncode:
        raise UserError(f"pip could not bring every package for Python {version}", "see its message above")
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    click.echo(f"{out}: {size / 1e6:.0f} MB")


@cli.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="New or empty folder.")
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True, help="Of 'hrm-edge data build'.")
@click.option("--budget", type=click.IntRange(60), default=600, show_default=True, help="Seconds for all of it.")
@click.option("--part", "chosen", multiple=True, type=click.Choice(PARTS), help="Only these.  [default: all]")
@click.option("--dry-run", "dry", is_flag=True, help="On a CPU, at tiny sizes.")
def run(out: Path, data: Path, budget: int, chosen: tuple[str, ...], dry: bool) -> None:
    """Run the parts in their order, each within its share of the time."""
    import torch

    begun = time.monotonic()
    if not dry and not torch.cuda.is_available():
        raise UserError("torch sees no NVIDIA GPU here", "run it where there is one, or with --dry-run")
    if out.exists() and any(out.iterdir()):
        raise UserError(f"--out: {out} is not empty", "choose another folder")
    out.mkdir(parents=True, exist_ok=True)
    data = data.resolve()
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}
    if dry:
        environ |= {"HRM_EDGE_GPU_DRY_RUN": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        environ["TORCHDYNAMO_DISABLE"] = "1"  # compiling for a CPU takes longer than all the rest
    report: dict[str, Any] = {"kind": "gpu day", **about(dry), "parts": {}}
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch) / "gpu-day"
        work.mkdir()
        for name in chosen or PARTS:
            left = budget - (time.monotonic() - begun)
            if left < LEAST_S:
                report["parts"][name] = {"exit_code": None, "last_line": "not begun: the time was used up"}
                continue
            seconds = left if dry else left * SHARES[name]
            click.echo(f"{time.monotonic() - begun:5.0f} s  {name}, at most {seconds:.0f} s")
            command = commands(work, data, dry, seconds)[name]
            report["parts"][name] = run_part(command, work / f"{name}.log", seconds, environ)
            click.echo(f"         exit code {report['parts'][name]['exit_code']}: {report['parts'][name]['last_line']}")
        if "train" in report["parts"]:
            try:
                report["weights"] = keep_weights(work / "run", out)
            except HrmEdgeError as error:
                report["weights"] = {"error": error.problem}
        shutil.rmtree(work / "run", ignore_errors=True)
        write_json(work / "report.json", report)
        with tarfile.open(out / REPORTS, "w:gz") as archive:
            archive.add(work, arcname="gpu-day")
    too_large = [path.name for path in out.iterdir() if path.stat().st_size > MOST_BYTES]
    failed = [name for name, part in report["parts"].items() if part["exit_code"] != 0]
    click.echo(f"{out}: {len(list(out.iterdir()))} files; failed: {', '.join(failed) or 'nothing'}")
    if too_large:
        click.echo(f"larger than {MOST_BYTES >> 20} MiB, and may not come back: {', '.join(too_large)}")
    click.echo(f"Next: python scripts/gpu_day.py join {out} --to RUN")
    sys.exit(1 if failed or too_large else 0)


@cli.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True))
@click.option("--to", type=click.Path(path_type=Path), required=True, help="New run folder for the weights.")
def join(folder: Path, to: Path) -> None:
    """Put the weights of a GPU day together; reports are in its archive."""
    with tarfile.open(folder / REPORTS) as archive:
        inside = archive.extractfile("gpu-day/report.json")
        assert inside is not None
        (folder / "report.json").write_bytes(inside.read())
    expected = read_json(folder / "report.json").get("weights") or {"error": "it was not trained"}
    if "error" in expected:
        raise UserError(f"{folder} brought no weights: {expected['error']}", "see train.log in its archive")
    pieces = [folder / f"{PIECES}.{number}" for number in range(expected["pieces"])]
    if missing := [path.name for path in pieces if not path.is_file()]:
        raise UserError(f"{folder} lacks {', '.join(missing)}", "copy it again")
    if to.exists():
        raise UserError(f"--to: {to} already exists", "choose another folder")
    whole = b"".join(path.read_bytes() for path in pieces)
    with tempfile.TemporaryDirectory(dir=to.parent if to.parent.is_dir() else None) as scratch:
        packed = Path(scratch) / PIECES
        packed.write_bytes(whole)
        if sha256(packed) != expected["sha256"]:
            raise UserError(f"{folder}: the weights were damaged on the way", "copy the pieces again")
        with tarfile.open(fileobj=io.BytesIO(whole)) as archive:
            archive.extractall(scratch, filter="data")
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(Path(scratch) / "run", to)
    click.echo(f"Next: hrm-edge train sudoku-extreme-1k_full init={to} --data DATA")


if __name__ == "__main__":
    try:
        cli(standalone_mode=True)
    except HrmEdgeError as error:
        click.echo(f"Error: {error.problem}\n  {error.hint}", err=True)
        sys.exit(error.exit_code)
