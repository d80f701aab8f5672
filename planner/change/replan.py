"""The best plan after a change: what a step takes then, against the state that has to move.

Candidates are layouts that are known to be good for about as many devices: the old plan's, its runners-up, and those
of a search on the next round number of devices from there up, each with as many replicas as there is room for
(`shapes.py`). Of those that fit in memory, the one with the least

    step + price x move        price: seconds of each step that a second of moving is worth

is taken. What fewer devices do more can do too, so that the least that a search proved for the round number, or for the
old plan's own devices, bounds the step from below, of all layouts whose replicas share the batch evenly: the gap that
is told is to that.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from meshwright.catalog.errors import Infeasible
from meshwright.costmodels.layout import IntArray, Layout, LayoutTable
from meshwright.costmodels.predict import predict_memory, predict_time
from meshwright.costmodels.transformer import transformer_of
from meshwright.planner.change.left import Change, Left, left_of
from meshwright.planner.change.seats import seats
from meshwright.planner.change.shapes import Shape, shapes, with_fewer_expert_ranks
from meshwright.planner.figures import significant, significant_bytes
from meshwright.planner.job_inputs import job_of
from meshwright.planner.layout.objective import Objective
from meshwright.planner.layout.question import Found, SearchResult
from meshwright.planner.plan_schema import Inputs, Plan, Proof
from meshwright.planner.planning import assembled, digested, memory_limit_bytes, plan_of
from meshwright.planner.replica_batches import even_inputs, predicted_with
from meshwright.planner.resharding.between import machines_of
from meshwright.planner.resharding.placement import placement_of
from meshwright.planner.resharding.reshard import Reshard, resharded

# Runners-up that a search on a round number of devices gives.
RUNNERS_UP = 3
NO_ROOM = "there is no room for a replica, or its batch breaks a rule"
TOO_LARGE = "it needs more memory than a device offers"
# Seconds of a step that a second of moving is worth: a thousand steps until the next change.
PRICE_OF_MOVE = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A plan that is possible, the device of each of its ranks, and what moves to it."""

    plan: Plan
    seats: IntArray
    move: Reshard

    @property
    def move_s(self) -> float:
        """Seconds of what moves between devices, and of what is read where that is known."""
        return sum(each.time_s or 0.0 for each in self.move.traffic)


@dataclass(frozen=True, slots=True, kw_only=True)
class Replanned:
    """The answer: what was taken, of which candidates, weighed at which price; and what is left of the cluster.

    others: candidates that were weighed too, best first.
    """

    left: Left
    chosen: Candidate
    others: tuple[Candidate, ...]
    price: float


def replanned(
    old: Plan, change: Change, *, price: float = PRICE_OF_MOVE, storage_bytes_per_s: float | None = None
) -> Replanned:
    """Find the best plan for what a change leaves of a plan's cluster.

    Args:
        old: the plan that runs; its global batch, sequence length and limits stay.
        change: what is lost or added.
        price: seconds of each step that a second of moving is worth.
        storage_bytes_per_s: what all devices together read of a checkpoint, for what no device holds any more.

    Raises InputError where nothing is left, and Infeasible where nothing fits.

    """
    left = left_of(old, change)
    inputs = _inputs(old, left)
    known, bound_s = _known(old, inputs)
    layouts = list(_layouts([old, *known]))
    possible = shapes(layouts, inputs)
    timed = sorted(_timed(possible, inputs), key=lambda each: each[0])
    if not timed:
        raise Infeasible(
            f"nothing that is known fits on the {left.devices} devices that are left",
            rejected={NO_ROOM: len(layouts) - len(possible), TOO_LARGE: len(possible)},
            hint="`meshwright plan` searches all layouts of that many devices",
        )
    search = _search(len(layouts), len(possible), len(timed), min(bound_s, timed[0][0]))
    weighed: list[Candidate] = []
    for step_s, shape in timed:
        if weighed and step_s >= min(_cost(each, price) for each in weighed):
            break
        plan = _plan(shape, inputs, search)
        weighed.append(_candidate(old, plan, left, storage_bytes_per_s))
    chosen, *others = sorted(weighed, key=lambda each: _cost(each, price))
    return Replanned(left=left, chosen=chosen, others=tuple(others), price=price)


def _cost(candidate: Candidate, price: float) -> float:
    return candidate.plan.predicted.step_time_s + price * candidate.move_s


def _inputs(old: Plan, left: Left) -> Inputs:
    """Give the inputs for what is left: the fastest step, within the same limits."""
    nothing = {"objective": Objective.TIME, "time_limit_s": None, "slower_by": None, "target_time_s": None}
    job = old.inputs.job.model_copy(update=nothing | {"top": 0, "target": None})
    entry = old.inputs.cluster.entry.model_copy(update={"devices": left.devices})
    cluster = old.inputs.cluster.model_copy(update={"entry": entry})
    sections = {name: getattr(old.inputs, name) for name in Inputs.model_fields}
    return Inputs(**sections | {"job": job, "cluster": cluster})


def _known(old: Plan, inputs: Inputs) -> tuple[list[Plan], float]:
    """Give plans for about as many devices, and what no step on these devices is faster than, in seconds."""
    devices = inputs.cluster.entry.devices
    round_ = _round(devices, inputs.cluster.entry.devices_per_node)
    proved = old.search.proof != "given" and old.inputs.job.objective is Objective.TIME
    if proved and old.replica_batches is None and devices <= old.mesh.devices <= round_:
        return [], old.search.lower_bound
    entry = inputs.cluster.entry.model_copy(update={"devices": round_})
    job = inputs.job.model_copy(update={"top": RUNNERS_UP})
    cluster = inputs.cluster.model_copy(update={"entry": entry})
    found = plan_of(inputs.model_copy(update={"job": job, "cluster": cluster})).plan
    return [found], found.search.lower_bound


def _round(devices: int, node: int) -> int:
    """Give the least round number of devices from here up: nodes in a power of two, or three times one."""
    nodes = -(-devices // node)
    powers = [times * 2**power for times in (1, 3) for power in range(nodes.bit_length() + 1)]
    return devices if devices < node else node * min(number for number in powers if number >= nodes)


def _layouts(plans: Sequence[Plan]) -> Iterator[Layout]:
    for plan in plans:
        for section in (plan.layout, *(other.layout for other in plan.alternatives)):
            yield from with_fewer_expert_ranks(section.layout())


def _timed(possible: Sequence[Shape], inputs: Inputs) -> Iterator[tuple[float, Shape]]:
    """Give the step time of each shape that fits in memory."""
    limit = memory_limit_bytes(inputs)
    for shape in possible:
        job = job_of(even_inputs(inputs, shape.layout, shape.batches), devices=shape.layout.world_size)
        table = LayoutTable.of([shape.layout])
        if significant_bytes(float(predict_memory(job, table).nvidia_smi_bytes[0])) <= limit:
            yield significant(float(predict_time(job, table).step_time_s[0])), shape


def _search(layouts: int, possible: int, fitting: int, bound_s: float) -> SearchResult:
    rejected = {NO_ROOM: layouts - possible, TOO_LARGE: possible - fitting}
    return SearchResult(
        best=Found(layout=Layout(), step_time_s=bound_s, peak_bytes=0.0),
        alternatives=(),
        candidates=layouts,
        feasible=fitting,
        rejected={reason: count for reason, count in rejected.items() if count},
        value=bound_s,
        lower_bound=bound_s,
    )


def _plan(shape: Shape, inputs: Inputs, search: SearchResult) -> Plan:
    """Make the plan of a shape: that of the even step that takes as long, with the batch as it is."""
    predicted = predicted_with(inputs, shape.layout, shape.batches)
    best = Found(layout=shape.layout, step_time_s=predicted.step_time_s, peak_bytes=0.0)
    result = SearchResult(
        best=best,
        alternatives=(),
        candidates=search.candidates,
        feasible=search.feasible,
        rejected=search.rejected,
        value=predicted.step_time_s,
        lower_bound=search.lower_bound,
    )
    even = even_inputs(inputs, shape.layout, shape.batches)
    # Faster than any even layout: the bound is then its own, and holds for nothing else.
    proof: Proof = "given" if result.value == result.lower_bound else "bounded"
    made = assembled(even, result, free=None, proof=proof)
    update = {"inputs": digested(inputs), "predicted": predicted, "replica_batches": shape.batches}
    return made.model_copy(update=update)


def _candidate(old: Plan, new: Plan, left: Left, storage_bytes_per_s: float | None) -> Candidate:
    """Weigh what moves: nothing of gradients, as a step that was cut short is run again."""
    seated = seats(old, new, left)
    move = moved(old, new, left, seated, storage_bytes_per_s=storage_bytes_per_s, balanced=False)
    return Candidate(plan=new, seats=seated, move=move)


def moved(
    old: Plan,
    new: Plan,
    left: Left,
    seated: IntArray,
    *,
    storage_bytes_per_s: float | None = None,
    balanced: bool = True,
) -> Reshard:
    """Solve what moves to ranks on these devices; `balanced` finds the least busy senders too. Raises SolverFailed."""
    entry = old.inputs.cluster.entry.model_copy(update={"devices": left.numbers})
    cluster = old.inputs.cluster.model_copy(update={"entry": entry})
    wide = old.model_copy(update={"inputs": old.inputs.model_copy(update={"cluster": cluster})})
    before = np.arange(old.mesh.devices)
    before[np.isin(before, left.lost)] = -1
    return resharded(
        transformer_of(old.inputs.model.entry),
        placement_of(old, gradients=False),
        placement_of(new, gradients=False),
        machines_of(wide, storage_bytes_per_s=storage_bytes_per_s),
        old_devices=before,
        new_devices=seated,
        balanced=balanced,
    )
