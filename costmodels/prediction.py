"""What the cost model says of many layouts at once."""

from collections.abc import Mapping
from dataclasses import dataclass

from meshwright.costmodels.layout import FloatArray


@dataclass(frozen=True, slots=True, kw_only=True)
class TimePrediction:
    """Time of one optimizer step, by layout.

    breakdown: seconds by cause, each an array of shape [layouts]; exposed parts only, so that they sum to the step.
    model_flop: operations that the model needs for one step, recomputation not counted (for MFU).
    """

    breakdown: Mapping[str, FloatArray]
    model_flop: float

    @property
    def step_time_s(self) -> FloatArray:
        """Seconds of one step, shape [layouts]."""
        return sum(self.breakdown.values())  # type: ignore[return-value]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Which peak is asked for; the default is that of the whole run on the worst rank.

    last_stage: of a rank of the last pipeline stage, where others may hold more.
    first_step: as it stands behind the first step, whose backward pass has no moments beside it yet.
    """

    last_stage: bool = False
    first_step: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPrediction:
    """Peak memory of the rank that was asked for, by layout.

    breakdown: bytes by cause, each an array of shape [layouts]; they sum to the allocated bytes.
    reserved_bytes: with the allocator's slack; nvidia_smi_bytes: with the driver's context and communication buffers
    too.
    """

    breakdown: Mapping[str, FloatArray]
    reserved_bytes: FloatArray
    nvidia_smi_bytes: FloatArray

    @property
    def allocated_bytes(self) -> FloatArray:
        """Bytes that the framework's allocator hands out at the peak, shape [layouts]."""
        return sum(self.breakdown.values())  # type: ignore[return-value]
