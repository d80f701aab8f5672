"""What a plan says beside what PyTorch's tracker finds, of the same rank."""

from collections.abc import Sequence
from dataclasses import dataclass

from meshwright.catalog.errors import MeshwrightError
from meshwright.planner.memory_oracle.expectation import Expectation
from meshwright.planner.memory_oracle.held import Held

TOLERANCE = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The first rank of a stage; tracked: by PyTorch."""

    expectation: Expectation
    tracked: Held

    @property
    def error(self) -> float:
        """By how much the plan, with its known differences, is above what is tracked, relative to that."""
        return self.expectation.expected.total / self.tracked.total - 1

    @property
    def plain_error(self) -> float:
        """The same without the known differences."""
        return self.expectation.planned.total / self.tracked.total - 1


def require_agreement(comparisons: Sequence[Comparison]) -> None:
    """Raise MeshwrightError where a plan and PyTorch are further apart than TOLERANCE."""
    for each in comparisons:
        if abs(each.error) > TOLERANCE:
            raise MeshwrightError(
                f"PyTorch's tracker finds {each.tracked.total / 2**30:.2f} GiB on rank {each.expectation.rank}, where "
                f"{each.expectation.expected.total / 2**30:.2f} GiB were expected: {each.error:+.1%}",
                hint="the table shows of which class they are",
            )
