"""Every layout of a job: the choices of `choices.py`, grown stage by stage and pruned by the rules of `rules.py`.

    rows(0)   = meshes(devices), kept by MESH_RULES
    rows(k)   = repeat(rows(k-1), options offered to each) with the choice's columns, kept by the choice's rules
    layouts   = rows(last) x ZeRO stages x recompute, a slice at a time, since nothing there is illegal

`candidates` is the sum over all meshes of the product of the options that each choice offers: every combination before
any rule. A row that a rule rejects at stage k stands for the product of the options that later choices would have
offered to it, and the rule that is first in order gets the blame, so that

    candidates = legal layouts + sum of rejected
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from meshwright.costmodels.job import Job
from meshwright.costmodels.layout import CONTEXT_METHODS, ContextMethod, IntArray, LayoutTable
from meshwright.planner.layout.choices import Choice, choices_for, free_choices, meshes
from meshwright.planner.layout.partitions import shard_columns
from meshwright.planner.layout.rules import MESH_RULES, Rule

CHUNK_ROWS = 2**16


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """The layouts of one job.

    candidates: combinations before any rule. rejected: how many of them each reason rejected, in order of the rules.
    rows: legal rows before the free choices, as columns of shape [rows].
    """

    job: Job
    candidates: int
    rejected: Mapping[str, int]
    rows: Mapping[str, IntArray]

    @property
    def legal(self) -> int:
        """Number of legal layouts."""
        return int(_leaves(self.rows, free_choices(self.job)).sum())

    def slices(self, *, limit: int = CHUNK_ROWS) -> list[slice]:
        """Cut the rows so that each slice grows to about `limit` layouts."""
        ends = np.cumsum(_leaves(self.rows, free_choices(self.job)))
        slices: list[slice] = []
        start = 0
        while start < len(ends):
            before = int(ends[start - 1]) if start else 0
            stop = max(start + 1, int(np.searchsorted(ends, before + limit, side="right")))
            slices.append(slice(start, stop))
            start = stop
        return slices

    def layouts(self, part: slice) -> LayoutTable:
        """Give all legal layouts of a slice of the rows, in order."""
        rows = {name: column[part] for name, column in self.rows.items()}
        for choice in free_choices(self.job):
            rows = _grow(rows, choice)
        return _table(self.job, rows)


def space_of(job: Job) -> Space:
    """Make the space of a job on all devices of its cluster. Shapes: columns of [rows]."""
    choices = (*choices_for(job), *free_choices(job))
    rows: dict[str, IntArray] = meshes(job.cluster.devices)
    candidates = int(_leaves(rows, choices).sum())
    rejected: dict[str, int] = {}
    rows = _prune(job, rows, rules=MESH_RULES, later=choices, rejected=rejected)
    for position, choice in enumerate(choices_for(job), start=1):
        rows = _grow(rows, choice)
        rows = _prune(job, rows, rules=choice.rules, later=choices[position:], rejected=rejected)
    return Space(job=job, candidates=candidates, rejected=rejected, rows=rows)


def _leaves(rows: Mapping[str, IntArray], choices: Sequence[Choice]) -> IntArray:
    leaves = np.ones(len(rows["tensor_parallel"]), dtype=np.int64)
    for choice in choices:
        leaves *= choice.offered(rows)
    return leaves


def _grow(rows: Mapping[str, IntArray], choice: Choice) -> dict[str, IntArray]:
    offered = choice.offered(rows)
    parent = np.repeat(np.arange(len(offered)), offered)
    option = np.arange(len(parent)) - np.repeat(np.cumsum(offered) - offered, offered)
    grown = {name: column[parent] for name, column in rows.items()}
    grown |= {name: values[option] for name, values in choice.options.items()}
    over_tensor = grown.pop("experts_over_tensor", None)
    if over_tensor is not None:
        grown["expert_tensor_parallel"] = np.where(over_tensor == 1, grown["tensor_parallel"], 1)
    return grown


def _prune(
    job: Job,
    rows: dict[str, IntArray],
    *,
    rules: Sequence[Rule],
    later: Sequence[Choice],
    rejected: dict[str, int],
) -> dict[str, IntArray]:
    leaves = _leaves(rows, later)
    alive = np.ones(len(leaves), dtype=bool)
    for rule in rules:
        broken = alive & ~rule.keeps(job, rows)
        if count := int(leaves[broken].sum()):
            rejected[rule.reason] = count
        alive &= ~broken
    return rows if alive.all() else {name: column[alive] for name, column in rows.items()}


def _table(job: Job, rows: dict[str, IntArray]) -> LayoutTable:
    ring = CONTEXT_METHODS.index(ContextMethod.RING)
    partition = rows.pop("partition")
    nothing = np.zeros(len(partition), dtype=np.int64)
    columns = {
        **rows,
        **shard_columns(job.cluster, rows, partition),
        "context_method": nothing + ring,
        "recompute_layers": nothing,
        "split": nothing,
        "vocabulary_parallel": nothing,
    }
    return LayoutTable(**columns, splits=((),))
