"""Megatron-LM's command lines: the lists of its parser's options, and its parser itself where there is a checkout.

MEGATRON_LM and MEGATRON_LM_0_12 name checkouts of the two versions that plans are emitted for. One process a version
answers for all command lines, as rank 0 of each world.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from emitted_plans import PLANS, plan_named

from meshwright.planner import Plan, emit
from meshwright.planner.emission.megatron import environment as latest_environment
from meshwright.planner.emission.megatron import files as latest
from meshwright.planner.emission.megatron.arguments import Arguments, words
from meshwright.planner.emission.megatron_0_12 import environment as old_environment
from meshwright.planner.emission.megatron_0_12 import settings as old

TESTS = Path(__file__).parent.parent
TYPES: Mapping[str, Callable[[str], object]] = {"int": int, "float": float, "str": str}
# What a run needs beside a plan: data, and how long.
RUN = ["--mock-data", "--tokenizer-type", "NullTokenizer", "--train-iters", "1", "--lr", "1e-4"]


@dataclass(frozen=True)
class Version:
    """A version of Megatron-LM. options: the file of its parser's; checkout: the variable that names one."""

    options: str
    checkout: str
    arguments: Callable[[Plan], Arguments]
    environment: Callable[[Plan], Mapping[str, str | None]]


VERSIONS = {
    "megatron": Version("d98e8a64", "MEGATRON_LM", latest.arguments, latest_environment.environment),
    "megatron-0.12": Version("core-0.12.1", "MEGATRON_LM_0_12", old.arguments, old_environment.environment),
}


@cache
def plan_for(target: str, name: str) -> Plan:
    """Give a plan, or the nearest that the version runs."""
    return emit(plan_named(name), target, relax=True).plan


@cache
def options_of(target: str) -> dict[str, dict[str, Any]]:
    text = (TESTS / "megatron" / f"{VERSIONS[target].options}.json").read_text()
    options: dict[str, dict[str, Any]] = json.loads(text)["options"]
    return options


def words_of(target: str, name: str) -> list[str]:
    return list(words(VERSIONS[target].arguments(plan_for(target, name))))


def case_of(target: str, name: str, given: Sequence[str]) -> dict[str, Any]:
    plan = plan_for(target, name)
    variables = {key: value for key, value in VERSIONS[target].environment(plan).items() if value is not None}
    return {"world": plan.mesh.devices, "environment": variables, "arguments": [*given, *RUN]}


def changed(option: str, *values: str) -> Callable[[list[str]], list[str]]:
    """Give what puts other values behind an option."""

    def change(given: list[str]) -> list[str]:
        at = given.index(option) + 1
        end = next((index for index in range(at, len(given)) if given[index].startswith("--")), len(given))
        return [*given[:at], *values, *given[end:]]

    return change


# By name: the plan, what breaks its command line, and whether the list of options shows it.
BREAKS: dict[str, tuple[str, Callable[[list[str]], list[str]], bool]] = {
    "unknown option": ("dense-3d", lambda given: [*given, "--pipeline-schedule", "zb-h1"], True),
    "degree of a wrong type": ("dense-3d", changed("--tensor-model-parallel-size", "eight"), True),
    "method without a value": ("long-context", changed("--cp-comm-type"), True),
    "unknown granularity": ("dense-3d", changed("--recompute-granularity", "some"), True),
    "unknown sharding": ("fsdp", changed("--data-parallel-sharding-strategy", "everything"), True),
    "unknown recomputation": ("gqa-tensor", changed("--recompute-method", "whole"), True),
    "degree that doesn't multiply": ("dense-3d", changed("--tensor-model-parallel-size", "7"), False),
    "layers lost": ("dense-3d", changed("--num-layers", "95"), False),
    "experts that can't be shared": ("moe", changed("--expert-model-parallel-size", "7"), False),
    "heads that can't be shared": ("gqa-tensor", changed("--num-attention-heads", "63"), False),
}
LATEST_BREAKS = {
    "batch that isn't whole": ("dense-3d", changed("--global-batch-size", "1535"), False),
    "layers lost in a layout": (
        "uneven",
        changed("--pipeline-model-parallel-layout", "Et*7|" + "t*8|" * 14 + "t*6L"),
        False,
    ),
}


def breaks_of(target: str) -> dict[str, tuple[str, Callable[[list[str]], list[str]], bool]]:
    return BREAKS | (LATEST_BREAKS if target == "megatron" else {})


def by_options(target: str, given: Sequence[str]) -> str | None:
    """Give why the list of options refuses a command line."""
    found: dict[str, list[str]] = {}
    for word in given:
        if word.startswith("--"):
            found[word] = last = []
        else:
            last.append(word)
    complaints = (complaint(option, values, options_of(target).get(option)) for option, values in found.items())
    return next(filter(None, complaints), None)


def complaint(option: str, values: list[str], known: dict[str, Any] | None) -> str | None:
    if known is None:
        return f"{option}: unknown"
    if known["values"] not in (len(values), "+", "*") or (known["values"] == "+" and not values):
        return f"{option}: {len(values)} values"
    for value in values:
        if value not in known.get("choices", [value]):
            return f"{option}: {value} isn't a choice"
        try:
            TYPES.get(known.get("type", "str"), str)(value)
        except ValueError:
            return f"{option}: {value} isn't of its type"
    return None


@cache
def by_parser(target: str, checkout: str) -> dict[str, dict[str, Any]]:
    """Give the answers of the parser, by name of plan or break."""
    cases = {name: case_of(target, name, words_of(target, name)) for name in PLANS}
    for broken, (name, change, _) in breaks_of(target).items():
        cases[broken] = case_of(target, name, change(words_of(target, name)))
    run = subprocess.run(
        [sys.executable, str(Path(__file__).parent / "megatron_parser.py"), checkout],
        input=json.dumps(list(cases.values())),
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(zip(cases, map(json.loads, run.stdout.splitlines()), strict=True))


# A version, and the folder of its checkout; without one its list of options.
READERS = [(target, "") for target in VERSIONS] + [
    (target, os.environ[version.checkout]) for target, version in VERSIONS.items() if version.checkout in os.environ
]


def refusal(target: str, checkout: str, case: str, given: list[str]) -> str | None:
    return by_parser(target, checkout)[case].get("refused") if checkout else by_options(target, given)


@pytest.mark.parametrize(("target", "checkout"), READERS)
@pytest.mark.parametrize("name", PLANS)
def test_it_takes_every_plan(name: str, target: str, checkout: str) -> None:
    assert refusal(target, checkout, name, words_of(target, name)) is None
    if checkout:
        understood, layout = by_parser(target, checkout)[name], plan_for(target, name).layout.layout()
        assert understood["tensor_model_parallel_size"] == layout.tensor_parallel
        assert understood["pipeline_model_parallel_size"] == layout.pipeline_parallel
        assert understood["context_parallel_size"] == layout.context_parallel
        assert understood["data_parallel_size"] == layout.data_parallel
        assert understood["expert_model_parallel_size"] == layout.expert_parallel
        assert understood["sequence_parallel"] is (layout.sequence_parallel and layout.tensor_parallel > 1)
        assert (understood["virtual_pipeline_model_parallel_size"] or 1) == layout.virtual_pipeline


SHOWN = [
    (target, checkout, broken)
    for target, checkout in READERS
    for broken, (_, _, listed) in breaks_of(target).items()
    if listed or checkout
]


@pytest.mark.parametrize(("target", "checkout", "broken"), SHOWN)
def test_it_refuses_what_is_broken(target: str, checkout: str, broken: str) -> None:
    name, change, _ = breaks_of(target)[broken]
    assert refusal(target, checkout, broken, change(words_of(target, name))) is not None
