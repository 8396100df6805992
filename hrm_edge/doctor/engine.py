"""Whether an engine could run: TensorRT alone is not enough, a session has to move its data to the GPU."""

from __future__ import annotations

from collections.abc import Iterator

from hrm_edge.device.matrix import load_matrix, starts_with
from hrm_edge.doctor.facts import Facts
from hrm_edge.doctor.findings import Finding, fail, warn


def engine_rules(facts: Facts) -> Iterator[Finding]:
    """Judge the session that an engine would get. A Jetson fails without one: the engine is what its GPU is for."""
    found = facts.gpu_session
    if found is None:
        return
    right = _right_binding(facts)
    installed = facts.packages.get("cuda-python") or facts.packages.get("cuda-bindings")
    of_another = installed is not None and right is not None and not starts_with(installed.version, right)
    pip = f"{facts.python.executable} -m pip install"
    if found.error:
        lacks = installed is None or of_another
        wanted = f"cuda-python=={right}.*" if right else "hrm-edge[gpu]"
        weight = fail if facts.kind == "jetson" else warn
        hint = f"{pip} '{wanted}'" if lacks else found.hint
        yield weight("engine-session", f"engines cannot run here: {found.error}", hint or f"{pip} '{wanted}'")
    elif of_another and installed is not None:
        yield warn(
            "cuda-python",
            f"cuda-python {installed.version} is for another CUDA than this JetPack's (cuda-python {right})",
            f"{pip} 'cuda-python=={right}.*'",
        )


def _right_binding(facts: Facts) -> str | None:
    """Return the leading parts of the cuda-python that belongs to this JetPack; None where nothing ties it."""
    release = load_matrix().release_of(facts.board.l4t) if facts.board and facts.board.l4t else None
    return release.cuda_python if release else None
