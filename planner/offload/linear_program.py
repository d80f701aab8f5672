"""The linear program of a decision: nothing that it allows is faster than its optimum.

a[l, k] in [0, 1]   share of class k of layer l that leaves for the host            one_choice
b[l, k] in [0, 1]   share of it that is computed again; the rest is kept
q[l] in [0, 1]      share of a layer's parameters that stream
c, f, g, n          shares of the optimizer's parameters (optimizer_law.py)         shares
h x d r y           when each layer is fetched, computed, left, ... (pass_law.py)   forward, backward, drained
T, U                seconds of a micro-batch's passes, and of the optimizer         optimizer
u, v, z             the layer that leaves, streams, is computed again the most      largest

minimise  passes x stretch x T + U + other seconds
within the memory of the device                                                     device
and of the host and its drives                                                      off_device
"""

from dataclasses import dataclass

import numpy as np

from meshwright.catalog.errors import SolverFailed
from meshwright.costmodels.layout import FloatArray
from meshwright.planner.offload.memory_law import HOST_GRADIENT_BYTES
from meshwright.planner.offload.optimizer_law import STATE_BYTES, Shares, overlapped_rows_s
from meshwright.planner.offload.problem import Problem
from meshwright.planner.offload.program import GB, Program, Term, Variable

# What scipy.optimize.linprog says of a program.
OPTIMAL, INFEASIBLE = 0, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Relaxed:
    """An optimum: shares of classes that leave, and that are computed again, [layers, classes]; and what streams."""

    step_time_s: float
    leave: FloatArray
    again: FloatArray
    streamed: FloatArray
    shares: Shares


def relaxed(problem: Problem, *, fixed: Shares | None = None) -> Relaxed | None:
    """Solve the program, with the optimizer's shares fixed if they are; None where nothing fits.

    Raises SolverFailed where the solver comes to no answer.
    """
    program = Program(problem)
    for rows in (one_choice, shares, forward, backward, drained, optimizer, largest, device, off_device):
        rows(program)
    if fixed is not None:
        for variable, share in ((program.cpu, fixed.cpu), (program.resident, fixed.resident)):
            program.equal([(variable, 1.0)], float(share))
    found = program.minimised([(program.passes, problem.passes * problem.stretch), (program.optimizer, 1.0)])
    if found.status == INFEASIBLE:
        return None
    if found.status != OPTIMAL:
        raise SolverFailed(
            f"the linear program wasn't solved: {found.message}",
            hint="please report it with the model, the cluster and the layout",
        )
    return _answer(program, found.x, found.fun)


def _answer(program: Program, values: FloatArray, optimum: float) -> Relaxed:
    problem = program.problem
    count = len(problem.layers)
    leave, again, streamed = (
        np.zeros_like(problem.layers.kept_bytes),
        np.zeros_like(problem.layers.kept_bytes),
        np.zeros(count),
    )
    for array, variables in ((leave, program.leave), (again, program.again)):
        for layer, kinds in variables.items():
            for kind, share in kinds.items():
                array[layer, kind] = values[share]
    for layer, share in program.streamed.items():
        streamed[layer] = values[share]
    return Relaxed(
        step_time_s=optimum * program.unit_s + problem.other_s,
        leave=leave,
        again=again,
        streamed=streamed,
        shares=Shares(
            cpu=float(values[program.cpu]),
            streamed=float(values[program.through]),
            resident=float(values[program.resident]),
            nvme=float(values[program.nvme]),
        ),
    )


def one_choice(program: Program) -> None:
    """Let what leaves and what is computed again of a class be at most all of it: a + b <= 1."""
    for layer, kinds in program.again.items():
        for kind, share in kinds.items():
            program.at_most([(share, 1.0), (program.leave[layer][kind], 1.0)], 1.0)


def shares(program: Program) -> None:
    """Let the optimizer's shares sum to one, and only the host's be on drives: c + f + g = 1, n <= c."""
    program.equal([(program.cpu, 1.0), (program.through, 1.0), (program.resident, 1.0)], 1.0)
    program.at_most([(program.nvme, 1.0), (program.cpu, -1.0)], 0.0)


def _later(program: Program, time: Variable, after: list[Term], takes: list[Term], constant_s: float = 0.0) -> None:
    """Let a time be no sooner than another one, by what variables and a number of seconds take."""
    program.at_most([*after, *takes, (time, -1.0)], -constant_s / program.unit_s)


def forward(program: Program) -> None:
    """Fetch, compute and let leave in order, with a window of layers in flight."""
    problem, window = program.problem, program.problem.window
    computed, gone, fetched = program.computed, program.gone, program.fetched
    for layer in range(len(problem.layers)):
        seconds = float(problem.layers.forward_s[layer])
        before: list[Term] = [(computed[layer - 1], 1.0)] if layer else []
        _later(program, computed[layer], before, [], seconds + (0.0 if layer else problem.first_s))
        if fetched:
            weights = program.weight_terms(layer)
            _later(program, fetched[layer], [(fetched[layer - 1], 1.0)] if layer else [], weights)
            if layer >= window:
                _later(program, fetched[layer], [(computed[layer - window], 1.0)], weights)
            _later(program, computed[layer], [(fetched[layer], 1.0)], [], seconds)
        if layer >= window:
            _later(program, computed[layer], [(gone[layer - window], 1.0)], [], seconds)
        _later(program, gone[layer], [(computed[layer], 1.0)], program.copy_terms(layer))
        if layer:
            _later(program, gone[layer], [(gone[layer - 1], 1.0)], program.copy_terms(layer))


def backward(program: Program) -> None:
    """Return and compute in order, from the last layer on, with a window of layers in flight."""
    problem, window = program.problem, program.problem.window
    layers, last = problem.layers, len(problem.layers) - 1
    done, returned = program.done, program.returned
    for layer in range(last, -1, -1):
        coming = program.copy_terms(layer) + program.weight_terms(layer)
        again, seconds = program.again_terms(layer), float(layers.backward_s[layer])
        between = problem.middle_s if layer == last else 0.0
        sooner = program.computed[last] if layer == last else done[layer + 1]
        _later(program, done[layer], [(sooner, 1.0)], again, seconds + between)
        _later(program, done[layer], [(returned[layer], 1.0)], again, seconds)
        if layer + window > last:  # else what is computed after it has waited for that already
            _later(program, returned[layer], [(program.gone[layer], 1.0)], coming)
        if layer < last:
            _later(program, returned[layer], [(returned[layer + 1], 1.0)], coming)
        elif program.fetched:
            _later(program, returned[layer], [(program.fetched[last], 1.0)], coming)
        if layer + window <= last:
            _later(program, returned[layer], [(done[layer + window], 1.0)], coming)
    _later(program, program.passes, [(done[0], 1.0)], [], problem.last_s)
    _later(program, program.passes, [], [], problem.slowest_s)


def drained(program: Program) -> None:
    """Let the pass end when the last gradient has left: those of layers 0 to l behind y_l, all behind d_(n-1)."""
    problem = program.problem
    behind_s = np.cumsum(problem.layers.drain_bytes) / (problem.host.copy_bytes_per_s * program.unit_s)
    if behind_s[-1] == 0:
        return
    for layer, seconds in enumerate(behind_s.tolist()):
        _later(program, program.passes, [(program.done[layer], 1.0)], [(program.cpu, seconds)])
    _later(program, program.passes, [(program.gone[-1], 1.0)], [(program.cpu, float(behind_s[-1]))])


def optimizer(program: Program) -> None:
    """Let the optimizer take as long as the busiest row of optimizer_law.py; they are linear in the shares."""
    variables = {
        "cpu": program.cpu,
        "streamed": program.through,
        "resident": program.resident,
        "nvme": program.nvme,
    }
    nothing = dict.fromkeys(variables, 0.0)
    by_share = {
        name: overlapped_rows_s(program.problem.optimizer, program.problem.host, Shares(**nothing | {name: 1.0}))
        for name in variables
    }
    for row in next(iter(by_share.values())):
        terms = [(variables[name], float(rows[row]) / program.unit_s) for name, rows in by_share.items()]
        program.at_most([*terms, (program.optimizer, -1.0)], 0.0)


def largest(program: Program) -> None:
    """Give buffers room for the layer that leaves, streams or is computed again the most."""
    layers = program.problem.layers
    for layer in range(len(layers)):
        kept = layers.kept_bytes[layer] / GB
        for name, variables in (("u", program.leave), ("z", program.again)):
            terms = [(share, float(kept[kind])) for kind, share in variables[layer].items()]
            program.at_most([*terms, (program.largest[name], -1.0)], 0.0)
        if layer in program.streamed:
            weights = float(layers.weight_bytes[layer]) / GB
            program.at_most([(program.streamed[layer], weights), (program.largest["v"], -1.0)], 0.0)


def device(program: Program) -> None:
    """Keep the three peaks of memory_law.py within the device's memory."""
    problem, memory, layers = program.problem, program.problem.memory, program.problem.layers
    states: list[Term] = [
        (program.resident, memory.optimizer / GB),
        (program.cpu, -memory.drained / GB),
        (program.largest["v"], float(problem.window)),
    ]
    states += [(share, -float(layers.weight_bytes[layer]) / GB) for layer, share in program.streamed.items()]
    room = memory.limit - memory.states - memory.gradients - float(layers.weight_bytes.sum())
    kept: list[Term] = [(program.resident, memory.beside / GB), (program.largest["u"], float(problem.window))]
    for variables in (program.leave, program.again):
        for layer, kinds in variables.items():
            kept += [(share, -problem.held * layers.kept_bytes[layer, kind] / GB) for kind, share in kinds.items()]
    beside = memory.passes + problem.held * float(layers.kept_bytes.sum())
    program.at_most(states + kept, (room - beside - memory.loss) / GB)
    program.at_most([*states, *kept, (program.largest["z"], 1.0)], (room - beside - memory.working) / GB)
    program.at_most([*states, (program.resident, memory.step / GB)], room / GB)


def off_device(program: Program) -> None:
    """Keep what left within the memory of the host, and what is on drives within theirs."""
    problem, layers = program.problem, program.problem.layers
    state = STATE_BYTES * problem.optimizer.parameters / GB
    gradient = HOST_GRADIENT_BYTES * problem.optimizer.parameters / GB
    terms: list[Term] = [(program.cpu, state + gradient), (program.through, state), (program.nvme, -state)]
    for layer, kinds in program.leave.items():
        terms += [(share, problem.held * float(layers.kept_bytes[layer, kind]) / GB) for kind, share in kinds.items()]
    terms += [(share, float(layers.weight_bytes[layer]) / GB) for layer, share in program.streamed.items()]
    program.at_most(terms, problem.host.memory_bytes / GB)
    program.at_most([(program.nvme, state)], problem.host.nvme_bytes / GB)
