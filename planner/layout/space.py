"""Every layout of a job: the choices of `choices.py`, grown one after another and pruned by the rules of `rules.py`.

    rows(0)   = meshes(devices), kept by MESH_RULES
    rows(k)   = repeat(rows(k-1), options offered to each) with the choice's columns, kept by the choice's rules

Branches are made at once; twigs and leaves only of those that are asked for, since most need not be looked at.

`candidates` is the sum over all meshes of the product of the options that each choice offers: every combination before
any rule. A row that a rule rejects at stage k stands for the product of the options that later choices would have
offered to it, and the rule that is first in order gets the blame, so that

    candidates = legal layouts + sum of rejected
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from meshwright.catalog.schedule import Schedule
from meshwright.costmodels.job import Job
from meshwright.costmodels.layout import SCHEDULES, BoolArray, IntArray, LayoutTable, Split
from meshwright.planner.layout.choices import Choice, branch_choices, leaf_choices, meshes, twig_choices
from meshwright.planner.layout.context import hybrid_ulysses
from meshwright.planner.layout.limits import Limits
from meshwright.planner.layout.partitions import shard_columns
from meshwright.planner.layout.rules import MESH_RULES, Columns, Rule

UNDECIDED = {
    "zero_stage": 0,
    "partition": 0,
    "schedule": SCHEDULES.index(Schedule.ONE_F_ONE_B),
    "virtual_pipeline": 1,
    "vocabulary_parallel": 0,
    "recompute": 0,
    "recompute_layers": 0,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Grown:
    """Rows that were grown of others.

    rows: columns of shape [rows]. parent: the row that each was grown of. rejected: how many candidates each reason
    rejected meanwhile, in order of the rules.
    """

    rows: Columns
    parent: IntArray
    rejected: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.parent)


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """The layouts of one job.

    candidates: combinations before any rule. branches: the legal ones, with what was rejected before.
    limits: what else is asked of layouts.
    """

    job: Job
    candidates: int
    branches: Grown
    limits: Limits = field(default_factory=Limits)

    def twigs(self, branches: Columns) -> Grown:
        """Give all twigs of some branches, in order."""
        return _grown(self.job, branches, twig_choices(self.job), later=leaf_choices(), limits=self.limits)

    def leaves(self, twigs: Columns) -> Grown:
        """Give all legal leaves of some twigs, in order."""
        return _grown(self.job, twigs, leaf_choices(), later=(), limits=self.limits)

    def below_branches(self, branches: Columns) -> IntArray:
        """Give how many candidates each branch stands for, [branches]."""
        return _options(branches, (*twig_choices(self.job), *leaf_choices()))

    def below_twigs(self, twigs: Columns) -> IntArray:
        """Give how many candidates each twig stands for, [twigs]."""
        return _options(twigs, leaf_choices())

    def table(self, rows: Columns) -> LayoutTable:
        """Give rows as layouts; what isn't decided yet is 1F1B of one chunk without ZeRO and recomputation."""
        nothing = np.zeros(len(rows["tensor_parallel"]), dtype=np.int64)
        decided = {name: nothing + value for name, value in UNDECIDED.items()} | dict(rows)
        partition = decided.pop("partition")
        columns = {
            **decided,
            **shard_columns(self.job.cluster, decided, partition),
            "ulysses_parallel": hybrid_ulysses(self.job, decided),
            "split": nothing,
        }
        asked = self.limits.sizes(len(self.job.model.layers))
        if not asked or "schedule" not in rows:
            return LayoutTable(**columns, splits=(Split(),))
        columns["split"] = nothing + 1
        return LayoutTable(**columns, splits=(Split(), Split(sizes=asked)))


def space_of(job: Job, limits: Limits | None = None) -> Space:
    """Make the space of a job on all devices of its cluster, within limits. Shapes: columns of [branches]."""
    limits = limits or Limits()
    choices, later = branch_choices(job), (*twig_choices(job), *leaf_choices())
    rows: Columns = meshes(job.cluster.devices)
    candidates = int(_options(rows, (*choices, *later)).sum())
    kept = _kept(job, rows, rules=(*limits.rules(rows), *MESH_RULES), later=(*choices, *later))
    grown = _grown(job, kept.rows, choices, later=later, limits=limits)
    branches = Grown(rows=grown.rows, parent=kept.parent[grown.parent], rejected={**kept.rejected, **grown.rejected})
    return Space(job=job, candidates=candidates, branches=branches, limits=limits)


def taken(rows: Columns, index: IntArray | BoolArray | slice) -> Columns:
    """Give some rows of columns."""
    return {name: column[index] for name, column in rows.items()}


def _options(rows: Columns, choices: Sequence[Choice]) -> IntArray:
    options = np.ones(len(rows["tensor_parallel"]), dtype=np.int64)
    for choice in choices:
        options *= choice.offered(rows)
    return options


def _grown(job: Job, rows: Columns, choices: Sequence[Choice], *, later: Sequence[Choice], limits: Limits) -> Grown:
    parent = np.arange(len(rows["tensor_parallel"]))
    rejected: dict[str, int] = {}
    for position, choice in enumerate(choices, start=1):
        known = set(rows)
        source, rows = _extended(rows, choice)
        rules = (*limits.rules(name for name in rows if name not in known), *choice.rules)
        kept = _kept(job, rows, rules=rules, later=(*choices[position:], *later))
        rows, parent = kept.rows, parent[source[kept.parent]]
        rejected |= kept.rejected
    return Grown(rows=rows, parent=parent, rejected=rejected)


def _extended(rows: Columns, choice: Choice) -> tuple[IntArray, Columns]:
    """Give each row once an option, with the number of the row that it was."""
    offered = choice.offered(rows)
    source = np.repeat(np.arange(len(offered)), offered)
    option = np.arange(len(source)) - np.repeat(np.cumsum(offered) - offered, offered)
    extended = {name: column[source] for name, column in rows.items()}
    extended |= {name: values[option] for name, values in choice.options.items()}
    over_tensor = extended.pop("experts_over_tensor", None)
    if over_tensor is not None:
        extended["expert_tensor_parallel"] = np.where(over_tensor == 1, extended["tensor_parallel"], 1)
    return source, extended


def _kept(job: Job, rows: Columns, *, rules: Sequence[Rule], later: Sequence[Choice]) -> Grown:
    """Give the rows that no rule rejects."""
    alive = np.ones(len(rows["tensor_parallel"]), dtype=bool)
    rejected: dict[str, int] = {}
    if rules:
        below = _options(rows, later)
        for rule in rules:
            broken = alive & ~rule.keeps(job, rows)
            if count := int(below[broken].sum()):
                rejected[rule.reason] = count
            alive &= ~broken
    parent = np.flatnonzero(alive)
    return Grown(rows=rows if alive.all() else taken(rows, parent), parent=parent, rejected=rejected)
