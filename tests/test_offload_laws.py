"""The laws of offloading: by hand, against published logs, and against an event simulation."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from offload_problems import GB, MLP, small_problem

from meshwright.catalog.errors import InputError, MissingData
from meshwright.costmodels.activations import layer_activations
from meshwright.costmodels.layout import Layout, LayoutTable
from meshwright.costmodels.tensor_classes import TensorClass, class_costs
from meshwright.hardware.cluster import cluster_of
from meshwright.planner.job_inputs import inputs_of, job_of
from meshwright.planner.offload.decision import Choice
from meshwright.planner.offload.evaluation import evaluated
from meshwright.planner.offload.host import Host, UpdateRates, host_of, with_nvme
from meshwright.planner.offload.memory_law import memory_of
from meshwright.planner.offload.optimizer_law import OptimizerWork, Shares, overlapped_rows_s, overlapped_s, plain_s
from meshwright.planner.offload.pass_law import loads_of, pass_times
from meshwright.planner.offload.problem import INPUT
from meshwright.planner.offload.rate_fit import errors, fit_rates, predicted_s
from meshwright.planner.offload.runs import Run, read_runs
from meshwright.planner.offload.simulation import simulated
from meshwright.planner.offload.simulation.events import Task, run
from meshwright.planner.offload.uniform import ON_DEVICE, ON_HOST, checkpointed, decided, kept

RUNS = Path(__file__).parent / "offload" / "deep_optimizer_states.csv"
HOST = Host(
    ranks=4,
    memory_bytes=1e12,
    rates=UpdateRates(update_per_s=2e9, bus_bytes_per_s=320e9, link_bytes_per_s=10e9),
    copy_bytes_per_s=25e9,
)
WORK = OptimizerWork(parameters=5e9, device_s=0.05)


def test_each_row_of_an_overlapped_step() -> None:
    shares = Shares(cpu=0.5, streamed=0.25, resident=0.25)
    rows = {name: float(seconds) for name, seconds in overlapped_rows_s(WORK, HOST, shares).items()}
    assert rows == pytest.approx(
        {
            "processors": 0.5 * 5e9 / 2e9,
            "device": 0.5 * 0.05,
            "link_in": (12 * 0.25 + 2 * 0.5) * 5e9 / 10e9,
            "link_out": 12 * 0.25 * 5e9 / 10e9,
            "memory_bus": 4 * (32 * 0.5 + 24 * 0.25) * 5e9 / 320e9,
        }
    )
    assert float(overlapped_s(WORK, HOST, shares)) == pytest.approx(2.0)


def test_a_step_without_overlap_updates_and_then_casts_and_copies() -> None:
    # Updates wait for the bus, 4 x 32 x 5e9 / 320e9; so do casts, 4 x 8 x 5e9 / 320e9 against 1 s of the link.
    assert float(plain_s(WORK, HOST, ON_HOST)) == pytest.approx(2.5 + 1.0)
    one = replace(HOST, ranks=1)
    # With a rank alone the processors bind, and the bus casts in an eighth of a second.
    assert float(plain_s(WORK, one, ON_HOST)) == pytest.approx(2.5 + 1.0)
    assert float(plain_s(WORK, HOST, ON_DEVICE)) == pytest.approx(0.05)


def test_gradients_that_are_not_drained_leave_at_the_step() -> None:
    kept_back = replace(WORK, drained=False)
    rows = overlapped_rows_s(kept_back, HOST, ON_HOST)
    assert float(rows["link_out"]) == pytest.approx(2 * 5e9 / 10e9)


def test_rates_fitted_to_7b_and_20b_predict_all_published_steps() -> None:
    runs = read_runs(RUNS)
    fits = fit_rates([run for run in runs if run.size in ("7", "20")])
    found = errors(runs, fits)
    unseen = np.array([run.size not in ("7", "20") for run in runs])
    assert len(runs) == 199
    assert np.median(found) <= 0.10
    assert np.median(found[~unseen]) <= 0.05
    assert np.median(found[unseen]) <= 0.10


def test_the_bus_is_what_explains_the_strides() -> None:
    """Without the memory bus, the runs of 7B and 20B on one machine can't be told by any rates as well."""
    runs = [run for run in read_runs(RUNS) if run.size == "7" and run.machine == "a100"]
    alone = [replace(run, ranks=1) for run in runs]
    (with_bus,), (without,) = fit_rates(runs), fit_rates(alone)
    assert without.median_error > 1.5 * with_bus.median_error


def test_made_up_runs_give_their_rates_back() -> None:
    rates = UpdateRates(update_per_s=4e9, bus_bytes_per_s=250e9, link_bytes_per_s=12e9)
    shapes = [
        (1, 1.0, 0.0, False),
        (1, 0.5, 0.5, True),
        (4, 1.0, 0.0, False),
        (4, 0.75, 0.25, True),
        (2, 1.0, 0.0, True),
    ]
    empty = [
        Run(machine="", size="", parameters=p, ranks=r, cpu=c, streamed=f, overlapped=o, step_s=1.0)
        for p in (1e9, 3e9)
        for r, c, f, o in shapes
    ]
    runs = [replace(one, step_s=float(step)) for one, step in zip(empty, predicted_s(empty, rates), strict=True)]
    (fit,) = fit_rates(runs)
    assert fit.median_error < 1e-3
    assert fit.rates.bus_bytes_per_s == pytest.approx(250e9, rel=0.01)
    assert fit.rates.link_bytes_per_s == pytest.approx(12e9, rel=0.01)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("tp,dp\n1,1\n", "has no column 'layers'"),
        ("tp,dp,layers,hidden,cpu_ratio,prefetch,gap,step_ms\n", "has 0 runs"),
        ("tp,dp,layers,hidden,cpu_ratio,prefetch,gap,step_ms\n1,1,4,64,2,0,0,5\n", "line 2, cpu_ratio: is '2'"),
        ("tp,dp,layers,hidden,cpu_ratio,prefetch,gap,step_ms\n1,0,4,64,1,0,0,5\n", "line 2, dp: is '0'"),
        ("tp,dp,layers,hidden,cpu_ratio,prefetch,gap,step_ms\n1,1,4,64,0,0,0,5\n", "line 2, cpu_ratio: is '0'"),
        ("tp,dp,layers,hidden,cpu_ratio,prefetch,gap,step_ms\n1,1,4,64,1,0,0,nan\n", "step_ms: is 'nan'"),
    ],
)
def test_tables_that_are_wrong(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "runs.csv"
    file.write_text(text, "utf-8")
    with pytest.raises(InputError, match=r"runs\.csv") as caught:
        read_runs(file)
    assert words in caught.value.message


def test_too_few_runs() -> None:
    with pytest.raises(InputError, match="can't tell three rates"):
        fit_rates(read_runs(RUNS)[:2])


@pytest.mark.parametrize("model", ["llama-2-7b", "gpt3-175b", "deepseek-v3", "mixtral-8x7b"])
@pytest.mark.parametrize("tensor", [1, 4])
def test_classes_sum_to_what_a_layer_keeps(model: str, tensor: int) -> None:
    inputs = inputs_of(
        model,
        "dgx-h100:8",
        global_batch=8,
        sequence_length=1024,
        precision="bf16",
        objective="time",
        top=0,
        memory_headroom=0.0,
    )
    job = job_of(inputs)
    table = LayoutTable.of([Layout(tensor_parallel=tensor, sequence_parallel=tensor > 1, data_parallel=8 // tensor)])
    for layer in job.model.layer_kinds:
        costs = class_costs(job, layer, table)
        whole = layer_activations(job, layer, table).whole[0]
        assert sum(size[0] for size in costs.kept_bytes.values()) == pytest.approx(whole)
        assert set(costs.again_s) == set(TensorClass) - {TensorClass.INPUT}
        assert all(seconds[0] >= 0 for seconds in costs.again_s.values())


def test_a_pass_by_hand() -> None:
    problem = small_problem(layers=3)
    nothing = decided(problem, kept(problem))
    assert pass_times(problem, loads_of(problem, nothing)).ends_s == pytest.approx(0.45)
    again = decided(problem, checkpointed(problem))
    # Six classes of 20 ms each on three layers; only one has bytes, but all are said to be computed again.
    assert pass_times(problem, loads_of(problem, again)).ends_s == pytest.approx(0.45 + 3 * 6 * 0.02)
    whole = decided(problem, checkpointed(problem), whole=True)
    assert pass_times(problem, loads_of(problem, whole)).ends_s == pytest.approx(0.45 + 3 * 0.05)


def test_what_leaves_last_is_waited_for() -> None:
    problem = small_problem(layers=3)
    choices = kept(problem)
    choices[2, MLP] = Choice.OFFLOAD
    decision = decided(problem, choices)
    # 1 GB leaves behind 150 ms of forward passes, at 25 GB/s, and returns before the first backward pass.
    assert pass_times(problem, loads_of(problem, decision)).ends_s == pytest.approx(0.15 + 0.04 + 0.04 + 0.3)
    early = kept(problem)
    early[0, MLP] = Choice.OFFLOAD
    assert pass_times(problem, loads_of(problem, decided(problem, early))).ends_s == pytest.approx(0.45)


def test_gradients_of_the_host_prolong_a_pass() -> None:
    problem = small_problem(layers=2, parameters=4e9)
    times = pass_times(problem, loads_of(problem, decided(problem, kept(problem))))
    # 4 GB of each layer's gradients take 160 ms: the last layer's leave from 200 ms on, then the first one's.
    assert float(times.pass_s(1.0)) == pytest.approx(0.2 + 2 * 0.16)
    assert float(times.pass_s(0.0)) == pytest.approx(0.3)


def test_memory_by_hand() -> None:
    problem = small_problem(layers=2, held=3.0)
    choices = kept(problem)
    choices[:, MLP] = Choice.OFFLOAD
    memory = memory_of(problem, decided(problem, choices, shares=Shares(cpu=0.5, streamed=0.25, resident=0.25)))
    kept_bytes, window = 3 * 2 * 0.2 * GB, 2 * 1.0 * GB
    assert memory.device == pytest.approx(0.1 * GB + 2 * GB + 2 * GB + 3 * GB + kept_bytes + window + 0.5 * GB)
    assert memory.host == pytest.approx(12 * 0.75 * GB + 4 * 0.5 * GB + 3 * 2 * 1.0 * GB)


def test_events_wait_for_resources_and_for_one_another() -> None:
    tasks = [
        Task(resource="a", seconds=1.0, begins={"m": 3.0}),
        Task(resource="b", seconds=1.0, after=(0,), begins={"m": 2.0}, ends={"m": -2.0}),
        Task(resource="a", seconds=3.0, ends={"m": -3.0}),
        Task(resource="b", seconds=1.0, after=(2,)),
    ]
    trace = run(tasks, {"m": 1.0})
    assert trace.ended_s == [1.0, 2.0, 4.0, 5.0]
    assert trace.peak_bytes["m"] == 6.0


@pytest.mark.parametrize("overlapped", [True, False])
@pytest.mark.parametrize("passes", [1.0, 3.0, 9.0])
def test_the_simulation_agrees_with_the_laws(passes: float, overlapped: bool) -> None:
    problem = small_problem(layers=6, passes=passes, held=2.0)
    choices = kept(problem)
    choices[:4, MLP] = Choice.OFFLOAD
    choices[4, MLP] = Choice.RECOMPUTE
    choices[:, INPUT] = Choice.OFFLOAD
    streamed = 0.25 if overlapped else 0.0
    shares = Shares(cpu=0.5, streamed=streamed, resident=0.5 - streamed)
    decision = replace(decided(problem, choices, shares=shares, overlapped=overlapped), streamed=np.arange(6) % 2 / 2)
    law, events = evaluated(problem, decision), simulated(problem, decision)
    assert events.step_time_s == pytest.approx(law.step_time_s, rel=0.03)
    assert events.device_bytes <= law.memory.device * (1 + 1e-9)
    assert events.host_bytes <= law.memory.host * (1 + 1e-9)


def test_the_simulation_agrees_where_gradients_leave_at_the_step() -> None:
    """Streams, gradients and updates of a step in which the links and the bus are about as busy."""
    problem = small_problem(layers=6, parameters=10e9, limit=200 * GB, bus=130e9)
    still = replace(
        problem,
        optimizer=replace(problem.optimizer, drained=False),
        layers=replace(problem.layers, drain_bytes=np.zeros(6)),
        memory=replace(problem.memory, drained=0.0),
    )
    shares = Shares(cpu=0.5, streamed=0.2, resident=0.3)
    rows = overlapped_rows_s(still.optimizer, still.host, shares)
    assert float(rows["memory_bus"]) == pytest.approx(float(rows["link_out"]), rel=0.15)
    decision = decided(still, kept(still), shares=shares)
    assert simulated(still, decision).step_time_s == pytest.approx(evaluated(still, decision).step_time_s, rel=0.03)


def test_the_hosts_bandwidths_are_needed() -> None:
    inputs = inputs_of(
        "llama-2-7b",
        "dgx-h100:8",
        global_batch=8,
        sequence_length=1024,
        precision="bf16",
        objective="time",
        top=0,
        memory_headroom=0.0,
    )
    device = cluster_of(inputs.cluster.entry).device
    for field, name in (
        ("host_memory_bandwidth_bytes_per_s", "host.memory_bandwidth"),
        ("host_link_bandwidth_bytes_per_s", "host.link_bandwidth"),
        ("host_update", "host.update"),
    ):
        with pytest.raises(MissingData, match=name):
            host_of(replace(device, **{field: None}), devices_per_node=8, ranks=8)
    host = host_of(device, devices_per_node=8, ranks=2)
    assert host.memory_bytes == 4 * device.host_memory_bytes
    with pytest.raises(MissingData, match=r"host\.nvme"):
        with_nvme(host, device, devices_per_node=8)
