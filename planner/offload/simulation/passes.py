"""The tasks of micro-batches on a rank: device, the way out, the way in."""

from dataclasses import dataclass

import numpy as np

from meshwright.planner.offload.decision import Choice, Decision
from meshwright.planner.offload.problem import Problem
from meshwright.planner.offload.simulation.events import Task

DEVICE, OUT, IN, PACE = "device", "out", "in", "pace"


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerLoad:
    """One layer: seconds forward and backward, and bytes that stay, leave, are made again, stream and drain."""

    forward_s: float
    backward_s: float
    stays: float
    leaves: float
    again: float
    streams: float
    drains: float


def layer_loads(problem: Problem, decision: Decision) -> list[LayerLoad]:
    """Give what a decision makes of each layer."""
    layers, loads = problem.layers, []
    for layer in range(len(layers)):
        of = {
            choice: [kind for kind, chosen in enumerate(decision.choices[layer]) if chosen == choice]
            for choice in Choice
        }
        size = {choice: float(sum(layers.kept_bytes[layer, kind] for kind in kinds)) for choice, kinds in of.items()}
        again_s = float(sum(layers.again_s[layer, kind] for kind in of[Choice.RECOMPUTE]))
        if decision.whole and len(of[Choice.RECOMPUTE]) == int(np.isfinite(layers.again_s[layer]).sum()):
            again_s = float(layers.whole_s[layer])
        loads.append(
            LayerLoad(
                forward_s=float(layers.forward_s[layer]),
                backward_s=float(layers.backward_s[layer]) + again_s,
                stays=size[Choice.KEEP],
                leaves=size[Choice.OFFLOAD],
                again=size[Choice.RECOMPUTE],
                streams=float(decision.streamed[layer] * layers.weight_bytes[layer]),
                drains=float(decision.shares.cpu) * float(layers.drain_bytes[layer]),
            )
        )
    return loads


class Passes:
    """Adds the tasks of one micro-batch after another."""

    __slots__ = ("_loads", "_problem", "tasks")

    def __init__(self, problem: Problem, decision: Decision) -> None:
        self._problem, self._loads = problem, layer_loads(problem, decision)
        self.tasks: list[Task] = []

    def add(self, after: tuple[int, ...]) -> tuple[int, ...]:
        """Add a micro-batch that begins after some tasks; give the tasks at its end."""
        problem = self._problem
        pace = self._task(PACE, problem.slowest_s, after)
        before = self._task(DEVICE, problem.first_s, after)
        computed, gone = self._forward(before, after)
        loss = problem.memory.loss
        between = self._task(DEVICE, problem.middle_s, (computed[-1],), {"device": loss}, {"device": -loss})
        done, drains = self._backward(between, computed, gone)
        end = self._task(DEVICE, problem.last_s, (done,))
        return (pace, end, *drains)

    def _task(
        self,
        resource: str,
        seconds: float,
        after: tuple[int, ...],
        begins: dict[str, float] | None = None,
        ends: dict[str, float] | None = None,
    ) -> int:
        self.tasks.append(Task(resource=resource, seconds=seconds, after=after, begins=begins or {}, ends=ends or {}))
        return len(self.tasks) - 1

    def _copy_s(self, size: float) -> float:
        return size / self._problem.host.copy_bytes_per_s

    def _forward(self, before: int, free: tuple[int, ...]) -> tuple[list[int], list[int | None]]:
        window = self._problem.window
        computed: list[int] = []
        gone: list[int | None] = []
        for layer, load in enumerate(self._loads):
            after = [before if layer == 0 else computed[-1]]
            if load.streams:
                room = (computed[layer - window],) if layer >= window else free
                begins = {"device": load.streams}
                after.append(self._task(IN, self._copy_s(load.streams), room, begins))
            left = gone[layer - window] if layer >= window else None
            if left is not None:
                after.append(left)
            computed.append(
                self._task(
                    DEVICE,
                    load.forward_s,
                    tuple(after),
                    {"device": load.stays + load.leaves},
                    {"device": -load.streams},
                )
            )
            gone.append(self._leave(load, computed[-1]))
        return computed, gone

    def _leave(self, load: LayerLoad, computed: int) -> int | None:
        if not load.leaves:
            return None
        return self._task(OUT, self._copy_s(load.leaves), (computed,), {"host": load.leaves}, {"device": -load.leaves})

    def _backward(self, between: int, computed: list[int], gone: list[int | None]) -> tuple[int, list[int]]:
        window, working = self._problem.window, self._problem.memory.working
        done: dict[int, int] = {}
        drains: list[int] = []
        now = between
        for layer in reversed(range(len(self._loads))):
            load = self._loads[layer]
            comes, after = load.leaves + load.streams, [now]
            if comes:
                left = gone[layer]
                room = [computed[layer] if left is None else left]
                if layer + window in done:
                    room.append(done[layer + window])
                after.append(
                    self._task(IN, self._copy_s(comes), tuple(room), {"device": comes}, {"host": -load.leaves})
                )
            extra = load.again + working
            now = self._task(
                DEVICE,
                load.backward_s,
                tuple(after),
                {"device": extra},
                {"device": -extra - load.stays - comes},
            )
            done[layer] = now
            if load.drains:
                drains.append(self._task(OUT, self._copy_s(load.drains), (now,)))
        return now, drains
