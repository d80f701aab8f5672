"""Risk by what a layout relies on: what was measured, what that does to intervals, and the plan that minds it."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from meshwright.catalog.cluster_entry import ClusterEntry
from meshwright.catalog.lookup import device_named
from meshwright.catalog.model_entry import ModelEntry
from meshwright.catalog.precision import PrecisionClass
from meshwright.catalog.schedule import Schedule
from meshwright.catalog.stack_entry import Splits
from meshwright.catalog.uncertainty import shipped_uncertainty
from meshwright.catalog.uncertainty_entry import SpreadEntry, UncertaintyEntry
from meshwright.costmodels.job import Job
from meshwright.costmodels.layout import Layout, LayoutTable
from meshwright.costmodels.predict import predict_memory, predict_time
from meshwright.planner import check_plan, plan
from meshwright.planner.accuracy import Accuracy
from meshwright.planner.accuracy.spread import practised_by
from meshwright.planner.consistency import contradictions
from meshwright.planner.layout.least_recomputed import least_recomputed
from meshwright.planner.layout.objective import Objective
from meshwright.planner.layout.question import Question
from meshwright.planner.layout.risk import Risk
from meshwright.planner.layout.search import search
from meshwright.planner.layout.space import space_of
from meshwright.planner.practices import beyond, practices_of
from meshwright.planner.uncertainty import Knowledge, Quantity, interval, reasons, upper_factors

MakeJob = Callable[..., Job]
LIMIT = 80 * 2**30
LAYOUTS = [
    Layout(),
    Layout(tensor_parallel=8, pipeline_parallel=2, zero_stage=2),
    Layout(context_parallel=2),
    Layout(expert_parallel=2, data_parallel=2),
    Layout(data_parallel=2, zero_stage=3),
    Layout(pipeline_parallel=2, schedule=Schedule.GPIPE),
    Layout(schedule=Schedule.GPIPE),
]
NAMED = [
    (),
    (),
    ("context parallelism",),
    ("expert parallelism",),
    ("ZeRO-3",),
    ("the schedule gpipe",),
    (),
]


def test_practices_by_hand() -> None:
    assert [practices_of(layout) for layout in LAYOUTS] == NAMED
    table = LayoutTable.of(LAYOUTS)
    assert beyond(table, ()).tolist() == [bool(names) for names in NAMED]
    known = ("ZeRO-3", "the schedule gpipe")
    assert beyond(table, known).tolist() == [bool(set(names) - set(known)) for names in NAMED]


def test_a_new_practice_widens_an_interval_like_a_new_family(toy_job: MakeJob) -> None:
    """Widths by hand: 0.3 alone, 0.5 with 0.4 of an unmeasured family, once for one new practice or for two."""
    spread = SpreadEntry(
        quantity="step_time", precision=PrecisionClass.HALF, inputs="told", factor=math.e**0.3, rows=30, sources=3
    )
    uncertainty = UncertaintyEntry(
        source="by hand",
        level=0.9,
        spreads=(spread,),
        unmeasured=math.e**0.4,
        covered={"toy": {PrecisionClass.HALF: 64}},
        practised={"toy": ("ZeRO-3",)},
    )
    job = toy_job(8)

    def width(*practices: str) -> float:
        found = interval(
            1.0,
            quantity=Quantity.STEP_TIME,
            job=job,
            knowledge=Knowledge.TOLD,
            uncertainty=uncertainty,
            practices=practices,
        )
        return math.log(found.high)

    assert width() == width("ZeRO-3") == pytest.approx(0.3)
    assert width("expert parallelism") == width("ZeRO-3", "expert parallelism", "the schedule zbv")
    assert width("expert parallelism") == pytest.approx(0.5)
    assert upper_factors(job, uncertainty) == pytest.approx((math.e**0.3, math.e**0.5))
    assert reasons(job, uncertainty, ("ZeRO-3",)) == ()
    assert reasons(job, uncertainty, ("ZeRO-3", "the schedule zbv")) == (
        "no measured step of the toy family had the schedule zbv",
    )


def test_the_catalog_knows_what_was_measured(shipped: Accuracy) -> None:
    practised = practised_by(shipped.rows, family_of=lambda name: device_named(name).family)
    assert practised == shipped_uncertainty().practised
    assert set(practised) == set(shipped_uncertainty().covered)
    assert "the schedule zb-h1" in practised["ampere"]  # Qi et al.'s A100s


@pytest.mark.parametrize(("usual", "new"), [(1.1, 1.1), (1.1, 1.15), (1.1, 3.0)])
def test_the_robust_choice_is_that_of_a_loop(toy_job: MakeJob, usual: float, new: float) -> None:
    job = toy_job(8, global_batch=8, hidden=4096, heads=32, kv_heads=8, ffn_hidden=14336, layers=8)
    job = replace(job, stack=job.stack.model_copy(update={"splits": Splits.EVEN}))  # as the loop knows no others
    space = space_of(job)
    table = space.table(space.leaves(space.twigs(space.branches.rows).rows).rows)
    table = least_recomputed(job, table, limit_bytes=LIMIT)
    times, fits = predict_time(job, table).step_time_s, predict_memory(job, table).nvidia_smi_bytes <= LIMIT
    risk = Risk(usual=usual, new=new, practised=("the schedule interleaved",))
    factors = np.array(
        [new if set(practices_of(table.row(row))) - set(risk.practised) else usual for row in range(len(table))]
    )
    assert risk.factors(table).tolist() == factors.tolist()
    least = float((times * factors)[fits].min())
    question = Question(objective=Objective.ROBUST, memory_limit_bytes=LIMIT, top=2, risk=risk)
    result = search([job], question)
    assert result.value == result.lower_bound == pytest.approx(least, rel=1e-8)
    if new == 3.0:
        assert set(practices_of(result.best.layout)) <= set(risk.practised)


def test_a_robust_plan_holds_together(
    toy_model: Callable[..., ModelEntry], toy_cluster: Callable[..., ClusterEntry]
) -> None:
    made = plan(toy_model(), toy_cluster(8), global_batch=16, sequence_length=2048, objective="robust")
    assert made.search.lower_bound == pytest.approx(made.predicted.step_time_interval_s.high, rel=1e-8)
    assert made.search.gap == 0
    assert list(contradictions(made)) == []
    assert check_plan(made) == ()
