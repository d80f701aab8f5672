"""The front of time, memory and devices against full enumerations."""

from collections.abc import Callable

import numpy as np
import pytest
from typer.testing import CliRunner

from meshwright.catalog.cluster_entry import ClusterEntry
from meshwright.catalog.errors import InputError
from meshwright.catalog.model_entry import ModelEntry
from meshwright.cli.app import app
from meshwright.costmodels.job import Job
from meshwright.costmodels.predict import predict_memory, predict_time
from meshwright.planner import inputs_of
from meshwright.planner.job_inputs import job_of
from meshwright.planner.layout.least_recomputed import every_count
from meshwright.planner.layout.limits import Limits
from meshwright.planner.layout.needs import twig_bytes
from meshwright.planner.layout.objective import Objective
from meshwright.planner.layout.pareto import pareto_front
from meshwright.planner.layout.question import Question
from meshwright.planner.layout.space import space_of
from meshwright.planner.pareto import pareto_of

MakeJob = Callable[..., Job]
GIB = 2**30
MODELS = [
    {"layers": 8, "hidden": 4096, "heads": 32, "kv_heads": 8, "ffn_hidden": 14336},
    {"layers": 4, "hidden": 2048, "heads": 16, "experts": {"experts": 8, "top_k": 2, "ffn_hidden": 4096}},
]


def every(job: Job, limits: Limits | None = None) -> list[tuple[float, float]]:
    space = space_of(job, limits)
    table, _ = every_count(job, space.table(space.leaves(space.twigs(space.branches.rows).rows).rows))
    times, memory = predict_time(job, table).step_time_s, predict_memory(job, table).nvidia_smi_bytes
    return [(float(f"{time:.9g}"), float(f"{peak:.9g}")) for time, peak in zip(times, memory, strict=True)]


def best_of(pairs: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Give what nothing beats, fastest first."""
    kept: list[tuple[float, float]] = []
    for time, peak in sorted(set(pairs)):
        if not kept or peak < kept[-1][1]:
            kept.append((time, peak))
    return kept


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("limit_gib", [80, 24])
def test_the_front_is_that_of_a_loop(toy_job: MakeJob, model: dict[str, object], limit_gib: int) -> None:
    job = toy_job(8, global_batch=8, **model)
    question = Question(objective=Objective.TIME, memory_limit_bytes=limit_gib * GIB, top=3)
    front = pareto_front(job, question)
    assert front is not None
    expected = best_of([pair for pair in every(job) if pair[1] <= limit_gib * GIB])
    assert list(zip(front.step_time_s.tolist(), front.peak_bytes.tolist(), strict=True)) == expected
    assert len(expected) > 3
    assert pareto_front(job, Question(objective=Objective.TIME, memory_limit_bytes=GIB, top=0)) is None


def test_the_front_keeps_to_limits(toy_job: MakeJob) -> None:
    job, limits = toy_job(8, global_batch=8, **MODELS[0]), Limits(fix={"tensor_parallel": 2})
    question = Question(objective=Objective.TIME, memory_limit_bytes=80 * GIB, top=0, limits=limits)
    front = pareto_front(job, question)
    assert front is not None
    assert set(front.layouts.tensor_parallel.tolist()) == {2}
    assert len(front) == len(best_of([pair for pair in every(job, limits) if pair[1] <= 80 * GIB]))


@pytest.mark.parametrize("model", MODELS)
def test_no_leaf_holds_less_than_the_bound_of_its_twig(toy_job: MakeJob, model: dict[str, object]) -> None:
    job = toy_job(8, global_batch=8, **model)
    space = space_of(job)
    twigs = space.twigs(space.branches.rows).rows
    leaves = space.leaves(twigs)
    table, leaf = every_count(job, space.table(leaves.rows))
    peak = predict_memory(job, table).nvidia_smi_bytes
    bound = twig_bytes(job, space.table(twigs))[leaves.parent[leaf]]
    assert (peak >= bound).all()
    assert np.median(bound / peak) > 0.2  # it says something


def test_fewer_devices_may_do_as_well(
    toy_model: Callable[..., ModelEntry], toy_cluster: Callable[..., ClusterEntry]
) -> None:
    inputs = inputs_of(
        toy_model(),
        toy_cluster(16),
        global_batch=16,
        sequence_length=2048,
        precision="bf16",
        objective="time",
        top=0,
        memory_headroom=0.05,
    )
    choices = pareto_of(inputs)
    devices = [choice.devices for choice in choices]
    assert set(devices) == {16, 8}
    assert devices == sorted(devices, reverse=True)
    limit = 0.95 * 80 * GIB
    points = {
        size: best_of([pair for pair in every(job_of(inputs, devices=size)) if pair[1] <= limit]) for size in (8, 16)
    }
    alone = [pair for pair in points[16] if not any(a <= pair[0] and b <= pair[1] for a, b in points[8])]
    assert [(one.step_time_s, one.peak_bytes) for one in choices] == alone + points[8]


def test_the_front_on_the_command_line() -> None:
    words = ["plan", "llama-3.1-8b", "dgx-h100:16", "--global-batch", "64", "--sequence-length", "4096", "--pareto"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert "evenly cut layouts that no other beats in all" in result.stdout
    assert '"pareto": [' in CliRunner().invoke(app, [*words, "--json"]).stdout


def test_a_front_is_not_stopped_early() -> None:
    words = ["plan", "llama-3.1-8b", "dgx-h100:8", "--global-batch", "64", "--sequence-length", "4096", "--pareto"]
    result = CliRunner().invoke(app, [*words, "--time-limit", "5 s"])
    assert isinstance(result.exception, InputError)
    assert "--pareto can't be stopped early" in str(result.exception)
