"""torch.compile for a training step: the part that pays, and the plain path with a reason where it does not work."""

from __future__ import annotations

import torch

from hrm_edge.model.hrm import HRM


def compile_step(model: HRM, batch: int, dtype: torch.dtype) -> str:
    """Compile ``model`` in place for steps on slots [batch, ...] in ``dtype``; "" or one line why it stays plain.

    On a CPU the blocks, and what enters the first of a level, are compiled, not the step: all blocks share one program,
    so that a step with 24 block passes compiles in seconds and runs as fast as one compiled whole. On a GPU the whole
    step is one program, because there each launch costs.
    """
    on_gpu = model.H_init.is_cuda
    levels = [] if on_gpu else model.levels()
    parts: list[torch.nn.Module] = [model] if on_gpu else [layer for level in levels for layer in level.layers]
    for part in parts:
        part.compile(dynamic=False)
    for level in levels:
        level.__dict__["enter"] = torch.compile(level.enter, dynamic=False)
    try:
        _run_once(model, batch, dtype)
    except (torch._dynamo.exc.TorchDynamoException, torch._inductor.exc.InductorError) as error:
        for part in parts:
            part._compiled_call_impl = None
        for level in levels:
            del level.__dict__["enter"]
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        if lines and lines[0].endswith(" raised:"):  # "backend='inductor' raised:", then what was raised
            del lines[0]
        return f"torch.compile does not work here: {lines[0] if lines else type(error).__name__}"
    return ""


def _run_once(model: HRM, batch: int, dtype: torch.dtype) -> None:
    """Run forward and backward on the shapes of training, so that compilation happens now."""
    spec, device = model.spec, model.H_init.device
    tokens = torch.zeros(batch, spec.seq_len, dtype=torch.int32, device=device)
    puzzle = model.puzzle_vectors(torch.zeros(batch, dtype=torch.int32, device=device))
    if puzzle is not None:
        puzzle.requires_grad_(True)
    z_h, z_l = (state.contiguous() for state in model.initial_state(batch, dtype))
    logits = model(tokens, puzzle, z_h, z_l)[2]
    torch.autograd.grad(
        logits.sum(), [level.layers[0].get_parameter("mlp.down_proj.weight") for level in model.levels()]
    )
