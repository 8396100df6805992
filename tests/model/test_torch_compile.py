"""The compiled step is the plain one, and a machine without a compiler trains all the same."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch

from hrm_edge.model.act import act_step, admit, fresh_carry
from hrm_edge.model.hrm import HRM
from hrm_edge.model.torch_compile import compile_step
from hrm_edge.spec import variant_spec

# torch's compiler warns about itself, in ways that change from release to release
pytestmark = pytest.mark.filterwarnings("ignore")

SMALL = {"hidden": 16, "heads": 4, "l_layers": 2, "max_steps": 4}
SIZES = {
    "nano": {**SMALL, "h_layers": 1},
    "trm": {**SMALL, "puzzle_dim": 16, "puzzle_len": 2, "h_cycles": 2, "l_cycles": 2},
}
SIZES["trm-mixer"] = SIZES["trm"]


def small(variant: str = "nano") -> HRM:
    torch.manual_seed(0)
    return HRM(variant_spec(variant, vocab=6, seq_len=16, grid=(4, 4, 2, 2), **SIZES[variant]))


def gradients(model: HRM) -> dict[str, torch.Tensor]:
    carry = fresh_carry(model, 3, torch.float32)
    cells = torch.arange(48, dtype=torch.int32).view(3, 16) % 5 + 1
    carry = admit(model, carry, cells, cells.flip(0), torch.zeros(3, dtype=torch.int32))
    act_step(model, carry, loss="softmax", minimum_steps=None).loss.total.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


# A C++ compiler works half a minute on a variant. Which parts become one program, and that its gradients are right, are
# our own part of it and show without one.
@pytest.mark.parametrize(
    ("variant", "backend"),
    [
        *((variant, "aot_eager") for variant in SIZES),
        pytest.param("nano", "inductor", marks=[pytest.mark.slow, pytest.mark.ci]),
        *(pytest.param(variant, "inductor", marks=pytest.mark.slow) for variant in SIZES if variant != "nano"),
    ],
)
def test_compiled_blocks_give_the_plain_gradients_and_share_one_program(
    variant: str, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, compiled = small(variant), small(variant)
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    assert compile_step(compiled, 3, torch.float32) == ""
    torch.testing.assert_close(gradients(compiled), gradients(plain), rtol=1e-4, atol=1e-5)
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert graphs <= 7, f"{graphs} programs: of all blocks, and of each level's entry, with gradient and without"


def test_without_a_compiler_it_says_why_and_stays_plain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch._dynamo.reset()
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", (None, str(tmp_path / "no-compiler")))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    model = small()
    reason = compile_step(model, 3, torch.float32)
    assert reason.startswith("torch.compile does not work here: ")
    assert "\n" not in reason
    assert gradients(model).keys() == gradients(small()).keys()


def test_what_the_compiler_raised_is_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(graph: object, inputs: object) -> None:
        raise ValueError("no vectors here")

    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=failing))
    reason = compile_step(small(), 3, torch.float32)
    assert reason == "torch.compile does not work here: ValueError: no vectors here"
