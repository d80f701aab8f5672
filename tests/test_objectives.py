"""What is asked of a plan beside the least time: against plain loops, by hand, and what can't be meant."""

from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from meshwright.catalog.cluster_entry import ClusterEntry
from meshwright.catalog.errors import Infeasible, InputError
from meshwright.catalog.model_entry import ModelEntry
from meshwright.cli.app import app
from meshwright.cli.arguments import duration, token_count
from meshwright.cli.render.plans import render_plan
from meshwright.cli.render.progress import shown_progress
from meshwright.cli.render.units import shown_duration, shown_energy, shown_seconds, shown_share, shown_tokens
from meshwright.costmodels.job import Job
from meshwright.costmodels.layout import Layout
from meshwright.costmodels.predict import predict_memory, predict_time
from meshwright.planner import Plan, check_plan, inputs_of, plan, plan_of
from meshwright.planner.consistency import contradictions
from meshwright.planner.device_numbers import device_numbers
from meshwright.planner.job_inputs import job_of
from meshwright.planner.layout import evaluation as evaluation_module
from meshwright.planner.layout import search as search_module
from meshwright.planner.layout.fewest import fewest_devices
from meshwright.planner.layout.least_recomputed import every_count
from meshwright.planner.layout.objective import Objective
from meshwright.planner.layout.question import Progress, Question
from meshwright.planner.layout.search import search
from meshwright.planner.layout.space import space_of

MakeJob = Callable[..., Job]
MakeModel = Callable[..., ModelEntry]
MakeCluster = Callable[..., ClusterEntry]
LIMIT = 80 * 2**30
SIZES = (8, 16, 24, 32)


def every(job: Job) -> list[tuple[float, float]]:
    """Give time and memory of every layout that fits."""
    space = space_of(job)
    table, _ = every_count(job, space.table(space.leaves(space.twigs(space.branches.rows).rows).rows))
    times, memory = predict_time(job, table).step_time_s, predict_memory(job, table).nvidia_smi_bytes
    pairs = [(float(f"{time:.9g}"), float(f"{peak:.9g}")) for time, peak in zip(times, memory, strict=True)]
    return [pair for pair in pairs if pair[1] <= LIMIT]


@pytest.fixture(scope="module")
def jobs(toy_job: MakeJob) -> list[Job]:
    return [toy_job(size, global_batch=24, layers=6, hidden=1024, heads=8, head_dim=128) for size in SIZES]


@pytest.fixture(scope="module")
def loops(jobs: list[Job]) -> list[list[tuple[float, float]]]:
    return [every(job) for job in jobs]


def question(objective: Objective, **more: Any) -> Question:  # noqa: ANN401 - fields of a question
    return Question(objective=objective, memory_limit_bytes=LIMIT, top=2, **more)


def test_least_energy_is_that_of_a_loop(jobs: list[Job], loops: list[list[tuple[float, float]]]) -> None:
    least = min(size * time for size, pairs in zip(SIZES, loops, strict=True) for time, _ in pairs)
    result = search(jobs, question(Objective.ENERGY))
    assert result.value == result.lower_bound == pytest.approx(least, rel=1e-8)
    assert result.best == search(jobs, question(Objective.COST)).best


@pytest.mark.parametrize("slower_by", [0.0, 0.05, 0.3, 2.0])
def test_memory_for_a_slowdown_is_that_of_a_loop(
    jobs: list[Job], loops: list[list[tuple[float, float]]], slower_by: float
) -> None:
    """Of even cuts, as the loop has them; uneven ones need no more."""
    fastest = min(time for time, _ in loops[0])
    least = min(memory for time, memory in loops[0] if time <= (1 + slower_by) * fastest)
    even = [replace(job, stack=job.stack.model_copy(update={"splits": "even"})) for job in jobs[:1]]
    assert search(jobs[:1], question(Objective.MEMORY, slower_by=slower_by)).value <= least
    result = search(even, question(Objective.MEMORY, slower_by=slower_by))
    assert result.value == result.lower_bound == least
    assert result.best.step_time_s <= (1 + slower_by) * fastest


def test_fewest_devices_are_those_of_a_loop(jobs: list[Job], loops: list[list[tuple[float, float]]]) -> None:
    fastest = [min(time for time, _ in pairs) for pairs in loops]
    targets = [fastest[0] * 2, *fastest, (fastest[0] + fastest[1]) / 2, fastest[-1] * 1.0001]
    for target in targets:
        first = next(number for number, time in enumerate(fastest) if time <= target)
        result = fewest_devices(jobs, question(Objective.DEVICES), target_s=target)
        assert result.value == result.lower_bound == SIZES[first]
        assert result.best.step_time_s == fastest[first]
        assert all(found.step_time_s <= target for found in result.alternatives)
        assert result.candidates == result.feasible + sum(result.rejected.values())
    with pytest.raises(Infeasible, match="32 devices of toy-cluster or fewer takes") as caught:
        fewest_devices(jobs, question(Objective.DEVICES), target_s=min(fastest) * 0.99)
    assert f"takes {fastest[-1]:.6g} s" in caught.value.nearest_miss


def test_what_is_slower_than_a_target_is_not_opened(jobs: list[Job], monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[int] = []
    monkeypatch.setattr(evaluation_module, "least_recomputed", lambda job, *_, **__: opened.append(job.cluster.devices))
    with pytest.raises(AttributeError):  # of the layouts that the first opening doesn't give
        fewest_devices(jobs, question(Objective.DEVICES), target_s=1e3)
    assert opened == [8]


def test_a_watch_is_told_the_bound_and_the_best(jobs: list[Job], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_module, "TWIGS", 4)
    told: list[Progress] = []
    result = search(jobs[:1], question(Objective.TIME), watch=told.append)
    assert told[0].best is None
    assert told[-1].best == result.value
    assert all(one.bound <= result.value for one in told if one.waiting)
    assert [one.waiting for one in told] != sorted(one.waiting for one in told)
    assert shown_progress(Objective.TIME)(Progress(devices=8, best=2.0, bound=1.6, waiting=1200)) == (
        "8 devices: best 2.00 s, none can be below 1.60 s, which that is 25.0 % above, 1,200 branches wait"
    )
    assert "nothing that fits yet" in shown_progress(Objective.COST)(told[0])


@pytest.fixture(scope="module")
def trained(toy_model: MakeModel, toy_cluster: MakeCluster) -> Plan:
    return plan(toy_model(), toy_cluster(16), global_batch=16, sequence_length=2048, tokens=10**9 + 1)


def test_what_training_comes_to_by_hand(trained: Plan) -> None:
    """2^15 tokens a step, 16 devices of 2.5 USD/h and 700 W."""
    training, step_s = trained.predicted.training, trained.predicted.step_time_s
    assert training is not None
    assert training.steps == 30_518  # 10^9 / 2^15 = 30,517.58
    assert training.time_s == pytest.approx(30_518 * step_s)
    assert training.usd == pytest.approx(30_518 * step_s * 16 * 2.5 / 3600)
    assert training.energy_joules == pytest.approx(30_518 * step_s * 16 * 700)
    assert trained.predicted.joules_per_token == pytest.approx(step_s * 16 * 700 / 2**15)
    assert list(contradictions(trained)) == []
    wrong = trained.predicted.model_copy(update={"training": training.model_copy(update={"steps": 1})})
    assert "predicted.training" in dict(contradictions(trained.model_copy(update={"predicted": wrong})))


def test_the_fewest_devices_for_all_tokens(toy_model: MakeModel, toy_cluster: MakeCluster, trained: Plan) -> None:
    assert trained.predicted.training is not None
    asked: dict[str, Any] = {"global_batch": 16, "sequence_length": 2048, "tokens": 10**9 + 1, "objective": "devices"}
    target_s = trained.predicted.training.time_s
    made = plan(toy_model(), toy_cluster(32), target_time_s=target_s * 1.000001, **asked)
    assert (made.mesh.devices, made.mesh.idle) == (16, 16)
    assert (made.search.lower_bound, made.search.gap, made.search.proof) == (16, 0, "optimal")
    assert list(contradictions(made)) == []
    assert check_plan(made) == ()
    job = made.inputs.job.model_copy(update={"target_time_s": target_s / 2})
    tighter = made.model_copy(update={"inputs": made.inputs.model_copy(update={"job": job})})
    assert "misses the target" in dict(contradictions(tighter))["predicted.step_time_s"]


def test_devices_that_no_layout_can_use(toy_model: MakeModel, toy_cluster: MakeCluster) -> None:
    """13 devices: 8 heads, 16 sequences and 4 layers have no factor of 13, but of 12."""
    made = plan(toy_model(layers=4, heads=8), toy_cluster(13), global_batch=16, sequence_length=2048)
    usable = max(number for number in range(1, 14) if _is_usable(number))
    inputs = inputs_of(toy_model(layers=4, heads=8), toy_cluster(13), **JOB)
    assert device_numbers(inputs) == (usable, 11, 10, 9, 8)
    alone = [
        plan(toy_model(layers=4, heads=8), toy_cluster(n), global_batch=16, sequence_length=2048) for n in range(8, 13)
    ]
    assert usable == 12
    assert made.predicted.step_time_s == min(one.predicted.step_time_s for one in alone)
    assert made.mesh.idle == 13 - made.mesh.devices


@pytest.mark.parametrize(
    ("devices", "numbers"),
    [(64, (64,)), (96, (96,)), (7, (7,)), (17, (17, 16, 14, 12, 10)), (223 * 8, (1784, 1664, 1536, 1408, 1280))],
)
def test_rounder_numbers_are_searched_where_devices_factor_badly(
    toy_model: MakeModel, toy_cluster: MakeCluster, devices: int, numbers: tuple[int, ...]
) -> None:
    job = JOB | {"global_batch": 1784 * 17 * 7 * 3}
    assert device_numbers(inputs_of(toy_model(layers=4, heads=8), toy_cluster(devices), **job)) == numbers


@pytest.mark.parametrize("devices", [9, 11, 13, 15, 17])
def test_more_devices_are_no_slower(devices: int) -> None:
    """A prime number of devices leaves few layouts, but each rounder one below leaves more."""
    job: dict[str, Any] = {"global_batch": 64, "sequence_length": 4096, "top": 0}
    more, fewer = (plan("llama-3.1-8b", f"dgx-h100:{number}", **job) for number in (devices, devices - 1))
    assert more.predicted.step_time_s <= fewer.predicted.step_time_s


@pytest.mark.parametrize(
    ("limits", "keeps"),
    [
        ({"fix": {"data_parallel": 3}}, lambda one: one.data_parallel == 3),
        ({"fix": {"zero_shard": 5}}, lambda one: one.zero_stage > 0 and one.zero_shard == 5),
        ({"fix": {"virtual_pipeline": 2, "tp": 1}}, lambda one: (one.virtual_pipeline, one.tensor_parallel) == (2, 1)),
        ({"max": {"pp": 1, "cp": 1}}, lambda one: one.pipeline_parallel * one.context_parallel == 1),
        ({"forbid": {"zero_stage": [0], "recompute": ["none", "selective"]}, "max": {"recompute_layers": 1}},
         lambda one: one.zero_stage > 0 and (one.recompute, one.recompute_layers) == ("full", 1)),
    ],
)  # fmt: skip
def test_the_largest_usable_number_within_limits_is_that_of_a_loop(
    toy_model: MakeModel, toy_cluster: MakeCluster, limits: dict[str, Any], keeps: Callable[[Layout], bool]
) -> None:
    """15 sequences on 17 devices, a prime number of which no layout can use all."""
    model, cluster = toy_model(layers=6, heads=4, kv_heads=4), toy_cluster(17)
    job = {"global_batch": 15, "sequence_length": 2048, "precision": "bf16", "objective": "time", "top": 0}
    inputs = inputs_of(model, cluster, memory_headroom=0.05, limits=limits, **job)

    def has_one(devices: int) -> bool:
        space = space_of(job_of(inputs, devices=devices))
        table, _ = every_count(space.job, space.table(space.leaves(space.twigs(space.branches.rows).rows).rows))
        return any(keeps(table.row(row)) for row in range(len(table)))

    assert device_numbers(inputs)[0] == max(number for number in range(1, 18) if has_one(number))


def test_limits_that_no_number_of_devices_keeps_leave_the_number_as_it_is(
    toy_model: MakeModel, toy_cluster: MakeCluster
) -> None:
    inputs = inputs_of(toy_model(layers=4, heads=8), toy_cluster(13), **JOB | {"limits": {"fix": {"tp": 3}}})
    assert device_numbers(inputs)[0] == 12
    with pytest.raises(Infeasible, match="on 12 devices of toy-cluster"):
        plan_of(inputs)


def test_a_plan_that_leaves_devices_idle_holds_together(toy_model: MakeModel, toy_cluster: MakeCluster) -> None:
    made = plan(toy_model(layers=4, heads=8), toy_cluster(13), global_batch=16, sequence_length=2048)
    assert list(contradictions(made)) == []


def _is_usable(number: int) -> bool:
    """Say whether tensor (of 8 heads), context (2 c divides 2,048), data (16) and up to 4 stages make the number."""
    return any(number % stages == 0 and (rest := number // stages) & (rest - 1) == 0 for stages in (1, 2, 3, 4))


JOB: dict[str, Any] = {
    "global_batch": 16,
    "sequence_length": 2048,
    "precision": "bf16",
    "objective": "time",
    "top": 0,
    "memory_headroom": 0.05,
}


@pytest.mark.parametrize(
    ("asked", "complaint"),
    [
        ({"time_limit_s": 0}, "time_limit_s: .* greater than 0"),
        ({"time_limit_s": float("nan")}, "time_limit_s: .* finite"),
        ({"time_limit_s": 1, "objective": "memory"}, "time_limit_s: isn't for memory"),
        ({"time_limit_s": 1, "objective": "devices", "target_time_s": 1}, "time_limit_s: isn't for devices"),
        ({"slower_by": 0.2}, "slower_by: is for the objective memory, not for time"),
        ({"slower_by": -0.1, "objective": "memory"}, "slower_by: .* greater than or equal to 0"),
        ({"target_time_s": 3}, "target_time_s: is for the objective devices"),
        ({"objective": "devices"}, "target_time_s: is missing"),
        ({"objective": "devices", "target_time_s": 0}, "target_time_s: .* greater than 0"),
        ({"tokens": 0}, "tokens: .* greater than or equal to 1"),
    ],
)
def test_what_cannot_be_meant(
    toy_model: MakeModel, toy_cluster: MakeCluster, asked: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(InputError, match=complaint):
        inputs_of(toy_model(), toy_cluster(8), **JOB | asked)


def test_a_plan_of_a_time_limit(
    toy_model: MakeModel, toy_cluster: MakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = inputs_of(toy_model(), toy_cluster(8), **JOB | {"time_limit_s": 1e-6})
    with monkeypatch.context() as patched:
        patched.setattr(search_module, "TWIGS", 1)
        patched.setattr(search_module, "BRANCHES", 1)
        hurried = plan_of(inputs).plan
    whole = plan(toy_model(), toy_cluster(8), global_batch=16, sequence_length=2048, top=0)
    assert hurried.search.proof == "bounded"
    assert hurried.search.lower_bound <= whole.predicted.step_time_s
    assert hurried.search.gap == pytest.approx(hurried.predicted.step_time_s / hurried.search.lower_bound - 1)
    assert list(contradictions(hurried)) == []
    assert check_plan(hurried) == ()  # what it found by luck isn't looked for again
    assert check_plan(plan(toy_model(), toy_cluster(8), global_batch=16, sequence_length=2048, time_limit_s=60)) == ()


@pytest.mark.parametrize(
    ("text", "tokens"), [("15T", 15 * 10**12), ("1.5e3", 1500), ("0.3 B", 3 * 10**8), ("300_000", 300_000), ("1.50", 0)]
)
def test_tokens_as_people_write_them(text: str, tokens: int) -> None:
    if tokens:
        assert token_count(text) == tokens
    else:
        with pytest.raises(InputError, match="is not a number of tokens"):
            token_count(text)


def test_times_as_people_write_them() -> None:
    assert (duration("30d"), duration("90 min"), duration("10s")) == (30 * 86_400, 5400, 10)
    for text in ("10", "", "-3s", "0s", "soon", "nan s"):
        with pytest.raises(InputError):
            duration(text)
    assert (shown_duration(10), shown_duration(7200), shown_duration(8.64e5)) == ("10.00 s", "2.0 hours", "10.0 days")
    assert (shown_tokens(1), shown_tokens(3 * 10**11)) == ("1", "300 B")
    assert (shown_energy(3.6e6), shown_energy(3.6e10), shown_energy(7.2e13)) == ("1 kWh", "10 MWh", "20 GWh")


WORDS = ["plan", "llama-3.1-8b", "dgx-h100:16", "--global-batch", "64", "--sequence-length", "4096", "--top", "1"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--objective", "devices", "--target-time", "4s"], "Proved: with fewer of the cluster's nodes"),
        (["--objective", "energy"], "takes less energy a token."),
        (["--objective", "memory", "--slower-by", "0.5"], "at most 50.0 % slower than the fastest needs less memory"),
        (["--tokens", "15T"], "15 T tokens in 57,220,459 steps:"),
        (["--time-limit", "100 s"], "Proved optimal: no layout of this space that fits is faster."),
    ],
)
def test_objectives_on_the_command_line(options: list[str], said: str) -> None:
    result = CliRunner().invoke(app, [*WORDS, *options])
    assert result.exit_code == 0, result.output
    assert said in " ".join(result.stdout.split())


def test_what_is_left_when_time_ran_out_is_said_of_one_base(
    toy_model: MakeModel, toy_cluster: MakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = inputs_of(toy_model(), toy_cluster(8), **JOB | {"time_limit_s": 1e-6})
    with monkeypatch.context() as patched:
        patched.setattr(search_module, "TWIGS", 1)
        patched.setattr(search_module, "BRANCHES", 1)
        made = plan_of(inputs).plan
    console = Console(record=True, width=200, file=StringIO())
    render_plan(console, made, seconds=None, file=None)
    bound, gap = shown_seconds(made.search.lower_bound), shown_share(made.search.gap)
    assert f"comes to less than {bound}, which the plan is {gap} above." in console.export_text()
    assert made.predicted.step_time_s == pytest.approx(made.search.lower_bound * (1 + made.search.gap))


def test_idle_devices_are_said_loudly() -> None:
    words = [*WORDS[:2], "dgx-h100:41", *WORDS[3:]]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert "warning: this layout uses 32 of 41 devices and leaves 9 idle" in result.stderr
    assert "leaves 9 idle" in result.stdout


def test_no_bound_is_above_what_it_bounds(jobs: list[Job], loops: list[list[tuple[float, float]]]) -> None:
    for job, pairs in zip(jobs, loops, strict=True):
        told: list[Progress] = []
        search([job], question(Objective.TIME), watch=told.append)
        assert np.min([one.bound for one in told]) <= min(time for time, _ in pairs)
