"""What one parameter takes: itself, its gradient, and what the optimizer keeps of it, by precision and software.

16-bit training   the parameter 2, fp32 master weights 4, Adam's two moments 8 (arXiv 1710.03740; 1910.02054, 3.1)
fp32 training     the parameter 4, its moments 8
gradient          2 or 4, as the software accumulates it, in fp16 perhaps fewer than in bf16; 6 where the 16-bit form
                  stays beside the fp32 sum
product           products read 2 bytes of a parameter, in fp32 training 4: what is gathered, unless it is quantised
wire              what the software reduces in, but no more than what it accumulates in fp16, and 4 in fp32
step_gradient     a 16-bit gradient is copied to fp32 for the update: 4 bytes while the optimizer steps
"""

from dataclasses import dataclass

from meshwright.catalog.precision import Precision
from meshwright.costmodels.job import Job

PARAMETER_BYTES = 2
MASTER_BYTES = 4
MOMENTS_BYTES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterBytes:
    """Bytes of one parameter, before ZeRO."""

    parameter: int
    gradient: int
    master: int
    moments: int
    step_gradient: int


def gradient_bytes(job: Job) -> int:
    """Give the bytes of one accumulated gradient."""
    if job.precision is Precision.FP32:
        return MASTER_BYTES
    return job.stack.fp16_gradient_bytes if job.precision is Precision.FP16 else job.stack.gradient_bytes


def summed_bytes(job: Job) -> int:
    """Give what the product that makes a weight gradient moves of it: the sum, in and out, where it adds to that."""
    return 2 * gradient_bytes(job) if job.stack.fused_accumulation else PARAMETER_BYTES


def reduced_bytes(job: Job) -> int:
    """Give the bytes of one gradient on the wire: of fp16, whose sums are narrower, those of a sum at most."""
    if job.precision is Precision.FP32:
        return MASTER_BYTES
    if job.precision is Precision.FP16:
        return min(job.stack.reduce_bytes, gradient_bytes(job))
    return job.stack.reduce_bytes


def computed_bytes(job: Job) -> int:
    """Give the bytes of one parameter as products read it."""
    return MASTER_BYTES if job.precision is Precision.FP32 else PARAMETER_BYTES


def gathered_bytes(job: Job) -> int:
    """Give the bytes of one parameter on the wire: those that products read, unless the software quantises them."""
    return job.stack.gather_bytes if job.stack.gather_bytes < PARAMETER_BYTES else computed_bytes(job)


def parameter_bytes(job: Job) -> ParameterBytes:
    """Give the bytes of one parameter of a job.

    Where the software keeps no 16-bit copy beside the master weights (FSDP), the parameter is its own fp32 shard.
    """
    stack = job.stack
    gradient = gradient_bytes(job)
    if job.precision is Precision.FP32:
        return ParameterBytes(
            parameter=MASTER_BYTES, gradient=gradient, master=0, moments=MOMENTS_BYTES, step_gradient=0
        )
    copied = gradient == PARAMETER_BYTES and stack.master_bytes > 0
    if stack.keeps_narrow_gradients and gradient > PARAMETER_BYTES:
        gradient += PARAMETER_BYTES
    return ParameterBytes(
        parameter=PARAMETER_BYTES if stack.master_bytes else MASTER_BYTES,
        gradient=gradient,
        master=stack.master_bytes,
        moments=MOMENTS_BYTES,
        step_gradient=MASTER_BYTES if copied else 0,
    )
