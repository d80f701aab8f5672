"""What a run was to do and what it did, side by side."""

from collections.abc import Iterator
from dataclasses import dataclass

from meshwright.catalog.errors import MeshwrightError
from meshwright.planner.ledger.ledger import RankLedger
from meshwright.planner.ledger.transfers import totals
from meshwright.planner.ledger.workload import FLOAT_BYTES, Workload
from meshwright.runtime.launch import Measured, mean_losses

STATE = ("parameter_bytes", "gradient_bytes", "optimizer_bytes")
ACTIVATIONS = "activation_bytes"
LOSS_TOLERANCE = 1e-5


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One run of a workload, by rank.

    losses_alone: of each step, of the same training in one process; None where that wasn't run.
    on_processor: activation bytes must be as expected too, which are those of PyTorch's kernels there; a GPU's keep
    other tensors.
    """

    workload: Workload
    expected: tuple[RankLedger, ...]
    measured: tuple[Measured, ...]
    losses_alone: tuple[float, ...] | None
    on_processor: bool

    @property
    def exact(self) -> bool:
        """Whether losses must be within LOSS_TOLERANCE: in fp32 on processors products aren't rounded to fewer bits."""
        return self.on_processor and self.workload.element_bytes == FLOAT_BYTES

    @property
    def compared(self) -> tuple[str, ...]:
        """The names of the bytes that must be as expected."""
        return (*STATE, ACTIVATIONS) if self.on_processor else STATE

    @property
    def losses(self) -> tuple[float, ...]:
        """The loss of each step, over all ranks' tokens."""
        return mean_losses(self.measured)

    @property
    def step_time_s(self) -> float:
        """The slowest rank's."""
        return max(each.step_time_s for each in self.measured)

    def differences(self) -> Iterator[str]:
        """Give a sentence for each thing that wasn't as expected."""
        for expected, measured in zip(self.expected, self.measured, strict=True):
            for name in self.compared:
                had, wanted = getattr(measured, name), getattr(expected, name)
                if had != wanted:
                    yield f"rank {expected.rank}: {name} are {had}, not {wanted}"
            yield from _transfers(expected, measured)
        if self.exact and self.losses_alone is not None:
            for step, (loss, alone) in enumerate(zip(self.losses, self.losses_alone, strict=True)):
                if not abs(loss - alone) <= LOSS_TOLERANCE:
                    yield f"step {step}: the loss is {loss}, and {alone} in one process"

    def require_agreement(self) -> None:
        """Raise MeshwrightError with what wasn't as expected, if anything wasn't."""
        differences = tuple(self.differences())
        if differences:
            more = f" and {len(differences) - 1} more" if len(differences) > 1 else ""
            raise MeshwrightError(
                f"PyTorch did something else than was expected: {differences[0]}{more}",
                hint="is PyTorch of the version that meshwright[torch] asks for?",
            )


def _transfers(expected: RankLedger, measured: Measured) -> Iterator[str]:
    had, wanted = totals(measured.transfers), totals(expected.transfers)
    for kind, ranks in sorted(had.keys() | wanted.keys()):
        found, predicted = had.get((kind, ranks), (0, 0)), wanted.get((kind, ranks), (0, 0))
        if found != predicted:
            group = ", ".join(map(str, ranks))
            yield (
                f"rank {expected.rank}: {found[0]} {kind} of {found[1]} bytes among ranks {group}, "
                f"not {predicted[0]} of {predicted[1]}"
            )
