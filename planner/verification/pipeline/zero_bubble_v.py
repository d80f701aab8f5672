"""ZBV (arXiv 2401.10241, section 6), in the phases in which PyTorch's ScheduleZBVZeroBubble lays it out."""

from dataclasses import dataclass, field

from meshwright.planner.verification.pipeline.passes import Orders, Pass, Work


@dataclass(slots=True, kw_only=True)
class _Stage:
    """A stage as it is laid out: the model's chunks it has on the way out and back, and what of each pass is laid."""

    chunks: tuple[int, int]
    count: int
    done: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("F0", "F1", "B0", "B1", "W0", "W1"), 0))
    order: list[Work] = field(default_factory=list)

    def run(self, *names: str) -> None:
        """Lay the next micro-batch of each of these passes; those beyond the last one leave no trace."""
        for name in names:
            if self.done[name] < self.count:
                self.order.append((Pass(name[0], self.done[name], self.chunks[int(name[1])]),))
            self.done[name] += 1


def zero_bubble_v(stages: int, count: int) -> Orders:
    """Give each stage's order for so many micro-batches; chunks s and 2 P - 1 - s are on stage s of P."""
    return [_order(stage, stages, count) for stage in range(stages)]


def _order(number: int, stages: int, count: int) -> list[Work]:
    stage = _Stage(chunks=(number, 2 * stages - 1 - number), count=count)
    done = stage.done
    stage.run(*["F0"] * (2 * (stages - number) - 1))
    stage.run(*["F1", "F0"] * number)
    stage.run(*["F1", "B1", "W1"] * (stages - number))
    fed = max(2 * stages - 1, count)
    while done["F1"] < done["F0"] or done["F0"] < fed:
        if done["F0"] < fed:
            stage.run("F0")
        stage.run("B0", "W0", "F1", "B1", "W1")
    stage.run(*["B0", "B1"] * number)
    stage.run(*["B0", "W0"] * (stages - number))
    stage.run(*["W1"] * (count - done["W1"]))
    stage.run(*["W0"] * (count - done["W0"]))
    return stage.order
