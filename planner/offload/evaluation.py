"""What a decision comes to: seconds of a step, and memory."""

from collections.abc import Mapping
from dataclasses import dataclass

from meshwright.planner.offload.decision import Decision
from meshwright.planner.offload.memory_law import Memory, memory_of
from meshwright.planner.offload.optimizer_law import overlapped_s, plain_s
from meshwright.planner.offload.pass_law import loads_of, pass_times
from meshwright.planner.offload.problem import Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """A decision with its step, whose parts sum to it, and its memory."""

    decision: Decision
    passes_s: float
    waiting_s: float
    optimizer_s: float
    other_s: float
    memory: Memory
    fits: bool

    @property
    def step_time_s(self) -> float:
        """Seconds of a step."""
        return self.passes_s + self.waiting_s + self.optimizer_s + self.other_s

    @property
    def breakdown_s(self) -> Mapping[str, float]:
        """Seconds of the step by cause."""
        return {
            "passes": self.passes_s,
            "bubble": self.waiting_s,
            "optimizer": self.optimizer_s,
            "other": self.other_s,
        }


def optimizer_s(problem: Problem, decision: Decision) -> float:
    """Give the seconds of the optimizer's step."""
    law = overlapped_s if decision.overlapped else plain_s
    return float(law(problem.optimizer, problem.host, decision.shares))


def evaluated(problem: Problem, decision: Decision) -> Evaluation:
    """Evaluate a decision by the laws of passes, optimizer and memory."""
    times = pass_times(problem, loads_of(problem, decision))
    passes = problem.passes * float(times.pass_s(decision.shares.cpu))
    memory = memory_of(problem, decision)
    return Evaluation(
        decision=decision,
        passes_s=passes,
        waiting_s=(problem.stretch - 1) * passes,
        optimizer_s=optimizer_s(problem, decision),
        other_s=problem.other_s,
        memory=memory,
        fits=memory.fits(problem),
    )
