"""Limits: what they keep against plain loops, what contradicts, and what is said where they leave nothing."""

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
from typer.testing import CliRunner

from meshwright.catalog.cluster_entry import ClusterEntry
from meshwright.catalog.document import validate
from meshwright.catalog.errors import Infeasible, InputError
from meshwright.catalog.model_entry import ModelEntry
from meshwright.catalog.stack_entry import Partition, RecomputeBy, Splits
from meshwright.cli.app import app
from meshwright.costmodels.job import Job
from meshwright.costmodels.layout import Layout, LayoutTable
from meshwright.costmodels.predict import predict_memory, predict_time
from meshwright.planner import check_plan, plan
from meshwright.planner.consistency import contradictions
from meshwright.planner.layout.cuts import cut_problems
from meshwright.planner.layout.least_recomputed import every_count
from meshwright.planner.layout.limit_words import limits_of
from meshwright.planner.layout.limits import Limits
from meshwright.planner.layout.objective import Objective
from meshwright.planner.layout.question import Question
from meshwright.planner.layout.search import search
from meshwright.planner.layout.space import space_of

MakeJob = Callable[..., Job]
LIMIT = 80 * 2**30


def limits(**given: object) -> Limits:
    return validate(Limits, given, file="", path="limits")


def layouts_of(job: Job, limits: Limits | None = None) -> list[Layout]:
    space = space_of(job, limits)
    table, _ = every_count(job, space.table(space.leaves(space.twigs(space.branches.rows).rows).rows), limits=limits)
    return [table.row(row) for row in range(len(table))]


@pytest.fixture(scope="module")
def job(toy_job: MakeJob) -> Job:
    return toy_job(8, global_batch=8, hidden=2048, heads=16, kv_heads=8, ffn_hidden=8192, layers=8)


CASES: list[tuple[dict[str, Any], Callable[[Layout], bool]]] = [
    ({"fix": {"tensor_parallel": 4}}, lambda layout: layout.tensor_parallel == 4),
    ({"fix": {"sequence_parallel": True}}, lambda layout: layout.sequence_parallel),
    ({"fix": {"schedule": "gpipe"}}, lambda layout: layout.schedule == "gpipe"),
    (
        {"forbid": {"schedule": ["1f1b", "interleaved"]}},
        lambda layout: layout.pipeline_parallel == 1 or layout.schedule not in {"1f1b", "interleaved"},
    ),
    ({"forbid": {"recompute": ["none"]}}, lambda layout: layout.recompute != "none"),
    (
        {"max": {"pipeline_parallel": 2, "zero_stage": 1}},
        lambda one: one.pipeline_parallel <= 2 and one.zero_stage <= 1,
    ),
    (
        {"fix": {"pp": 2, "virtual-pipeline": 2}, "max": {"micro_batch": 3}},
        lambda one: (one.pipeline_parallel, one.virtual_pipeline) == (2, 2) and one.micro_batch <= 3,
    ),
    ({"fix": {"recompute_layers": 2}}, lambda layout: recomputed(layout) == 2),
    ({"max": {"recompute_layers": 3}}, lambda layout: recomputed(layout) <= 3),
    (
        {"forbid": {"recompute_layers": [1, 2, 8]}, "fix": {"recompute": "full"}},
        lambda one: one.recompute == "full" and recomputed(one) not in {1, 2, 8},
    ),
]


def recomputed(layout: Layout) -> int:
    """Give how many layers of the largest of the chunks of eight layers are computed again whole."""
    if layout.recompute != "full":
        return 0
    return layout.recompute_layers or -(-8 // (layout.pipeline_parallel * layout.virtual_pipeline))


def over(layout: Layout, shard: str) -> int:
    """Give over how many devices what the ZeRO stage shards is."""
    sharded = layout.zero_stage >= {"zero_shard": 1, "gradient_shard": 2}.get(shard, 3)
    return {"zero_shard": layout.zero_shard, **layout.shards}[shard] if sharded else 1


@pytest.mark.parametrize(
    ("given", "keeps"),
    [
        ({"fix": {"ulysses_parallel": 2}}, lambda layout: layout.ulysses_parallel == 2),
        ({"fix": {"zero_shard": 4}}, lambda one: over(one, "zero_shard") == 4),
        ({"fix": {"gradient_shard": 4}}, lambda one: over(one, "gradient_shard") == 4),
        ({"fix": {"parameter_shard": 1, "zero_stage": 2}}, lambda one: one.zero_stage == 2),
        ({"max": {"backward_shard": 4}}, lambda one: over(one, "backward_shard") <= 4),
        (
            {"forbid": {"zero_shard": [4, 16], "parameter_shard": 1}},
            lambda one: over(one, "zero_shard") not in {4, 16} and over(one, "parameter_shard") > 1,
        ),
        (
            {"fix": {"zero_shard": 16, "backward_shard": 8}, "max": {"parameter_shard": 8}},
            lambda one: (
                [over(one, name) for name in ("zero_shard", "backward_shard")] == [16, 8]
                and over(one, "parameter_shard") <= 8
            ),
        ),
    ],
)
def test_shards_are_limited_by_what_is_sharded(
    toy_job: MakeJob, given: dict[str, Any], keeps: Callable[[Layout], bool]
) -> None:
    """Two nodes of eight: over the replicas of a node, over all, and the levels between."""
    plain = toy_job(16, global_batch=16, heads=2, kv_heads=2, layers=2)
    job = replace(plain, stack=plain.stack.model_copy(update={"partitions": tuple(Partition)}))
    every, asked = layouts_of(job), limits(**given)
    kept = [layout for layout in every if keeps(layout)]
    assert 0 < len(kept) < len(every)
    assert layouts_of(job, asked) == kept
    assert [layout for layout in every if not asked.broken_by(layout, layers=2)] == kept


def test_a_fixed_split_is_that_of_every_layout(job: Job) -> None:
    sizes = (1, 3, 2, 2)
    found = layouts_of(job, limits(fix={"split": "1-3-2-2"}))
    assert {(layout.pipeline_parallel, layout.virtual_pipeline) for layout in found} == {(4, 1), (2, 2)}
    assert {layout.split for layout in found} == {sizes}
    # The largest chunk has three layers, of which two at most are recomputed while one isn't.
    assert {layout.recompute_layers for layout in found} == {None, 1, 2}
    evenly = [layout for layout in layouts_of(job) if layout.pipeline_parallel * layout.virtual_pipeline == 4]
    assert {replace(layout, split=()) for layout in found if layout.recompute_layers is None} == {
        layout for layout in evenly if layout.recompute_layers is None
    }
    assert layouts_of(job, limits(fix={"split": [2, 2, 2, 2]})) == evenly
    assert layouts_of(job, limits(fix={"split": "even"})) == layouts_of(job)
    asked = limits(fix={"split": "1-3-2-2"})
    assert asked.broken_by(evenly[0], layers=8) == ("--fix split=1-3-2-2",)
    assert asked.broken_by(found[0], layers=8) == ()


@pytest.mark.parametrize("by", list(RecomputeBy))
def test_the_best_of_a_fixed_split_is_that_of_every_choice_by_stage(job: Job, by: RecomputeBy) -> None:
    sizes, modes = (3, 5), [None, *product(range(4), range(6))]
    stack = job.stack.model_copy(update={"recompute_by": by, "partitions": (Partition.UNIFORM,)})
    job = replace(job, stack=stack, global_batch=64, sequence_length=8192)
    fix = {"split": "3-5", "pipeline_parallel": 2, "tp": 4, "schedule": "1f1b", "vocabulary_parallel": False}
    result = search(
        [job], Question(objective=Objective.TIME, memory_limit_bytes=LIMIT // 5, top=0, limits=limits(fix=fix))
    )

    def choices(layout: Layout) -> list[Layout]:
        if by is not RecomputeBy.STAGE or layout.recompute == "none" or layout.recompute_layers:
            return [layout]
        return [replace(layout, recompute_split=counts) for counts in modes if counts is None or any(counts)]

    every = [one for layout in layouts_of(job, limits(fix=fix)) for one in choices(layout)]
    every = [replace(one, recompute_split=one.recompute_split or ()) for one in every]
    table = LayoutTable.of(every)
    fits = predict_memory(job, table).nvidia_smi_bytes <= LIMIT // 5
    times = predict_time(job, table).step_time_s[fits]
    assert result.best.layout.split == sizes
    assert result.best.step_time_s == result.lower_bound == float(f"{times.min():.9g}")


def test_software_that_cuts_evenly_has_no_other_split(job: Job) -> None:
    evenly = replace(job, stack=job.stack.model_copy(update={"splits": Splits.EVEN}))
    question = Question(objective=Objective.TIME, memory_limit_bytes=LIMIT, top=0, limits=limits(fix={"split": "3-5"}))
    with pytest.raises(Infeasible) as caught:
        search([evenly], question)
    assert "the training software cuts layers evenly alone" in caught.value.rejected
    assert caught.value.hint == "with the rest as it is, legal would be split=even"
    assert search([job], question).best.layout.split == (3, 5)


@pytest.mark.parametrize(("given", "keeps"), CASES)
def test_limits_keep_what_a_loop_keeps(job: Job, given: dict[str, Any], keeps: Callable[[Layout], bool]) -> None:
    every = layouts_of(job)
    kept = [layout for layout in every if keeps(layout)]
    asked = limits(**given)
    assert 0 < len(kept) < len(every)
    assert layouts_of(job, asked) == kept
    assert [layout for layout in every if not asked.broken_by(layout, layers=8)] == kept


@pytest.mark.parametrize(("given", "keeps"), CASES)
def test_the_best_within_limits_is_that_of_a_loop(
    job: Job, given: dict[str, Any], keeps: Callable[[Layout], bool]
) -> None:
    space = space_of(job)
    table, _ = every_count(job, space.table(space.leaves(space.twigs(space.branches.rows).rows).rows))
    times, memory = predict_time(job, table).step_time_s, predict_memory(job, table).nvidia_smi_bytes
    least = min(times[row] for row in range(len(table)) if memory[row] <= LIMIT and keeps(table.row(row)))
    question = Question(objective=Objective.TIME, memory_limit_bytes=LIMIT, top=2, limits=limits(**given))
    result = search([job], question)
    assert result.best.step_time_s == result.lower_bound == float(f"{least:.9g}")
    assert all(keeps(found.layout) for found in (result.best, *result.alternatives))
    assert result.candidates == space.candidates == result.feasible + sum(result.rejected.values())


def test_fixed_experts(toy_job: MakeJob) -> None:
    job = toy_job(8, global_batch=8, layers=4, experts={"experts": 8, "top_k": 2, "ffn_hidden": 96})
    asked = limits(fix={"ep": 4, "etp": 2})
    every, kept = layouts_of(job), layouts_of(job, asked)
    assert kept == [one for one in every if (one.expert_parallel, one.expert_tensor_parallel) == (4, 2)] != []


@pytest.mark.parametrize(
    ("given", "path", "complaint"),
    [
        ({"fix": {"tensor_parallel": 0}}, "limits.fix.tensor_parallel", "from 1 to"),
        ({"max": {"pp": 0}}, "limits.max.pp", "from 1 to"),
        ({"fix": {"tensor_parallel": True}}, "limits.fix.tensor_parallel", "not true"),
        ({"fix": {"tensor_parallel": 10**30}}, "limits.fix.tensor_parallel", "from 1 to"),
        ({"fix": {"zero_stage": 4}}, "limits.fix.zero_stage", "one of 0, 1, 2, 3, not 4"),
        ({"fix": {"zero_stage": False}}, "limits.fix.zero_stage", "not false"),
        ({"fix": {"schedule": "fast"}}, "limits.fix.schedule", "one of gpipe, 1f1b"),
        ({"max": {"schedule": 1}}, "limits.max.schedule", "has no order"),
        ({"fix": {"colour": 1}}, "limits.fix.colour", "no field of a layout is called 'colour'"),
        ({"fix": {"pp": 4}, "max": {"pp": 2}}, "limits.fix.pipeline_parallel", "at most 2 is asked for too"),
        ({"fix": {"pp": 4}, "forbid": {"pp": [4]}}, "limits.fix.pipeline_parallel", "forbidden too"),
        ({"forbid": {"recompute": ["none", "selective", "full"]}}, "limits.forbid.recompute", "leaves no value"),
        ({"forbid": {"zero_stage": [0, 1]}, "max": {"zero_stage": 1}}, "limits.forbid.zero_stage", "leaves no value"),
        ({"forbid": {"tp": [1, 2]}, "max": {"tp": 2}}, "limits.forbid.tensor_parallel", "leaves no value"),
        ({"fix": 3}, "limits.fix", "must be keys with values"),
        ({"fix": {"recompute_split": "1-2"}}, "limits.fix.recompute_split", "limit one of those"),
        ({"fix": {"zero_shard": 0}}, "limits.fix.zero_shard", "from 1 to"),
        ({"fix": {"split": "4"}}, "limits.fix.split", "must be even, or the layers of each chunk"),
        ({"fix": {"split": "0-4"}}, "limits.fix.split", "not 0-4"),
        ({"forbid": {"split": "even"}}, "limits.forbid.split", "can't be forbidden"),
        ({"max": {"split": 4}}, "limits.max.split", "has no order; fix one"),
        ({"least": {}}, "limits.least", "is not a known key"),
    ],
)
def test_limits_that_cannot_be_meant(given: dict[str, Any], path: str, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint) as caught:
        limits(**given)
    assert caught.value.path == path


def test_limits_in_words() -> None:
    told = limits_of(fix=["tp=8", "sequence-parallel=true"], forbid=["schedule=gpipe", "schedule=1f1b"], most=["pp=4"])
    assert limits(**told).options() == (
        "--fix tensor_parallel=8",
        "--fix sequence_parallel=true",
        "--forbid schedule=gpipe",
        "--forbid schedule=1f1b",
        "--max pipeline_parallel=4",
    )
    assert limits_of(fix=["tp=8", "tensor_parallel=8"])["fix"] == {"tensor_parallel": 8}
    with pytest.raises(InputError, match="--fix tensor_parallel: is given as both 8 and 4"):
        limits_of(fix=["tp=8", "tensor-parallel=4"])
    for word in ("tp", "tp=", "=8", ""):
        with pytest.raises(InputError, match="must be FIELD=VALUE"):
            limits_of(forbid=[word])


def test_what_would_be_possible_is_said(job: Job) -> None:
    def refused(**given: object) -> Infeasible:
        with pytest.raises(Infeasible) as caught:
            search([job], replace(question, limits=limits(**given)))
        return caught.value

    question = Question(objective=Objective.TIME, memory_limit_bytes=LIMIT, top=0)
    three = refused(fix={"tp": 3})
    assert "under --fix tensor_parallel=3 is legal" in three.message
    assert three.hint == "with the rest as it is, legal would be tensor_parallel=1|2|4|8"
    assert three.rejected == {"--fix tensor_parallel=3 asks otherwise": space_of(job).candidates}
    flat = refused(fix={"schedule": "gpipe"}, max={"pp": 1})
    assert flat.hint == "with the rest as it is, legal would be pipeline_parallel=2|4|8, or schedule=1f1b"
    assert refused(fix={"recompute_layers": 99}).hint == (
        "with the rest as it is, legal would be recompute_layers=1|2|3|4|5|6|7|8"
    )
    assert refused(fix={"split": "3-4"}).hint == "with the rest as it is, legal would be a split of 8 layers"
    assert refused(fix={"zero_shard": 3}).hint == "with the rest as it is, legal would be zero_shard=1|2|4|8"
    assert "leave out more than one" in refused(fix={"tp": 8, "pp": 8, "dp": 8}).hint


def test_a_plan_keeps_its_limits(
    toy_model: Callable[..., ModelEntry], toy_cluster: Callable[..., ClusterEntry]
) -> None:
    free = plan(toy_model(), toy_cluster(8), global_batch=16, sequence_length=2048)
    other = 2 if free.layout.tensor_parallel == 1 else 1
    made = plan(toy_model(), toy_cluster(8), global_batch=16, sequence_length=2048, limits=limits(fix={"tp": other}))
    assert made.layout.tensor_parallel == other
    assert {one.layout.tensor_parallel for one in made.alternatives} == {other}
    assert made.predicted.step_time_s >= free.predicted.step_time_s
    assert check_plan(made) == ()
    assert list(contradictions(made)) == []
    asked = {
        "inputs": made.inputs.model_copy(
            update={"job": free.inputs.job.model_copy(update={"limits": limits(fix={"tp": 4})})}
        )
    }
    assert (
        "isn't within what --fix tensor_parallel=4 asks for"
        in dict(contradictions(made.model_copy(update=asked)))["layout"]
    )


def test_limits_on_the_command_line() -> None:
    words = ["plan", "llama-3.1-8b", "dgx-h100:8", "--global-batch", "64", "--sequence-length", "4096"]
    result = CliRunner().invoke(app, [*words, "--fix", "tp=4", "--forbid", "schedule=1f1b", "--max", "pp=2"])
    assert result.exit_code == 0
    assert "asked for: --fix tensor_parallel=4 --forbid schedule=1f1b --max pipeline_parallel=2" in result.stdout


def test_uneven_cuts_keep_limits_too(job: Job) -> None:
    def problems(**given: object) -> set[tuple[str, str]]:
        space = space_of(job)
        twigs = space.table(space.twigs(space.branches.rows).rows)
        found = cut_problems(job, twigs, memory_limit_bytes=LIMIT, below_s=1e3, limits=limits(**given))
        rows = [found.layouts.row(row) for row in range(len(found))]
        return {(str(one.schedule), str(one.recompute)) for one in rows}

    assert {recompute for _, recompute in problems()} == {"selective", "full"}  # none is full of no layers
    assert {schedule for schedule, _ in problems(fix={"schedule": "gpipe"})} == {"gpipe"}
    assert {recompute for _, recompute in problems(forbid={"recompute": ["full"]})} == {"none", "selective"}
    assert {recompute for _, recompute in problems(fix={"recompute": "none"})} == {"none"}
    for given in ({"fix": {"recompute": "full"}}, {"fix": {"vp": 2}}, {"fix": {"vocabulary_parallel": True}}):
        assert problems(**given) == set()
