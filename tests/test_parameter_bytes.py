"""What one parameter takes, by precision and software."""

from collections.abc import Callable
from typing import Any

import pytest

from meshwright.catalog.precision import Precision
from meshwright.costmodels.job import Job
from meshwright.costmodels.parameter_bytes import ParameterBytes, gradient_bytes, parameter_bytes, reduced_bytes


def counted(job: Job) -> tuple[int, ...]:
    each: ParameterBytes = parameter_bytes(job)
    return each.parameter, each.gradient, each.master, each.moments, each.step_gradient


@pytest.mark.parametrize(
    ("precision", "stack", "expected"),
    [
        # Megatron-LM's distributed optimizer (docs): bf16 2 + 4 + 4 + 8, fp16 2 + 2 + 4 (gradients) + 4 + 8, fp32 16.
        (Precision.BF16, {}, (2, 4, 4, 8, 0)),
        (Precision.FP16, {}, (2, 2, 4, 8, 4)),
        (Precision.FP32, {}, (4, 4, 0, 8, 0)),
        (Precision.FP16, {"fp16_gradient_bytes": 4}, (2, 4, 4, 8, 0)),
        (Precision.BF16, {"gradient_bytes": 2}, (2, 2, 4, 8, 4)),
        # DeepSpeed's BF16 optimizer holds both forms of the gradient.
        (Precision.BF16, {"keeps_narrow_gradients": True}, (2, 6, 4, 8, 0)),
        # FSDP's shards are the master weights; MindSpeed's parameters are the upper halves of theirs.
        (Precision.BF16, {"master_bytes": 0}, (4, 4, 0, 8, 0)),
        (Precision.BF16, {"master_bytes": 0, "gradient_bytes": 2}, (4, 2, 0, 8, 0)),
        (Precision.BF16, {"master_bytes": 2}, (2, 4, 2, 8, 0)),
    ],
)
def test_bytes_of_one_parameter(
    round_job: Callable[..., Job], precision: Precision, stack: dict[str, Any], expected: tuple[int, ...]
) -> None:
    assert counted(round_job(precision=precision, stack=stack)) == expected


@pytest.mark.parametrize(
    ("precision", "stack", "expected"),
    [
        # Megatron-Core adds bf16 gradients up in fp32, fp16 ones in fp16, and sends what it adds up.
        (Precision.BF16, {"reduce_bytes": 4}, (4, 4)),
        (Precision.FP16, {"reduce_bytes": 4}, (2, 2)),
        # FSDP2 has fp32 gradients whatever the passes are in; FSDP sends 16 bits of them.
        (Precision.FP16, {"fp16_gradient_bytes": 4, "reduce_bytes": 4}, (4, 4)),
        (Precision.FP16, {"fp16_gradient_bytes": 4, "reduce_bytes": 2}, (4, 2)),
        (Precision.FP32, {"reduce_bytes": 2}, (4, 4)),
    ],
)
def test_bytes_of_a_gradient_as_it_is_added_up_and_sent(
    round_job: Callable[..., Job], precision: Precision, stack: dict[str, Any], expected: tuple[int, int]
) -> None:
    job = round_job(precision=precision, stack=stack)
    assert (gradient_bytes(job), reduced_bytes(job)) == expected
