"""A whole step: micro-batches one after another, then the optimizer."""

from dataclasses import dataclass

from meshwright.planner.offload.decision import Decision
from meshwright.planner.offload.problem import SUBGROUPS, Problem
from meshwright.planner.offload.simulation.events import run
from meshwright.planner.offload.simulation.passes import Passes, layer_loads
from meshwright.planner.offload.simulation.update import AT_ONCE, STATES, Update

# Micro-batches behind the first few are like those before: simulating more of them shows nothing new.
MOST_MICRO_BATCHES = 4
GRADIENT = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulated:
    """Seconds of a step, and the most bytes that a rank's device and host held."""

    step_time_s: float
    device_bytes: float
    host_bytes: float


def simulated(problem: Problem, decision: Decision) -> Simulated:
    """Simulate a decision. What waits for other stages, and what no stream takes part in, is as the problem says."""
    passes, count = Passes(problem, decision), round(problem.passes)
    simulate = min(count, MOST_MICRO_BATCHES)
    ends: list[tuple[int, ...]] = []
    for _ in range(simulate):
        ends.append(passes.add(ends[-1] if ends else ()))
    base, host = _standing_bytes(problem, decision)
    in_flight = sum(load.stays for load in layer_loads(problem, decision)) * (problem.held - 1)
    away = sum(load.leaves for load in layer_loads(problem, decision)) * (problem.held - 1)
    resident = float(decision.shares.resident)
    beside = problem.memory.passes + resident * problem.memory.beside
    trace = run(passes.tasks, {"device": base + in_flight + beside, "host": host + away})
    update = run(Update(problem, decision).tasks, {})
    streams = AT_ONCE * STATES * problem.optimizer.parameters / SUBGROUPS if decision.shares.streamed else 0.0
    at_update = base + resident * problem.memory.step + streams
    ended = [max(trace.ended_s[task] for task in end) for end in ends]
    each_s = ended[-1] - ended[-2] if simulate > 1 else ended[-1]
    passes_s = ended[-1] + (problem.passes - simulate) * each_s
    return Simulated(
        step_time_s=passes_s * problem.stretch + update.seconds + problem.other_s,
        device_bytes=max(trace.peak_bytes["device"], at_update),
        host_bytes=trace.peak_bytes["host"],
    )


def _standing_bytes(problem: Problem, decision: Decision) -> tuple[float, float]:
    """Give what device and host hold all the time."""
    memory, shares = problem.memory, decision.shares
    cpu, streamed, resident = (float(share) for share in (shares.cpu, shares.streamed, shares.resident))
    loads = layer_loads(problem, decision)
    own_weights = float(problem.layers.weight_bytes.sum()) - sum(load.streams for load in loads)
    device = memory.states + own_weights + memory.gradients - cpu * memory.drained + resident * memory.optimizer
    states = STATES * (cpu + streamed - float(shares.nvme)) + GRADIENT * cpu
    return device, states * problem.optimizer.parameters + sum(load.streams for load in loads)
