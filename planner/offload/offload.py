"""Plan what a layout offloads: `plan_offload`."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

from meshwright.catalog.cluster_entry import ClusterEntry
from meshwright.catalog.errors import Infeasible, InputError
from meshwright.catalog.model_entry import ModelEntry
from meshwright.catalog.names import match_name
from meshwright.catalog.precision import Precision
from meshwright.catalog.quantity import parse_bytes
from meshwright.catalog.stack_entry import StackEntry
from meshwright.costmodels.layout import Layout
from meshwright.planner.consistency import layout_contradictions
from meshwright.planner.job_inputs import OverlayGiven, inputs_of, job_of
from meshwright.planner.offload.baselines import baselines
from meshwright.planner.offload.forward_only import Mode
from meshwright.planner.offload.host import UpdateRates, host_of, with_nvme
from meshwright.planner.offload.layout_file import read_layout
from meshwright.planner.offload.offload_plan import OffloadPlan
from meshwright.planner.offload.problem import Problem
from meshwright.planner.offload.questions import problem_of, without_recompute
from meshwright.planner.offload.solve import Solved, gib, solve
from meshwright.planner.offload.target import OffloadTarget
from meshwright.planner.offload.targets.solving import Expressed, expressed, least_shown_bytes
from meshwright.planner.plan_schema import Inputs

# What a device or a host is named after may be a little more than what it has.
NOMINAL = 1.05


def plan_offload(  # noqa: PLR0913 - one argument a field of the question
    model: str | Path | ModelEntry,
    cluster: str | Path | ClusterEntry,
    *,
    layout: Layout | Mapping[str, Any] | str | Path,
    global_batch: int,
    sequence_length: int,
    precision: str | Precision = Precision.BF16,
    stack: str | StackEntry | None = None,
    memory_budget: str | int | None = None,
    host_memory: str | int | None = None,
    nvme: bool = False,
    target: str | OffloadTarget = OffloadTarget.FREE,
    rates: UpdateRates | None = None,
    mode: str | Mode = Mode.TRAINING,
    memory_headroom: float = 0.05,
    overlays: Sequence[OverlayGiven] = (),
) -> OffloadPlan:
    """Decide what of a layout stays on the device, moves to the host or is computed again.

    Args:
        model: a catalog name, a path, or an entry.
        cluster: a catalog name, optionally with its size ("dgx-h100:8"), a path likewise, or an entry.
        layout: the layout, its fields, or a file of them; its recomputation is left aside.
        global_batch: sequences of one optimizer step.
        sequence_length: tokens of a sequence.
        precision: of the matrix products.
        stack: the training software; by default that of the cluster's device.
        memory_budget: what a device may hold as nvidia-smi shows it, bytes or "40 GiB"; by default its memory less the
            headroom.
        host_memory: what the ranks of a node may take of its memory, bytes or "1 TiB"; by default all of it.
        nvme: whether states may go to the node's drives.
        target: the launcher that is to run it: free, deepspeed, megatron or torch.
        rates: measured rates of the host (rate_fit.py), in place of the catalog's.
        mode: training, zeroth-order training, or inference.
        memory_headroom: share of device memory to leave free where no budget is given.
        overlays: files of calibrated figures, or entries, to lay over the catalog's.

    Raises InputError, MissingData where the catalog lacks a bandwidth, and Infeasible, with the smallest memory that
    would do, where nothing fits.

    """
    inputs = inputs_of(
        model,
        cluster,
        stack=stack,
        overlays=overlays,
        global_batch=global_batch,
        sequence_length=sequence_length,
        precision=precision,
        objective="time",
        top=0,
        memory_headroom=memory_headroom,
    )
    return offload_of(
        inputs,
        read_layout(layout),
        memory_budget=memory_budget,
        host_memory=host_memory,
        nvme=nvme,
        target=target,
        rates=rates,
        mode=mode,
    )


def offload_of(  # noqa: PLR0913 - one argument a choice of the caller's
    inputs: Inputs,
    layout: Layout,
    *,
    memory_budget: str | int | None = None,
    host_memory: str | int | None = None,
    nvme: bool = False,
    target: str | OffloadTarget = OffloadTarget.FREE,
    rates: UpdateRates | None = None,
    mode: str | Mode = Mode.TRAINING,
    improve: bool = True,
) -> OffloadPlan:
    """Decide as plan_offload does, for inputs that are resolved already; without improvement it takes far less time."""
    start = perf_counter()
    known = OffloadTarget(match_name(str(target), list(OffloadTarget), kind="offload target"))
    problem = offload_problem(
        inputs,
        layout,
        memory_budget=memory_budget,
        host_memory=host_memory,
        nvme=nvme,
        rates=rates,
        mode=Mode(match_name(str(mode), list(Mode), kind="mode")),
    )
    free = solve(problem, improve=improve)
    own = None if known is OffloadTarget.FREE else _expressed(problem, layout, known, free)
    chosen = free.best if own is None else own.best
    return OffloadPlan(
        model=inputs.model.entry.name,
        cluster=inputs.cluster.entry.name,
        target=known,
        layout=without_recompute(layout),
        problem=problem,
        chosen=chosen,
        lower_bound_s=free.lower_bound_s,
        slower_than_free=chosen.step_time_s / free.best.step_time_s - 1,
        baselines=baselines(problem),
        settings={} if own is None else own.settings,
        seconds=perf_counter() - start,
        lp_s=free.lp_s,
    )


def offload_problem(
    inputs: Inputs,
    layout: Layout,
    *,
    memory_budget: str | int | None = None,
    host_memory: str | int | None = None,
    nvme: bool = False,
    rates: UpdateRates | None = None,
    mode: Mode = Mode.TRAINING,
) -> Problem:
    """Give the problem that a layout poses. Raises InputError and MissingData."""
    for path, contradiction in layout_contradictions("layout", layout, inputs):
        raise InputError(contradiction, path=path)
    job = job_of(inputs, devices=layout.world_size)
    has = inputs.device.entry.memory.capacity
    limit = has * (1 - inputs.job.memory_headroom)
    budget = limit if memory_budget is None else _bytes(memory_budget, "memory_budget", most=has)
    per_node = inputs.cluster.entry.devices_per_node
    ranks = min(per_node, layout.world_size)
    host = host_of(job.cluster.device, devices_per_node=per_node, ranks=ranks, rates=rates)
    if host_memory is not None:
        host = replace(host, memory_bytes=_bytes(host_memory, "host_memory", most=host.memory_bytes * ranks) / ranks)
    if nvme:
        host = with_nvme(host, job.cluster.device, devices_per_node=per_node)
    return problem_of(job, layout, host, limit_bytes=budget, mode=mode)


def _expressed(problem: Problem, layout: Layout, target: OffloadTarget, free: Solved) -> Expressed:
    found = expressed(problem, layout, target)
    if found is None:
        least = least_shown_bytes(problem, layout, target)
        budget = (
            "" if least is None else f'the smallest budget that would do is --memory-budget "{gib(least, up=True)}"'
        )
        raise Infeasible(
            f"nothing that {target} can express fits",
            nearest_miss=f"free of it, a step takes {free.best.step_time_s:.3g} s",
            hint=f"{budget or 'no budget would do'}; or choose another --target, or a layout with more shards",
        )
    return found


def _bytes(value: str | int, path: str, *, most: float) -> int:
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise InputError(f"must be bytes or a text such as 40 GiB, not {value!r:.60}", path=path)
    if isinstance(value, int):
        size = value
    else:
        try:
            size = parse_bytes(value)
        except ValueError as error:
            raise InputError(str(error), path=path, hint='such as "40 GiB"') from None
    if not 0 < size <= most * NOMINAL:
        raise InputError(
            f"{str(value)[:40]} isn't from one byte to the {gib(most)} that there are",
            path=path,
            hint="a cluster file of your own may have more",
        )
    return min(size, int(most))
