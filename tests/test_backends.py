"""The table of backends is whole: every name that the types know, and sessions that are where it says."""

from __future__ import annotations

import importlib
from typing import get_args

from hrm_edge.backends import BACKENDS, NAMES, RTX, Backend, CpuBackend, package_of
from hrm_edge.doctor.backends import TARGETS
from hrm_edge.files import read_json
from hrm_edge.runtime.host import HostSession


def flat(alias: object) -> set[str]:
    found: set[str] = set()
    for one in get_args(alias):
        found |= {one} if isinstance(one, str) else flat(one)
    return found


def test_every_name_has_a_row():
    assert flat(Backend) == set(NAMES)
    assert flat(CpuBackend) == {name for name, about in BACKENDS.items() if about.on_cpu}


def test_sessions_and_probes_are_where_the_table_says():
    for about in BACKENDS.values():
        module, _, kind = about.session.partition(":")
        assert not module or issubclass(getattr(importlib.import_module(module), kind), HostSession)
        assert not about.probe or callable(importlib.import_module(about.probe).int8_arithmetic)


def test_a_gpu_backend_names_a_table_of_architectures():
    tables = read_json(TARGETS)
    assert all(about.architectures in tables for about in (*BACKENDS.values(), RTX) if not about.on_cpu)


def test_a_report_gives_the_version_of_the_package_that_ran():
    labels = {"onnxruntime-cpu": "onnxruntime", "openvino-cpu-bf16": "openvino", "native-cpu": "hrm-edge"}
    assert {label: package_of(label) for label in labels} == labels
