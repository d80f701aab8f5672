"""Messages of tensor ranks, and what of them shows, by hand on round machines."""

from collections.abc import Callable
from typing import Any

import pytest

from meshwright.catalog.precision import Precision
from meshwright.costmodels.job import Job
from meshwright.costmodels.layer_time import Cause, LayerTime, layer_time
from meshwright.costmodels.layout import Layout, LayoutTable
from meshwright.costmodels.tensor_messages import tensor_messages

TENSOR = Layout(tensor_parallel=4, sequence_parallel=True)
# 1,000 tokens of 1,024 values of 2 bytes over 4 ranks at 50 GB/s, and three steps of 1 us; two of a kind in a pass.
GATHER_S = 2 * 1000 * 1024 * 3 / 4 / 50e9 + 3e-6
OWN_COPY = 0.4 * 2 * 1000 * 1024 / 4 / 50e9


def times(job: Job) -> LayerTime:
    return layer_time(job, job.model.layers[0], LayoutTable.of([TENSOR]))


@pytest.mark.parametrize(
    ("precision", "narrow", "halved"),
    [
        (Precision.BF16, True, False),
        (Precision.FP8, False, False),
        (Precision.FP8, True, True),
    ],
)
def test_what_is_cast_before_it_is_gathered_is_half_as_large(
    round_job: Callable[..., Job], precision: Precision, *, narrow: bool, halved: bool
) -> None:
    job = round_job(stack={"narrow_tensor_gathers": narrow}, precision=precision)
    found = tensor_messages(job, job.model.layers[0], LayoutTable.of([TENSOR]))
    whole_s = GATHER_S + OWN_COPY
    assert found.summed_s == pytest.approx(2 * whole_s)
    gather_s = 3e-6 + (whole_s - 3e-6) / 2 if halved else whole_s
    assert found.gathered_s == pytest.approx(2 * gather_s)


@pytest.mark.parametrize(("gated", "alone"), [(True, 2), (False, 1)])
def test_sums_of_several_products_show(round_job: Callable[..., Job], *, gated: bool, alone: int) -> None:
    overlap: dict[str, Any] = {"overlap_tensor": True}
    model = {"gated_mlp": gated}
    shown = times(round_job(model=model))
    hidden = times(round_job(model=model, stack=overlap))
    paired = times(round_job(model=model, stack=overlap | {"hides_tensor_sums": False}))
    assert paired.forward[Cause.TENSOR] == pytest.approx(hidden.forward[Cause.TENSOR])
    # Of four messages backward, one or two are sums of several products: they show, and of the others what did before.
    message_s = shown.backward[Cause.TENSOR] / 4
    rest = hidden.backward[Cause.TENSOR] * (4 - alone) / 4
    assert paired.backward[Cause.TENSOR] == pytest.approx(alone * message_s + rest)
    whole_s = shown.forward[Cause.TENSOR] + shown.backward[Cause.TENSOR]
    seen_s = paired.forward[Cause.TENSOR] + paired.backward[Cause.TENSOR]
    assert paired.hidden_s == pytest.approx(whole_s - seen_s)
