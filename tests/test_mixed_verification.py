"""`meshwright verify` of mixed plans: every field that is changed is found, but for those that nothing else tells."""

import copy
from collections.abc import Iterator
from itertools import permutations
from typing import Any

import jsonschema
import pytest
from edited_documents import change
from pydantic import ValidationError

from meshwright.planner.mixed.plan_file import mixed_plan_json_schema
from meshwright.planner.mixed.plan_schema import MixedPlan
from meshwright.planner.mixed.planning import plan_mixed
from meshwright.planner.verification.check import Outcome
from meshwright.planner.verification.mixed import verify_mixed
from meshwright.planner.verification.mixed.search import every_shape

JOB = {"sequence_length": 2048, "precision": "bf16", "objective": "time", "top": 0, "memory_headroom": 0.05}
# What a plan says once, so that nothing in it contradicts another value: words, what another layout would take, how a
# stage that isn't the busiest does, and bounds of shapes that don't count.
SAID_ONCE = {
    "predicted.wider_because.#",
    "search.shapes.#.bound_s",
    "search.shapes.#.step_time_s",
    "mixed.chains.#.exposed_s",
    "mixed.chains.#.buffered",
    "mixed.chains.#.layouts.#.zero_stage",
    "mixed.chains.#.layouts.#.sequence_parallel",
    "mixed.chains.#.layouts.#.gradient_shard",
    "mixed.chains.#.layouts.#.parameter_shard",
    "mixed.chains.#.layouts.#.backward_shard",
    "mixed.chains.#.stages.#.forward_s",
    "mixed.chains.#.stages.#.backward_s",
    "mixed.chains.#.stages.#.end_s",
    "mixed.chains.#.stages.#.peak_bytes",
}
# Words.
OF_WAYS = {"mixed.way.trades"}


@pytest.fixture(scope="module")
def plans() -> dict[str, MixedPlan]:
    """Give a plan whose islands train replicas, one whose pipeline crosses, and one with a way that was allowed."""
    several = {"links": ["400 Gb/s, 0.1 ms, 0.01 USD/GB"], **JOB}
    across = {"fix": {"data_parallel": 1, "context_parallel": 1}, "max": {"tensor_parallel": 4}}
    slow = {"links": ["1 Gb/s, 20 ms"], "allow": ["diloco:50"], "limits": {"fix": {"pipeline_parallel": 1}}, **JOB}
    fuller = several | {"sequence_length": 8192, "limits": {"fix": {"pipeline_parallel": 1}}}
    return {
        "short of memory": plan_mixed("llama-3.1-70b", "selene:32+dgx-h100:32", global_batch=128, **fuller),
        "apart": plan_mixed("llama-3.1-8b", "selene:8+dgx-h100:8", global_batch=100, **several),
        "across": plan_mixed("llama-3.1-8b", "selene:8+dgx-h100:8", global_batch=64, limits=across, **several),
        "allowed": plan_mixed("llama-3.1-8b", "selene:8+dgx-h100:8", global_batch=100, **slow),
        "paired": plan_mixed(
            "llama-3.1-8b", "selene:8+dgx-h100:8", global_batch=100, **slow | {"allow": ["noloco:5000"]}
        ),
        "late": plan_mixed("llama-3.1-8b", "selene:8+dgx-h100:8", global_batch=100, **slow | {"allow": ["co2:5000"]}),
    }


def leaves(part: object, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], object]]:
    """Give every value of a document with its path; an empty list is one."""
    if isinstance(part, dict):
        for key, value in part.items():
            yield from leaves(value, (*path, key))
    elif isinstance(part, list) and part:
        for number, value in enumerate(part):
            yield from leaves(value, (*path, number))
    else:
        yield path, part


def another(value: object) -> object:
    """Give a value of the same kind that says something else."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + max(value // 10, 1)
    if isinstance(value, float):
        return value * 1.25 + 1e-3
    return f"{value} x" if isinstance(value, str) else [1] if isinstance(value, list) else 1


def holds(document: dict[str, Any]) -> bool:
    """Tell whether a document is a mixed plan of which all checks hold."""
    try:
        plan = MixedPlan.model_validate(document)
    except ValidationError:
        return False
    return all(check.outcome is Outcome.OK for check in verify_mixed(plan))


@pytest.mark.parametrize("name", ["apart", "across", "allowed", "paired", "late", "short of memory"])
def test_every_field_that_is_changed_is_found(plans: dict[str, MixedPlan], name: str) -> None:
    document = plans[name].model_dump(mode="json")
    assert holds(document)
    missed = set()
    for section in ("mixed", "predicted", "search"):
        for path, value in leaves(document[section], (section,)):
            changed = copy.deepcopy(document)
            change(changed, ".".join(map(str, path)), another(value))
            if holds(changed):
                missed.add(".".join("#" if isinstance(key, int) else key for key in path))
    assert missed <= SAID_ONCE | OF_WAYS


def test_gradients_of_fp16_are_sent_in_two_bytes() -> None:
    # Megatron-Core adds them up in fp16: 2 bytes of 8.03 billion parameters each way over the link.
    job = JOB | {"precision": "fp16"}
    plan = plan_mixed(
        "llama-3.1-8b", "selene:8+dgx-h100:8", global_batch=100, links=["400 Gb/s, 0.1 ms, 0.01 USD/GB"], **job
    )
    assert holds(plan.model_dump(mode="json"))
    assert plan.mixed.exchange is not None
    assert plan.mixed.exchange.sent_bytes == pytest.approx(2 * 2 * 8.03e9, rel=1e-3)


@pytest.mark.parametrize(
    ("name", "path", "value", "told"),
    [
        ("across", "mixed.chains.0.layouts.0.split", [1, 2], "mixed.chains.0.layouts.0.split"),
        ("across", "mixed.chains.0.crossing_s", [], "mixed.chains.0.crossing_s"),
        ("across", "mixed.shape", "x", "mixed.shape"),
        ("apart", "mixed.islands.0.nodes", [0, 99], "mixed.islands.0.nodes"),
        ("apart", "mixed.islands.1.name", "selene", "mixed.islands.1.name"),
        ("apart", "mixed.islands.0.memory_limit_bytes", 10**12, "mixed.islands.0.memory_limit_bytes"),
        ("apart", "mixed.islands.0.memory_limit_bytes", 0, "mixed.islands.0.memory_limit_bytes"),
        ("apart", "mixed.exchange.across", "copies", "mixed.exchange.gradients_s"),
        ("apart", "mixed.chains.0.replicas.0.replicas", 10**9, "mixed.chains.0.replicas"),
        ("apart", "mixed.chains.0.replicas.0.sequences", 10**9, "mixed.chains.0.replicas.0.sequences"),
        ("allowed", "mixed.way.name", "noloco", "mixed.way.name"),
        ("paired", "mixed.way.settings.pair_s", 1.0, "mixed.way.settings.pair_s"),
        ("paired", "mixed.way.settings.bytes_a_value", 0.4, "mixed.way.settings.bytes_a_value"),
        ("paired", "mixed.chains.0.exposed_s", 1.0, "mixed.chains.0.exposed_s"),
        ("late", "mixed.way.settings.sum_s", 1.0, "mixed.way.settings.sum_s"),
        ("late", "mixed.chains.0.exposed_s", 9.0, "mixed.chains.0.exposed_s"),
        ("allowed", "mixed.way.settings.fragment_s", 1.0, "mixed.way.settings.fragment_s"),
        ("allowed", "mixed.chains.1.exposed_s", 9.0, "mixed.chains.1.exposed_s"),
        ("apart", "mixed.chains.0.layouts.0.recompute_layers", 33, "mixed.chains.0.layouts.0.recompute_layers"),
        (
            "short of memory",
            "mixed.chains.0.layouts.0.recompute_layers",
            14,
            "mixed.chains.0.layouts.0.recompute_layers",
        ),
        ("short of memory", "mixed.chains.1.layouts.0.recompute_layers", None, "mixed.chains.1.layouts.0.recompute"),
        ("apart", "mixed.chains.0.layouts.0.pipeline_parallel", 10**9, "mixed.chains.0.stages"),
        ("apart", "mixed.chains.0.layouts.0.virtual_pipeline", 10**9, "mixed.chains.0.layouts.virtual_pipeline"),
        ("apart", "mixed.chains.0.layouts.0.ulysses_parallel", 4, "mixed.chains.0.layouts.0.ulysses_parallel"),
        ("apart", "search.shapes.0.bound_s", 1.0, "search.lower_bound"),
        ("apart", "search.shapes.1.step_time_s", 1e9, "search.shapes.2"),
        ("apart", "predicted.interval_level", 0.45, "predicted.interval_level"),
        ("allowed", "mixed.way.settings.local_steps", 51.0, "mixed.way.settings.local_steps"),
        ("paired", "mixed.way.settings.local_steps", 0.0, "mixed.way.settings.local_steps"),
        ("allowed", "mixed.way.settings.local_steps", 0.0, "mixed.way.settings.local_steps"),
    ],
)
def test_the_broken_field_is_named(plans: dict[str, MixedPlan], name: str, path: str, value: object, told: str) -> None:
    document = plans[name].model_dump(mode="json")
    change(document, path, value)
    checks = verify_mixed(MixedPlan.model_validate(document))
    assert told in [failure.path for check in checks for failure in check.failures]


@pytest.mark.parametrize("islands", [1, 2, 3, 4])
def test_shapes_are_all_sets_of_orders(islands: int) -> None:
    """Against every permutation of islands and separators, with chains as a set."""
    counted = set()
    for order in permutations(range(islands)):
        for cuts in range(2 ** max(islands - 1, 0)):
            chains, chain = [], [order[0]]
            for place, island in enumerate(order[1:]):
                if cuts >> place & 1:
                    chains.append(tuple(chain))
                    chain = []
                chain.append(island)
            chains.append(tuple(chain))
            for kept in range(1, 2 ** len(chains)):
                counted.add(frozenset(each for number, each in enumerate(chains) if kept >> number & 1))
    assert {frozenset(shape) for shape in every_shape(islands)} == counted


def test_many_islands_are_alone_or_idle() -> None:
    assert len(every_shape(6)) == 2**6 - 1
    assert all(len(chain) == 1 for shape in every_shape(6) for chain in shape)


def test_a_mixed_plan_obeys_its_schema(plans: dict[str, MixedPlan]) -> None:
    schema = mixed_plan_json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    for plan in plans.values():
        document = plan.model_dump(mode="json")
        assert list(validator.iter_errors(document)) == []
        for section, field, value in (("predicted", "mfu", 0), ("search", "gap", -1), ("mixed", "crossing", "x")):
            damaged = copy.deepcopy(document)
            damaged[section][field] = value
            assert len(list(validator.iter_errors(damaged))) == 1, field
