"""Communication beside compute, against a simulation of passes event by event."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshwright.costmodels.job import Job
from meshwright.costmodels.layout import Layout, LayoutTable
from meshwright.costmodels.overlap import exposed_s
from meshwright.costmodels.stage_table import stage_table
from meshwright.costmodels.state import StageParameters
from meshwright.costmodels.state_messages import state_messages
from meshwright.costmodels.synchronisation import StageWork, exposed_communication_s


def simulated_s(
    compute: dict[str, float], sent: dict[str, float], *, after: dict[str, set[str]], contention: float
) -> float:
    """Give when all is done that a compute unit and a network do, each in order and not before what comes `after`.

    While something is sent, compute makes 1 / contention of its way.
    """
    durations = compute | sent
    queues = [list(compute), list(sent)]
    done: set[str] = set()
    left = dict(durations)
    now = 0.0
    while any(queues):
        running = [queue[0] if queue and after.get(queue[0], set()) <= done else None for queue in queues]
        assert any(running), "nothing can go on"
        rates = (1.0 / contention if running[1] else 1.0, 1.0)
        step = min(left[name] / rate for name, rate in zip(running, rates, strict=True) if name)
        now += step
        for queue, name, rate in zip(queues, running, rates, strict=True):
            if name:
                left[name] -= step * rate
                if left[name] <= 1e-12 * durations[name] + 1e-15:
                    done.add(name)
                    queue.pop(0)
    return now


def forward_pass(layers: int, compute_s: float, gather_s: float, contention: float) -> float:
    """Each layer's parameters are gathered before it, once the layer before it starts as the one before that ends."""
    after = {f"layer {i}": {f"gather {i}"} for i in range(layers)}
    after |= {f"gather {i}": {f"layer {i - 2}"} for i in range(2, layers)}
    return simulated_s(
        {f"layer {i}": compute_s for i in range(layers)},
        {f"gather {i}": gather_s for i in range(layers)},
        after=after,
        contention=contention,
    )


def backward_pass(layers: int, compute_s: float, gather_s: float, reduction_s: float, contention: float) -> float:
    """The same, numbered from the last layer; each is reduced once it ended, before the next but one is gathered."""
    after = {f"layer {i}": {f"gather {i}"} for i in range(layers)}
    after |= {f"gather {i}": {f"layer {i - 2}"} for i in range(2, layers)}
    after |= {f"reduction {i}": {f"layer {i}"} for i in range(layers)}
    sent = {"gather 0": gather_s}
    for i in range(layers):
        if i + 1 < layers:
            sent[f"gather {i + 1}"] = gather_s
        sent[f"reduction {i}"] = reduction_s
    return simulated_s({f"layer {i}": compute_s for i in range(layers)}, sent, after=after, contention=contention)


def test_the_simulation_by_hand() -> None:
    # Three layers of 2 s, gathers of 1 s, no contention: 1 + 3 x 2. Of 3 s: 3 x 3 + 2.
    assert forward_pass(3, 2.0, 1.0, 1.0) == pytest.approx(7.0)
    assert forward_pass(3, 2.0, 3.0, 1.0) == pytest.approx(11.0)
    # Beside a gather of 1 s a layer does 0.5 s of its 2 at contention 2: 1 + 2 x 2.5 + 2.
    assert forward_pass(3, 2.0, 1.0, 2.0) == pytest.approx(8.0)


def stage(job: Job, layout: Layout, *, seconds: float) -> tuple[float, float, float, float]:
    """Give a layer's gather and reduction, and what is exposed of a step's reductions and gathers."""
    layouts = LayoutTable.of([layout])
    stages = stage_table(job.model, layouts)
    counted = StageParameters(dense=np.array([[1e9]]), experts=np.zeros((1, 1)))
    layers = stages.layers.sum(axis=2)
    sent = state_messages(job, layouts, counted, layers)
    passes = np.array([[seconds]])
    work = StageWork(forward_s=passes, backward_s=passes)
    reductions, gathers = exposed_communication_s(job, layouts, stages, counted, work, beside=work, total=np.ones(1))
    count = int(layers[0, 0])
    return (
        float(sent.forward_gather_s[0, 0]) / count,
        float(sent.reduction_s[0, 0]) / count,
        float(reductions[0, 0]),
        float(gathers[0, 0]),
    )


OVERLAP = {"overlap_gradients": True, "overlap_parameters": True}
contentions, work_s = st.floats(1.0, 2.0), st.floats(1e-3, 1.0)


@settings(max_examples=60)
@given(layers=st.integers(2, 12), seconds=work_s, contention=contentions)
def test_gathers_are_exposed_as_simulated(
    round_job: Callable[..., Job], layers: int, seconds: float, contention: float
) -> None:
    # Held whole from forward to backward passes and reduced once, beside the backward pass: ZeRO-3's gathers alone.
    job = round_job(stack=OVERLAP, model={"layers": layers}, cluster={"calibration": {"contention": contention}})
    layout = Layout(data_parallel=8, zero_stage=3, zero_shard=8, backward_shard=1)
    gather_s, _, _, exposed = stage(job, layout, seconds=seconds)
    simulated = forward_pass(layers, seconds / layers, gather_s, contention)
    assert seconds + exposed == pytest.approx(simulated, rel=1e-6)


@settings(max_examples=60)
@given(layers=st.integers(2, 12), seconds=work_s, contention=contentions)
def test_reductions_are_exposed_as_simulated(
    round_job: Callable[..., Job], layers: int, seconds: float, contention: float
) -> None:
    job = round_job(stack=OVERLAP, model={"layers": layers}, cluster={"calibration": {"contention": contention}})
    layout = Layout(data_parallel=8, zero_stage=3, zero_shard=8, backward_shard=1)
    _, reduction_s, exposed, _ = stage(job, layout, seconds=seconds)
    compute = {f"layer {i}": seconds / layers for i in range(layers)}
    sent = {f"reduction {i}": reduction_s for i in range(layers)}
    after = {f"reduction {i}": {f"layer {i}"} for i in range(layers)}
    simulated = simulated_s(compute, sent, after=after, contention=contention)
    assert seconds + exposed == pytest.approx(simulated, rel=1e-6)


@settings(max_examples=60)
@given(layers=st.integers(2, 12), seconds=work_s, contention=contentions)
def test_gathers_and_reductions_of_a_backward_pass_are_about_as_simulated(
    round_job: Callable[..., Job], layers: int, seconds: float, contention: float
) -> None:
    # The order in which they wait for one another moves the sum by a layer's messages at most.
    job = round_job(stack=OVERLAP, model={"layers": layers}, cluster={"calibration": {"contention": contention}})
    gather_s, reduction_s, reductions, gathers = stage(
        job, Layout(data_parallel=8, zero_stage=3, zero_shard=8), seconds=seconds
    )
    simulated = backward_pass(layers, seconds / layers, gather_s, reduction_s, contention)
    forward = forward_pass(layers, seconds / layers, gather_s, contention)
    found = 2 * seconds + reductions + gathers - forward
    assert abs(found - simulated) <= gather_s + reduction_s + 1e-9


def test_communication_alone_is_the_longer_of_both() -> None:
    room, message = np.array([1.0, 1.0, 1.0]), np.array([0.5, 1.02, 3.0])
    # Beside 0.5 s of it 0.5 / 1.25 s of compute are done; 1.02 s leave 1 - 1.02 / 1.25 of it; 3 s leave none.
    assert exposed_s(message, room, 1.25) == pytest.approx([0.1, 0.204, 2.0])
    assert exposed_s(message, room, 1.25, tail_s=0.2 * message) == pytest.approx([0.18, 0.3672, 0.6 + 1.4])
    assert exposed_s(message, room, 1.0) == pytest.approx([0.0, 0.02, 2.0])
