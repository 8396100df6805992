"""Choice of the linear layers that run in INT8, with reasons: the built-in rules, and a file that adds to them."""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import Field

from hrm_edge.errors import UserError, nearest
from hrm_edge.files import read_yaml, write_text
from hrm_edge.model.hrm import HRM
from hrm_edge.model.layers import Linear
from hrm_edge.records import Record, parse_record

_FLOAT_LAYERS = {
    "q_head": "its sign decides when to stop, and it is under 0.1% of the operations",
    "lm_head": "its output is the answer, and it is under 1% of the operations",
    "h_to_l": "carries the state between the levels, where an error returns in every later step",
    "l_to_h": "carries the state between the levels, where an error returns in every later step",
}


class Sensitivity(Record):
    """Effect on the logits, after all steps, of INT8 in one layer alone."""

    layer: str
    sqnr_db: float


class Policy(Record):
    """A policy file: layers kept in float beyond the built-in ones, each with its reason, and what was measured."""

    task: str
    variant: str
    measured_on: str = ""
    steps: int = 0
    sqnr_db: float | None = None
    """SQNR of the logits with every other layer in INT8, after all steps."""
    float_layers: dict[str, str] = Field(default={})
    ranking: list[Sensitivity] = Field(default=[])
    """Most sensitive first."""


def linear_layers(model: HRM) -> dict[str, Linear]:
    """Return all linear layers of the model by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, Linear)}


def int8_layers(model: HRM, policy: Policy | None = None) -> dict[str, Linear]:
    """Return those that the policy quantizes: every matrix of every block, less the policy's exceptions."""
    kept = {*_FLOAT_LAYERS, *(policy.float_layers if policy else ())}
    return {name: layer for name, layer in linear_layers(model).items() if name not in kept}


def exceptions(model: HRM, policy: Policy | None = None) -> dict[str, str]:
    """Return the model's layers that stay in float, with the reason."""
    reasons = {**_FLOAT_LAYERS, **(policy.float_layers if policy else {})}
    return {name: reasons[name] for name in linear_layers(model) if name in reasons}


def write_policy(path: Path, policy: Policy) -> None:
    """Write the file, with a line that says what it is."""
    text = yaml.safe_dump(policy.document(), sort_keys=False, width=110)
    write_text(
        path, "# Which layers stay in float in an INT8 export; read back with hrm-edge export --policy.\n" + text
    )


def read_policy(path: Path, task: str, model: HRM) -> Policy:
    """Read a policy file and hold it against the model; ``UserError`` naming the key that does not fit."""
    hint = "write it anew: hrm-edge export MODEL --int8 --sensitivity FILE"
    called = f"--policy {path}"
    policy = parse_record(read_yaml(path, hint, called=called), Policy, called, hint)
    if (policy.task, policy.variant) != (task, model.spec.variant):
        raise UserError(
            f"--policy {path} is for {policy.task} {policy.variant}, the model is {task} {model.spec.variant}", hint
        )
    layers = linear_layers(model)
    for name in policy.float_layers:
        if name not in layers:
            raise UserError(f"--policy {path}: the model has no layer '{name}'", nearest(name, layers))
    return policy
