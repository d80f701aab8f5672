"""Whether a case was foretold to fit, and whether it did."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from meshwright.planner.accuracy.case import Case, MemoryKind
from meshwright.planner.accuracy.estimate import Estimate, Predicted


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryVerdict:
    """A case that ran, or ran out of memory, beside what was foretold."""

    case: Case
    file: str
    prediction: Predicted
    was_out_of_memory: bool

    @property
    def foretold_out_of_memory(self) -> bool:
        """Whether it was predicted not to fit."""
        return not self.prediction.fits

    @property
    def predicted_bytes(self) -> int:
        """Peak of the worst rank as the driver counts it: what has to fit."""
        return self.prediction.peak_memory_bytes[MemoryKind.NVIDIA_SMI]

    @property
    def limit_bytes(self) -> int:
        """What the device has."""
        return self.prediction.memory_limit_bytes


def verdicts_of(estimates: Iterable[Estimate]) -> Iterator[MemoryVerdict]:
    """Give a verdict on each case that was both measured and predicted."""
    for estimate in estimates:
        if estimate.predicted is not None and estimate.case.measured is not None:
            yield MemoryVerdict(
                case=estimate.case,
                file=estimate.file,
                prediction=estimate.predicted,
                was_out_of_memory=estimate.case.measured.out_of_memory,
            )
