"""What a plan picks of the layouts of one job that were measured, where it may choose among those alone.

The search, held by limits to one measured layout after another, comes to the very times that
planner/accuracy/ranking.py ranks: so it picks the same, and is within the bars of "ranking" wherever that is.
"""

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from meshwright.catalog.lookup import entry_names, stack_named
from meshwright.catalog.stack_entry import StackEntry
from meshwright.costmodels.layout import Layout, Recompute
from meshwright.planner.accuracy import Accuracy
from meshwright.planner.accuracy.bars import RANKED
from meshwright.planner.accuracy.case_cluster import Machine, machine_named
from meshwright.planner.accuracy.estimate import job_of_case
from meshwright.planner.accuracy.ranking import Candidate
from meshwright.planner.layout.limited_fields import CLOSED, DEGREES
from meshwright.planner.layout.limits import Limits
from meshwright.planner.layout.objective import Objective
from meshwright.planner.layout.question import Question
from meshwright.planner.layout.search import search
from meshwright.planner.layout.told import SHARDED_FROM
from meshwright.planner.targets import unrestricted

# Whatever was measured ran, whether or not it fits by our account of memory.
NO_LIMIT_BYTES = 10**15


@cache
def stacks() -> tuple[StackEntry, ...]:
    return tuple(stack_named(name) for name in entry_names("stacks"))


@cache
def machine(device: str) -> Machine:
    return machine_named(device)


def searched_s(candidate: Candidate) -> float:
    """Give the step of the only layout that limits leave a search of the candidate's job, in seconds."""
    row = candidate.repeats[0]
    job, _ = job_of_case(row.case, machine(row.case.cluster.device), stacks())
    job = replace(job, stack=unrestricted(job.stack))
    question = Question(
        objective=Objective.TIME,
        memory_limit_bytes=NO_LIMIT_BYTES,
        top=0,
        limits=only(row.prediction.layout, layers=len(job.model.layers)),
    )
    return search([job], question).best.step_time_s


def only(layout: Layout, *, layers: int) -> Limits:
    """Give the limits that leave one layout alone."""
    fix = {name: getattr(layout, name) for name in (*DEGREES, *CLOSED)}
    fix = {name: value if isinstance(value, bool | int) else str(value) for name, value in fix.items()}
    fix["split"] = "-".join(map(str, layout.split)) or "even"
    for shard, size in {"zero_shard": layout.zero_shard, **layout.shards}.items():
        if layout.zero_stage >= SHARDED_FROM[shard] and layout.data_parallel * layout.context_parallel > 1:
            fix[shard] = size
    if layout.data_parallel * layout.context_parallel == 1:
        del fix["zero_stage"]  # there is nothing to shard
    if layout.recompute is Recompute.FULL:
        chunks = layout.pipeline_parallel * layout.virtual_pipeline
        fix["recompute_layers"] = layout.recompute_layers or max(layout.split or (-(-layers // chunks),))
    return Limits(fix=fix)


def in_space(candidate: Candidate) -> bool:
    """Say whether a layout is in the space, which has no chunks without layers."""
    layout, model = candidate.repeats[0].prediction.layout, candidate.repeats[0].case.model
    return layout.pipeline_parallel * layout.virtual_pipeline <= model.layers


@pytest.mark.parametrize(
    ("file", "whole"),
    [("bigscience_bloom", 13), ("megatron_moe_zoo", 1), ("simumax", 8), ("vtrain_multi", 2), ("zero_bubble", 5)],
)
def test_a_plan_of_measured_layouts_picks_what_the_ranking_does(shipped: Accuracy, file: str, whole: int) -> None:
    (ranking,) = [each for each in shipped.rankings if Path(each.file).stem == file]
    groups = [group for group in ranking.groups if all(map(in_space, group.candidates))]
    assert len(groups) == whole
    for group in groups:
        times_s = {candidate.name: searched_s(candidate) for candidate in group.candidates}
        assert times_s == {one.name: pytest.approx(one.predicted_s, rel=1e-8) for one in group.candidates}
        picked = min(group.candidates, key=lambda one: (times_s[one.name], -one.measured_s))
        assert picked.measured_s / group.best.measured_s == pytest.approx(group.over_best, rel=1e-9)


def test_every_ranked_source_is_planned_for() -> None:
    assert {"bigscience_bloom", "megatron_moe_zoo", "simumax", "vtrain_multi", "zero_bubble"} == RANKED
