"""Optimizers of the recipes that torch does not have, and the learning rate schedule."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from hrm_edge.recipe import Train


class _Optimizer(torch.optim.Optimizer):
    """Torch's optimizer without its wrappers.

    Torch wraps these methods so that no compiled program looks into them; the wrapper imports torch's compiler, which
    takes as long as torch itself, and none of our programs calls them.
    """

    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.Optimizer.zero_grad)
    state_dict = inspect.unwrap(torch.optim.Optimizer.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.Optimizer.load_state_dict)


class AdamATan2(_Optimizer):
    """Adam with atan2 in place of the division by sqrt(v) + epsilon: no epsilon, scale-free (arXiv 2407.05872).

    p *= 1 - lr*wd; m = lerp(m, g, 1-b1); v = b2*v + (1-b2)*g^2;
    p -= lr / (1 - b1^t) * atan2(m, sqrt(v) / sqrt(1 - b2^t)).
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.95),
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params:
                self._update(group, params)
        return loss

    def _update(self, group: dict[str, Any], params: list[Tensor]) -> None:
        for p in params:
            if not self.state[p]:
                self.state[p] = {"step": torch.zeros(()), "m": torch.zeros_like(p), "v": torch.zeros_like(p)}
        states = [self.state[p] for p in params]
        grads, m, v = [p.grad for p in params if p.grad is not None], [s["m"] for s in states], [s["v"] for s in states]
        (b1, b2), lr = group["betas"], group["lr"]
        torch._foreach_add_([s["step"] for s in states], 1)
        t = states[0]["step"].item()
        _atan2_update_(
            params,
            grads,
            m,
            v,
            betas=(b1, b2),
            shrink=1 - lr * group["weight_decay"],
            step_size=lr / (1 - b1**t),
            root_correction=math.sqrt(1 - b2**t),
        )


def _atan2_update_(
    params: list[Tensor],
    grads: list[Tensor],
    m: list[Tensor],
    v: list[Tensor],
    *,
    betas: tuple[float, float],
    shrink: float,
    step_size: float,
    root_correction: float,
) -> None:
    """Update parameters and moments in place by the mathematics of :class:`AdamATan2`.

    ``shrink``: 1 - lr*wd. ``step_size``: lr / (1 - b1^t). ``root_correction``: sqrt(1 - b2^t).
    """
    b1, b2 = betas
    if shrink != 1:
        torch._foreach_mul_(params, shrink)
    torch._foreach_lerp_(m, grads, 1 - b1)
    torch._foreach_mul_(v, b2)
    torch._foreach_addcmul_(v, grads, grads, 1 - b2)
    scale = torch._foreach_sqrt(v)
    torch._foreach_div_(scale, root_correction)
    for p, first, second in zip(params, m, scale, strict=True):
        p.add_(torch.atan2(first, second), alpha=-step_size)


class Muon(_Optimizer):
    """Momentum whose step is made orthogonal (Jordan, 2024), scaled so that rates of Adam fit (arXiv 2502.16982).

    m = lerp(m, g, 1-b); p *= 1 - lr*wd; p -= lr * 0.2 * sqrt(max(rows, columns)) * orthogonal(lerp(g, m, b)), of
    matrices p. It is torch.optim.Muon in ``dtype``: torch's is in bf16 always, which takes 20 times as long as float32
    on a processor that does not multiply in it.
    """

    def __init__(self, params: Iterable[Tensor], lr: float, weight_decay: float, dtype: torch.dtype) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})
        self.dtype = dtype

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            lr = group["lr"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                if not self.state[p]:
                    self.state[p] = {"momentum_buffer": torch.zeros_like(p)}
                momentum = self.state[p]["momentum_buffer"]
                momentum.lerp_(p.grad, 1 - _MOMENTUM)
                update = _orthogonal(p.grad.lerp(momentum, _MOMENTUM).to(self.dtype))
                p.mul_(1 - lr * group["weight_decay"])
                p.add_(update, alpha=-lr * 0.2 * math.sqrt(max(p.shape)))


_MOMENTUM = 0.95
_NEWTON_SCHULZ = (3.4445, -4.775, 2.0315)  # Jordan's: five rounds bring every singular value near 1


def _orthogonal(matrix: Tensor) -> Tensor:
    """Return the orthogonal matrix nearest to ``matrix``, roughly, by five rounds of Newton-Schulz."""
    if matrix.shape[0] > matrix.shape[1]:
        return _orthogonal(matrix.T).T
    a, b, c = _NEWTON_SCHULZ
    x = matrix / matrix.norm().clamp(min=1e-7)
    for _ in range(5):
        square = x @ x.T
        x = torch.addmm(x, torch.addmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x


@torch.no_grad()
def sparse_sign_sgd_(weights: Tensor, ids: Tensor, grads: Tensor, *, lr: float, weight_decay: float) -> None:
    """Update rows ``ids`` [K] of the puzzle table [N, dim] in place; gradients [K, dim] are summed per id first.

    On the rows named only: w *= 1 - lr*wd; w -= lr * sign(g).
    """
    unique, where = ids.long().unique(return_inverse=True)
    total = torch.zeros(len(unique), grads.shape[1], dtype=grads.dtype, device=grads.device)
    total.index_add_(0, where, grads)
    rows = weights[unique] * (1 - lr * weight_decay) - lr * total.sign().to(weights.dtype)
    weights[unique] = rows


def make_optimizers(options: Train, params: Mapping[str, Tensor]) -> list[torch.optim.Optimizer]:
    """Return the recipe's optimizers, which share out the trainable tensors ``params``.

    Muon is for the matrices within the blocks; the other tensors have AdamATan2 then.
    """
    lr, decay = options.lr, options.weight_decay
    if options.optimizer == "adamw":
        return [torch.optim.AdamW(params.values(), lr=lr, betas=options.betas, weight_decay=decay)]
    matrices = [p for name, p in params.items() if options.optimizer == "muon" and p.ndim == 2 and ".layers." in name]
    inner = {id(p) for p in matrices}
    rest = [p for p in params.values() if id(p) not in inner]
    others = AdamATan2(rest, lr=lr, betas=options.betas, weight_decay=decay)
    if not matrices:
        return [others]
    return [others, Muon(matrices, lr, decay, torch.bfloat16 if options.precision == "bf16" else torch.float32)]


def lr_factor(step: int, options: Train) -> float:
    """Share of lr at optimizer step ``step`` (from 0): linear warm-up, then cosine to lr_min_ratio at the last step."""
    if step < options.warmup:
        return (step + 1) / options.warmup
    progress = (step - options.warmup) / max(1, options.steps - options.warmup)
    low = options.lr_min_ratio
    return low + (1 - low) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


class Ema:
    """Exponential moving average of the trainable tensors, with the usual warm-up min(decay, (1+t)/(10+t))."""

    def __init__(self, params: Mapping[str, Tensor], decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.average = {name: p.detach().clone() for name, p in params.items()}

    @torch.no_grad()
    def update(self, params: Mapping[str, Tensor]) -> None:
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        averages = [self.average[name] for name in params]
        torch._foreach_lerp_(averages, [p.detach() for p in params.values()], 1 - decay)
