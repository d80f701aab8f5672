"""Megatron-LM's command line: the list of its parser's options, and its parser itself where MEGATRON_LM is a checkout.

One process answers for all command lines, as rank 0 of each world.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from emitted_plans import PLANS, plan_named

from meshwright.planner.emission.megatron.arguments import words
from meshwright.planner.emission.megatron.environment import environment
from meshwright.planner.emission.megatron.files import arguments

TESTS = Path(__file__).parent.parent
OPTIONS: dict[str, dict[str, Any]] = json.loads((TESTS / "megatron" / "d98e8a64.json").read_text())["options"]
TYPES: Mapping[str, Callable[[str], object]] = {"int": int, "float": float, "str": str}
# What a run needs beside a plan: data, and how long.
RUN = ["--mock-data", "--tokenizer-type", "NullTokenizer", "--train-iters", "1", "--lr", "1e-4"]
CHECKOUT = os.environ.get("MEGATRON_LM")


def words_of(name: str) -> list[str]:
    return list(words(arguments(plan_named(name))))


def case_of(name: str, given: Sequence[str]) -> dict[str, Any]:
    plan = plan_named(name)
    variables = {key: value for key, value in environment(plan).items() if value is not None}
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
    "unknown method": ("long-context", changed("--cp-comm-type", "--no-such"), True),
    "unknown granularity": ("dense-3d", changed("--recompute-granularity", "some"), True),
    "degree that doesn't multiply": ("dense-3d", changed("--tensor-model-parallel-size", "7"), False),
    "batch that isn't whole": ("dense-3d", changed("--global-batch-size", "1535"), False),
    "layers lost": ("uneven", changed("--pipeline-model-parallel-layout", "Et*7|" + "t*8|" * 14 + "t*6L"), False),
    "experts that can't be shared": ("moe", changed("--expert-model-parallel-size", "7"), False),
    "sharding without its kind": ("hsdp", changed("--data-parallel-sharding-strategy", "everything"), True),
    "heads that can't be shared": ("gqa-tensor", changed("--num-attention-heads", "63"), False),
    "recomputation without layers": ("gqa-tensor", changed("--recompute-method", "whole"), True),
}


def by_options(given: Sequence[str]) -> str | None:
    """Give why the list of options refuses a command line."""
    found: dict[str, list[str]] = {}
    for word in given:
        if word.startswith("--"):
            found[word] = last = []
        else:
            last.append(word)
    for option, values in found.items():
        known = OPTIONS.get(option)
        if known is None:
            return f"{option}: unknown"
        if known["values"] not in (len(values), "+") or (known["values"] == "+" and not values):
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
def by_parser(checkout: str) -> dict[str, dict[str, Any]]:
    """Give the answers of the parser, by name of plan or break."""
    cases = {name: case_of(name, words_of(name)) for name in PLANS}
    cases |= {broken: case_of(name, change(words_of(name))) for broken, (name, change, _) in BREAKS.items()}
    run = subprocess.run(
        [sys.executable, str(Path(__file__).parent / "megatron_parser.py"), checkout],
        input=json.dumps(list(cases.values())),
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(zip(cases, map(json.loads, run.stdout.splitlines()), strict=True))


READERS = ["options", *(["parser"] if CHECKOUT else [])]


def refusal(reader: str, name: str, given: list[str]) -> str | None:
    return by_options(given) if reader == "options" else by_parser(str(CHECKOUT))[name].get("refused")


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", PLANS)
def test_it_takes_every_plan(name: str, reader: str) -> None:
    assert refusal(reader, name, words_of(name)) is None
    if reader == "parser":
        layout, understood = plan_named(name).layout.layout(), by_parser(str(CHECKOUT))[name]
        assert understood["tensor_model_parallel_size"] == layout.tensor_parallel
        assert understood["pipeline_model_parallel_size"] == layout.pipeline_parallel
        assert understood["context_parallel_size"] == layout.context_parallel
        assert understood["data_parallel_size"] == layout.data_parallel
        assert understood["expert_model_parallel_size"] == layout.expert_parallel
        assert understood["sequence_parallel"] is (layout.sequence_parallel and layout.tensor_parallel > 1)
        assert (understood["virtual_pipeline_model_parallel_size"] or 1) == layout.virtual_pipeline


SHOWN = [
    (reader, broken) for reader in READERS for broken, (_, _, listed) in BREAKS.items() if listed or reader == "parser"
]


@pytest.mark.parametrize(("reader", "broken"), SHOWN)
def test_it_refuses_what_is_broken(reader: str, broken: str) -> None:
    name, change, _ = BREAKS[broken]
    assert refusal(reader, broken, change(words_of(name))) is not None
