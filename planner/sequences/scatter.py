"""Split a step's sequences over groups of ranks: tables made once, then one call a step."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Self

import numpy as np

from meshwright.catalog.cluster_entry import ClusterEntry
from meshwright.catalog.errors import Infeasible, InputError
from meshwright.catalog.model_entry import ModelEntry, Positions
from meshwright.costmodels.layout import IntArray, Layout
from meshwright.planner.job_inputs import inputs_of, job_of
from meshwright.planner.planning import memory_limit_bytes
from meshwright.planner.sequences.batch import Batch, batch_of, lengths_of, require_room
from meshwright.planner.sequences.best import Best
from meshwright.planner.sequences.certificate import certified_bound_s
from meshwright.planner.sequences.checker import require_sound
from meshwright.planner.sequences.cost_table import group_costs
from meshwright.planner.sequences.group_costs import GroupCosts
from meshwright.planner.sequences.measured_groups import FittedCosts, fitted_costs, read_groups
from meshwright.planner.sequences.method import Method
from meshwright.planner.sequences.mode import Mode
from meshwright.planner.sequences.options import allowed_degrees, chosen, require_time_limit
from meshwright.planner.sequences.quick_bound import bound_s
from meshwright.planner.sequences.scattered import MicroBatch, RankGroup, Scattered
from meshwright.planner.sequences.search import search
from meshwright.planner.sequences.split import Split


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SequenceScatterer:
    """What splits any batch over the ranks of some costs; call it with a batch's lengths.

    costs: of groups of each degree. also: of another set of degrees, for splits of those alone.
    mode: lockstep or free; None for the better of those that the costs allow.
    time_limit_s: when to stop improving on the first answer; what is found then depends on the machine.
    no_empty_rank: give each rank a sequence in each micro-batch, and all as many micro-batches.
    certify: prove how far the answer is from the best by linear programs, which take seconds.
    max_positions: the longest sequence that the model has positions for; None for any.
    fit: how `costs` came of measured groups; None where they didn't.
    """

    costs: GroupCosts
    also: GroupCosts | None = None
    mode: Mode | None = None
    time_limit_s: float | None = None
    certify: bool = False
    no_empty_rank: bool = False
    max_positions: int | None = None
    fit: FittedCosts | None = None

    def __post_init__(self) -> None:
        require_time_limit(self.time_limit_s)
        if self.mode is Mode.FREE and not self.costs.free_allowed:
            raise InputError(
                "ranks that exchange gradients or parameters in each micro-batch wait for one another",
                path="mode",
                hint="lockstep, or ZeRO stage 0 or 1",
            )

    @classmethod
    def of(  # noqa: PLR0913 - what is known of model, cluster and software
        cls,
        model: str | Path | ModelEntry,
        cluster: str | Path | ClusterEntry,
        layout: Layout | None = None,
        *,
        method: Method | str = Method.HYBRID,
        degrees: Sequence[int] | None = None,
        any_degree: bool = False,
        max_degree: int | None = None,
        offload: bool = False,
        measured: Path | str | None = None,
        mode: Mode | str | None = None,
        time_limit_s: float | None = None,
        certify: bool = False,
        no_empty_rank: bool = False,
        memory_headroom: float = 0.05,
        precision: str = "bf16",
        stack: str | None = None,
        overlays: Sequence[Path] = (),
    ) -> Self:
        """Make one from a model, a cluster and a layout, by the cost model.

        model, cluster: names, files or entries, as for a plan. layout: tensor, expert and ZeRO degrees and
        recomputation; its data and context parallelism are what groups decide. By default ZeRO-1 over all devices.
        degrees: of groups; by default powers of two. any_degree: divisors of the ranks too (degrees.py), in splits of
        those alone.
        max_degree: no larger ones; 1 splits no sequence.
        offload: let groups keep activations in host memory, over its link, where device memory doesn't hold them.
        measured: a file of timed groups whose fit takes the place of the cost model's coefficients.

        Raises InputError where something can't be right, MissingData, and Infeasible where a device doesn't hold the
        model's states.
        """
        inputs = inputs_of(
            model,
            cluster,
            stack=stack,
            overlays=overlays,
            global_batch=1,
            sequence_length=1,
            precision=precision,
            objective="time",
            memory_headroom=memory_headroom,
            top=0,
        )
        job = job_of(inputs)
        own = default_layout(job.cluster.devices) if layout is None else layout
        ranks = own.world_size // own.tensor_parallel
        node_ranks = max(job.cluster.devices_per_node // own.tensor_parallel, 1)
        exchange = chosen(Method, method, path="method")
        sets = [
            allowed_degrees(ranks, node_ranks, degrees=degrees, any_degree=any_set, most=max_degree)
            for any_set in ((True, False) if any_degree else (False,))
        ]
        if set(sets[-1].tolist()) <= set(sets[0].tolist()):
            sets = sets[:1]
        tables = [
            group_costs(
                job, own, degrees=each, method=exchange, memory_bytes=memory_limit_bytes(inputs), offload=offload
            )
            for each in sets
        ]
        timed = None if measured is None else read_groups(Path(measured))
        fits = [None if timed is None else fitted_costs(table, timed) for table in tables]
        costs = [table if fit is None else fit.costs for table, fit in zip(tables, fits, strict=True)]
        entry = inputs.model.entry
        return cls(
            costs=costs[0],
            also=costs[1] if len(costs) > 1 else None,
            fit=fits[0],
            mode=None if mode is None else chosen(Mode, mode, path="mode"),
            time_limit_s=time_limit_s,
            certify=certify,
            no_empty_rank=no_empty_rank,
            max_positions=entry.max_positions if entry.positions is Positions.LEARNED else None,
        )

    @property
    def modes(self) -> tuple[Mode, ...]:
        """The modes that may be used. Without barriers a step is never longer."""
        if self.mode is not None:
            return (self.mode,)
        return (Mode.FREE, Mode.LOCKSTEP) if self.costs.free_allowed else (Mode.LOCKSTEP,)

    def __call__(self, lengths: object) -> Scattered:
        """Give the split of a batch of sequences of so many tokens [sequences]: the same lengths give the same one.

        Raises InputError where lengths can't be right or memory doesn't hold one, SolverFailed where the answer
        doesn't pass the independent check.
        """
        begun = perf_counter()
        if self.also is not None:
            return _better(replace(self, also=None), replace(self, costs=self.also, also=None), lengths)
        given = lengths_of(lengths)
        self._require_positions(given)
        # In this order the answer doesn't depend on that of the batch, not even by rounding.
        order = np.argsort(-given, kind="stable")
        require_room(self.costs, given)
        batch = batch_of(self.costs, given[order])
        modes = self.modes
        until = np.inf if self.time_limit_s is None else begun + self.time_limit_s
        best = Best.homogeneous(self.costs, batch, modes[0], until=float(until), full=self.no_empty_rank)
        if best is None:
            raise Infeasible(
                f"{len(batch):,} sequences can't give each of {self.costs.ranks:,} ranks one in each micro-batch",
                hint="let ranks be empty, or allow larger groups",
            )
        homogeneous_s = best.seconds
        least_s = bound_s(self.costs, batch, modes)
        if best.seconds > least_s:
            search(best, modes)
        if self.certify:
            least_s = certified_bound_s(self.costs, batch, best.seconds, free=Mode.FREE in modes)
        answer = Scattered(
            micro_batches=micro_batches_of(self.costs, batch, best.split, order),
            ranks=self.costs.ranks,
            devices_a_rank=self.costs.devices_a_rank,
            mode=best.mode,
            step_time_s=best.seconds,
            lower_bound_s=least_s,
            homogeneous_step_time_s=homogeneous_s,
            certified=self.certify,
            seconds=perf_counter() - begun,
        )
        self._check(answer, given)
        return answer

    def _require_positions(self, given: IntArray) -> None:
        if self.max_positions is not None and given.max() > self.max_positions:
            at = int(given.argmax())
            raise InputError(
                f"sequence {at} has {given[at]:,} tokens, and the model has learned {self.max_positions:,} positions",
                path=f"lengths.{at}",
            )

    def _check(self, answer: Scattered, lengths: IntArray) -> None:
        require_sound(
            [
                [(group.first_rank, group.degree, group.sequences.tolist(), group.time_s) for group in groups]
                for groups in answer.micro_batches
            ],
            lengths=lengths.tolist(),
            ranks=self.costs.ranks,
            node_ranks=self.costs.node_ranks,
            most_tokens=dict(zip(self.costs.degrees.tolist(), self.costs.most_tokens.tolist(), strict=True)),
            step_time_s=answer.step_time_s,
            lockstep=answer.mode is Mode.LOCKSTEP,
            every_rank=self.no_empty_rank,
        )


def _better(one: SequenceScatterer, other: SequenceScatterer, lengths: object) -> Scattered:
    """Give the better answer of two, with the bound and the baseline of both. Raises as the first where both do."""
    try:
        first = one(lengths)
    except Infeasible:
        return other(lengths)
    try:
        second = other(lengths)
    except (Infeasible, InputError):
        return first
    return replace(
        min(first, second, key=lambda answer: answer.step_time_s),
        lower_bound_s=min(first.lower_bound_s, second.lower_bound_s),
        homogeneous_step_time_s=min(first.homogeneous_step_time_s, second.homogeneous_step_time_s),
        seconds=first.seconds + second.seconds,
    )


def default_layout(devices: int) -> Layout:
    """Give the layout of as many replicas as devices, which share optimizer states (ZeRO-1)."""
    return Layout(data_parallel=devices, zero_stage=1, zero_shard=devices)


def micro_batches_of(costs: GroupCosts, batch: Batch, split: Split, index: IntArray) -> tuple[MicroBatch, ...]:
    """Give the groups of a split, with their sequences, of which the batch has those of `index` in its order."""
    split = split.ordered()
    seconds = split.seconds(costs, batch).tolist()
    order = np.argsort(split.group, kind="stable")
    ends = np.cumsum(np.bincount(split.group, minlength=len(split.degree)))
    sequences: list[IntArray] = [np.sort(part) for part in np.split(index[order], ends[:-1])]
    tokens = np.bincount(split.group, batch.tokens, len(split.degree)).astype(np.int64).tolist()
    degrees = costs.degrees[split.degree].tolist()
    turns = split.micro_batch.tolist()
    found: list[list[RankGroup]] = [[] for _ in range(max(turns) + 1)]
    for number, first_rank in enumerate(split.first_rank.tolist()):
        found[turns[number]].append(
            RankGroup(
                first_rank=first_rank,
                degree=degrees[number],
                sequences=sequences[number],
                tokens=tokens[number],
                time_s=seconds[number],
            )
        )
    return tuple(map(tuple, found))


def scatter_sequences(
    lengths: object,
    model: str | Path | ModelEntry,
    cluster: str | Path | ClusterEntry,
    layout: Layout | None = None,
    **options: object,
) -> Scattered:
    """Give the split of one batch; for more than one make a SequenceScatterer, whose tables are made once.

    options: those of SequenceScatterer.of. Raises as that and its call do.
    """
    return SequenceScatterer.of(model, cluster, layout, **options)(lengths)  # type: ignore[arg-type]
