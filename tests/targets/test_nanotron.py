"""Nanotron's own reader over what is emitted for it where NANOTRON names a checkout, else the list of its fields."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from emitted_plans import layout_of, plan_named
from listed_fields import complaints, listed

from meshwright.catalog.lookup import find_model
from meshwright.planner import Plan, emit
from meshwright.planner.plan_schema import LayoutSection

KNOWN = listed("nanotron", "2411b02")
# Emitted as the nearest that it runs; of the other plans it lacks the model, or nothing fits.
RELAXED = ("gqa-tensor", "uneven", "hsdp", "tensor-fsdp", "optimizer-instances", "single-device", "pipeline-fsdp")
# By name: a plan, another model than it has, and what differs in its layout.
MORE: dict[str, tuple[str, str, dict[str, Any]]] = {
    "replicas": ("hsdp", "llama-3.1-8b", {"zero_stage": 0, "zero_shard": 1}),
    "optimizer-states": ("hsdp", "llama-3.1-8b", {"zero_stage": 1, "zero_shard": 32}),
    "all-reduce": ("tensor-fsdp", "llama-3.1-70b", {"zero_stage": 1, "sequence_parallel": False}),
    "3d": ("pipeline-fsdp", "llama-3.1-70b", {"zero_stage": 1, "split": (21, 20, 20, 19)}),
    "one-after-another": (
        "pipeline-fsdp",
        "llama-3.1-70b",
        {"zero_stage": 1, "split": (21, 20, 20, 19), "schedule": "gpipe", "recompute": "none"},
    ),
    "mixture": ("hsdp", "mixtral-8x7b", {"zero_stage": 1, "zero_shard": 32}),
}


@cache
def plan_of(name: str) -> Plan:
    if name not in MORE:
        return emit(plan_named(name), "nanotron", relax=True).plan
    base, model, fields = MORE[name]
    plan = plan_named(base)
    layout = LayoutSection.of(layout_of({**plan.layout.model_dump(), **fields}))
    named = plan.inputs.model.model_copy(update={"entry": find_model(model)})
    return plan.model_copy(update={"layout": layout, "inputs": plan.inputs.model_copy(update={"model": named})})


def document_of(name: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(emit(plan_of(name), "nanotron").files["nanotron.yaml"])
    return document


Break = Callable[[dict[str, Any]], object]
# What the list of its fields shows too, and what only its checks find.
BREAKS: dict[str, tuple[Break, bool]] = {
    "unknown section": (lambda document: document.update(mesh={"tp": 2}), True),
    "unknown key": (lambda document: document["parallelism"].update(sequence_parallel=True), True),
    "degree of a wrong type": (lambda document: document["parallelism"].update(tp="two"), True),
    "degree that is missing": (lambda document: document["parallelism"].pop("dp"), True),
    "unknown engine": (lambda document: document["parallelism"].update(pp_engine="interleaved"), True),
    "unknown mode": (lambda document: document["parallelism"].update(tp_mode="RING"), True),
    "unknown format": (lambda document: document["model"].update(dtype="bf16"), True),
    "batch of a wrong type": (lambda document: document["tokens"].update(micro_batch_size=1.5), True),
    "optimizer without its stage": (lambda document: document["optimizer"].pop("zero_stage"), True),
    "unknown key of the model": (lambda document: document["model"]["model_config"].update(heads=32), True),
    "heads that can't be shared": (lambda document: document["parallelism"].update(tp=3), False),
    "more ranks than key heads": (lambda document: document["parallelism"].update(tp=16), False),
    "stage of data that starts late": (
        lambda document: document["data_stages"][0].update(start_training_step=2),
        False,
    ),
}
READERS = ["", *([os.environ["NANOTRON"]] if "NANOTRON" in os.environ else [])]


def sections(path: str, document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, document
    for name, value in document.items():
        inner = value[0] if isinstance(value, list) and value and isinstance(value[0], dict) else value
        if isinstance(inner, dict):
            yield from sections(f"{path}.{name}".removeprefix("."), inner)


def broken_document(broken: str, name: str = "3d") -> dict[str, Any]:
    document = document_of(name)
    BREAKS[broken][0](document)
    return document


@cache
def by_reader(checkout: str) -> dict[str, dict[str, Any]]:
    """Give the answers of the reader, by name of plan or break."""
    documents = {name: document_of(name) for name in (*RELAXED, *MORE)}
    documents |= {broken: broken_document(broken) for broken in BREAKS}
    run = subprocess.run(
        [sys.executable, str(Path(__file__).parent / "nanotron_parser.py"), checkout],
        input=json.dumps(list(documents.values())),
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(zip(documents, map(json.loads, run.stdout.splitlines()), strict=True))


@pytest.mark.parametrize("checkout", READERS)
@pytest.mark.parametrize("name", [*RELAXED, *MORE])
def test_it_understands_what_the_plan_says(name: str, checkout: str) -> None:
    if not checkout:
        assert list(complaints(KNOWN, dict(sections("", document_of(name))))) == []
        return
    plan, understood = plan_of(name), by_reader(checkout)[name]
    layout, job, model = plan.layout.layout(), plan.inputs.job, plan.inputs.model.entry
    assert "refused" not in understood, understood
    assert (understood["dp"], understood["tp"], understood["pp"]) == (
        layout.data_parallel,
        layout.tensor_parallel,
        layout.pipeline_parallel,
    )
    assert understood["global_batch"] == job.global_batch
    assert understood["tokens"] == job.tokens_per_step
    assert understood["zero_stage"] == layout.zero_stage
    assert understood["recompute"] is (layout.recompute == "full")
    shared = layout.sequence_parallel and layout.tensor_parallel > 1
    assert understood["mode"] == ("REDUCE_SCATTER" if shared else "ALL_REDUCE")
    all_forward = layout.schedule == "gpipe"
    assert understood["engine"].startswith("AllForward" if all_forward else "OneForward")
    assert (understood["model"], understood["layers"]) == ("Qwen2Config", model.layers)
    assert understood["experts"] == (None if model.experts is None else model.experts.experts)


SHOWN = [(checkout, broken) for checkout in READERS for broken, (_, listed) in BREAKS.items() if listed or checkout]


@pytest.mark.parametrize(("checkout", "broken"), SHOWN)
def test_it_refuses_what_is_broken(checkout: str, broken: str) -> None:
    if checkout:
        assert "refused" in by_reader(checkout)[broken]
    else:
        assert list(complaints(KNOWN, dict(sections("", broken_document(broken))))) != []
