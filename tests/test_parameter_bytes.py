"""What one parameter takes, by precision and software."""

from collections.abc import Callable
from typing import Any

import pytest

from meshwright.catalog.precision import Precision
from meshwright.costmodels.job import Job
from meshwright.costmodels.parameter_bytes import ParameterBytes, parameter_bytes


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
