"""Layers of few experts, solved and proven by constraint programming.

y[e, c] = 1 where expert e has c replicas, z[e, c, g] = 1 where one of them is on device g:

    one count     sum over c of y[e, c] = 1                              for each e
    replicas      sum over g of z[e, c, g] = c y[e, c]                   for each e, c
    slots         sum over e, c of z[e, c, g] <= S, or = S               for each g
    load          sum over e, c of w_e / c z[e, c, g] <= T               for each g

    in turn       sum over c of z[e, c, g] <= sum over c, e' <= e of z[e', c, g - 1]          for each e, g > 0

since devices are alike, with T the least possible. Loads are rounded down to whole parts of the mean, so that what is
proven of them holds for those that aren't. One worker and a limit in the solver's own unit of work make the same answer
every time.
"""

from dataclasses import dataclass
from math import floor, inf, lcm

from meshwright.catalog.errors import SolverFailed

Sets = tuple[tuple[int, ...], ...]

# Parts of the mean load that loads are rounded down to: far less than what counts as equal.
PARTS = 2**36
WORK = 0.2
SEED = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Solved:
    """The devices of each expert, None where nothing lighter than known was found; its largest load and its bound."""

    sets: Sets | None
    largest: float
    bound: float


def solved(
    weights: tuple[float, ...],
    *,
    devices: int,
    size: int,
    known: Sets,
    bound: float,
    filled: bool,
    left_s: float = inf,
) -> Solved:
    """Solve one layer as far as the work goes.

    weights: of the experts; size: slots of a device; known: the devices of each expert of a placement that is there;
    bound: no placement is lighter; filled: whether no slot may stay empty, what is proven then holds for those alone;
    left_s: seconds after which to stop in any case.
    Raises SolverFailed where the solver doesn't take its program.
    """
    from ortools.sat.python import cp_model  # noqa: PLC0415 - slow to import

    most = min(devices, size * devices - len(weights) + 1)
    unit = _unit(weights, devices, most)
    model = cp_model.CpModel()
    reached = max(_loads(weights, known, devices))
    least = model.new_int_var(floor(bound / unit * (1 - 1e-12)), floor(reached / unit) + 1, "largest")
    known = _in_turn(known, devices)
    on: dict[tuple[int, int, int], cp_model.IntVar] = {}
    for expert, there in enumerate(known):
        counts = [model.new_bool_var("") for _ in range(most)]
        model.add_exactly_one(counts)
        for count, chosen in enumerate(counts, start=1):
            held = [model.new_bool_var("") for _ in range(devices)]
            model.add(sum(held) == count * chosen)
            model.add_hint(chosen, count == len(there))
            for device, one in enumerate(held):
                on[expert, count, device] = one
                model.add_hint(one, count == len(there) and device in there)
    for device in range(devices):
        here = [(expert, count, one) for (expert, count, at), one in on.items() if at == device]
        taken = sum(one for _, _, one in here)
        if device:
            for expert in range(len(weights)):
                before = [one for (e, _, at), one in on.items() if at == device - 1 and e <= expert]
                model.add(sum(on[expert, count, device] for count in range(1, most + 1)) <= sum(before))
        model.add(taken == size if filled else taken <= size)
        model.add(
            sum(floor(weights[expert] / count / unit * (1 + 1e-15)) * one for expert, count, one in here) <= least
        )
    model.minimize(least)
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    solver.parameters.random_seed = SEED
    solver.parameters.max_deterministic_time = WORK
    if left_s < inf:
        solver.parameters.max_time_in_seconds = left_s
    status = solver.solve(model)
    if status in {cp_model.MODEL_INVALID, cp_model.INFEASIBLE}:
        raise SolverFailed(f"the program of a layer is {solver.status_name(status)}", hint="please report it")
    proven = max(bound, solver.best_objective_bound * unit)
    if status == cp_model.UNKNOWN:
        return Solved(sets=None, largest=reached, bound=proven)
    sets = tuple(
        tuple(device for device in range(devices) if any(solver.value(on[e, c, device]) for c in range(1, most + 1)))
        for e in range(len(weights))
    )
    largest = max(_loads(weights, sets, devices))
    better = largest < reached * (1 - 1e-12)
    return Solved(sets=sets if better else None, largest=min(largest, reached), bound=proven)


def _in_turn(sets: Sets, devices: int) -> Sets:
    """Name the devices anew in the order in which experts take them."""
    order = list(dict.fromkeys(device for chosen in sets for device in chosen))
    name = {device: at for at, device in enumerate([*order, *(set(range(devices)) - set(order))])}
    return tuple(tuple(sorted(name[device] for device in chosen)) for chosen in sets)


def _unit(weights: tuple[float, ...], devices: int, most: int) -> float:
    """Give the largest unit of load that tells all loads of whole weights apart; else a small part of the mean."""
    small = sum(weights) / devices / PARTS
    exact = 1.0 / lcm(*range(1, most + 1))
    return exact if exact > small and all(weight.is_integer() for weight in weights) else small


def _loads(weights: tuple[float, ...], sets: Sets, devices: int) -> list[float]:
    loads = [0.0] * devices
    for weight, chosen in zip(weights, sets, strict=True):
        for device in chosen:
            loads[device] += weight / len(chosen)
    return loads
