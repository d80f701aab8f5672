"""What a user asks of the layout itself: some fields fixed, some values forbidden, some degrees at most so large.

    fix      {"tensor_parallel": 8}             no other value
    forbid   {"schedule": ["gpipe"]}            none of these; what is no pipeline has no schedule to forbid, and so on
    max      {"pipeline_parallel": 8}           no larger value

Limits are rules (rules.py) of what columns say of a field (told.py), and applied as soon as those are made.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import numpy as np
from pydantic import Field, ValidationInfo, field_validator, model_validator

from meshwright.catalog.entry import Entry, field_error
from meshwright.catalog.stack_entry import Splits
from meshwright.costmodels.job import Job
from meshwright.costmodels.layout import COLUMNS, BoolArray, IntArray, Layout, LayoutTable
from meshwright.costmodels.stages import chunk_sizes
from meshwright.planner.layout.choices import AS_FEW_AS_FIT
from meshwright.planner.layout.limited_fields import (
    EVEN,
    FIELDS,
    LARGEST,
    ORDERED,
    RECOMPUTED,
    SHARDS,
    SPLIT,
    Value,
    checked,
    code_of,
    field_named,
    leaves_some,
    shown,
    split_sizes,
)
from meshwright.planner.layout.rules import Columns, Rule
from meshwright.planner.layout.told import KNOWN_WITH, recomputed_layers, sharded_over, told

Keeps = Callable[[IntArray], BoolArray]

# What has no such field where one of these degrees is 1.
MOOT = {
    "schedule": ("pipeline_parallel",),
    "context_method": ("context_parallel",),
    "axis_order": ("pipeline_parallel", "data_parallel"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """One limit on a field, as an option: which values it keeps, and the degrees of which any 1 makes it moot."""

    option: str
    keeps: Keeps
    moot: tuple[str, ...] = ()

    def kept(self, columns: Columns, values: IntArray) -> BoolArray:
        """Give where a column of values keeps it, [rows]."""
        kept = np.asarray(self.keeps(values))
        for degree in self.moot:
            kept = kept | (columns[degree] == 1)
        return kept


class Limits(Entry):
    """Limits by the field of the layout that they are on; FIELDS are those that the search decides."""

    fix: dict[str, Value] = Field(default_factory=dict)
    forbid: dict[str, tuple[Value, ...]] = Field(default_factory=dict)
    max: dict[str, int] = Field(default_factory=dict)

    @field_validator("fix", "max", mode="before")
    @classmethod
    def _one_value_each(cls, given: Any, info: ValidationInfo) -> Any:  # noqa: ANN401 - what a file holds
        if not isinstance(given, Mapping):
            return given
        for name in given:
            if info.field_name == "max" and field_named(name) not in ORDERED:
                instead = "fix one" if field_named(name) == SPLIT else "forbid values of it, or fix one"
                raise field_error(f"{name:.80}", f"has no order; {instead}")
        return {(field := field_named(name)): checked(field, value, key=name) for name, value in given.items()}

    @field_validator("forbid", mode="before")
    @classmethod
    def _some_values_each(cls, given: Any) -> Any:  # noqa: ANN401 - what a file holds
        if not isinstance(given, Mapping):
            return given
        for name in given:
            if field_named(name) == SPLIT:
                raise field_error(f"{name:.80}", "can't be forbidden; fix one", hint="such as split=even")
        several = {name: values if isinstance(values, list | tuple) else [values] for name, values in given.items()}
        return {
            (field := field_named(name)): tuple(dict.fromkeys(checked(field, value, key=name) for value in values))
            for name, values in several.items()
        }

    @model_validator(mode="after")
    def _leave_something(self) -> Self:
        for field, value in self.fix.items():
            if field in self.max and int(value) > self.max[field]:
                raise field_error(f"fix.{field}", f"is {shown(value)}, but at most {self.max[field]} is asked for too")
            if value in self.forbid.get(field, ()):
                raise field_error(f"fix.{field}", f"is {shown(value)}, which is forbidden too")
        for field, forbidden in self.forbid.items():
            if not leaves_some(field, forbidden, self.max.get(field, LARGEST)):
                raise field_error(f"forbid.{field}", "leaves no value of it")
        return self

    def __bool__(self) -> bool:
        """Say whether anything is limited."""
        return bool(self.fix or self.forbid or self.max)

    def lifted(self) -> Self:
        """Give none of the limits; of a target only those of its own."""
        return self.model_copy(update={name: {} for name, _ in self._by_kind()})

    def without(self, field: str) -> Self:
        """Give the same limits, none of them on one field."""
        kept = {name: {key: value for key, value in own.items() if key != field} for name, own in self._by_kind()}
        return self.model_copy(update=kept)

    def with_(self, other: Self) -> Self:
        """Give these limits and others, which replace those on the same fields."""
        kept = self
        for field in other.fields():
            kept = kept.without(field)
        others = dict(other._by_kind())
        return kept.model_copy(update={name: {**own, **others[name]} for name, own in kept._by_kind()})

    def fields(self) -> tuple[str, ...]:
        """Give the fields that are limited, each once, in the order of FIELDS."""
        return tuple(field for field in FIELDS if any(field in own for _, own in self._by_kind()))

    def options(self) -> tuple[str, ...]:
        """Give the limits as options of the command line."""
        return (
            *(f"--fix {field}={shown(value)}" for field, value in self.fix.items()),
            *(f"--forbid {field}={shown(value)}" for field, values in self.forbid.items() for value in values),
            *(f"--max {field}={value}" for field, value in self.max.items()),
        )

    def allows(self, field: str, *, value: Value) -> bool:
        """Say whether the limits on a field leave it this value."""
        return (
            self.fix.get(field, value) == value
            and value not in self.forbid.get(field, ())
            and (field not in self.max or int(value) <= self.max[field])
        )

    def rules(self, columns: Iterable[str]) -> tuple[Rule, ...]:
        """Give the rules of the limits on what is known once some columns are."""
        fields = [field for column in columns for field in (column, *KNOWN_WITH.get(column, ()))]
        return tuple(rule for field in fields for rule in self._rules(field))

    def broken_by(self, layout: Layout, *, layers: int) -> tuple[str, ...]:
        """Give the limits, as options, that a layout of a model of so many layers doesn't keep."""
        table = LayoutTable.of([layout])
        columns = {name: getattr(table, name) for name in COLUMNS}
        sizes = layout.split or chunk_sizes(layers, layout.pipeline_parallel * layout.virtual_pipeline)
        own = {field: sharded_over(columns, table.zero_stage, field) for field in SHARDS}
        most = np.array([max(layout.recompute_split or sizes)])
        own[RECOMPUTED] = recomputed_layers(columns, most)
        broken = [
            limit.option
            for field in FIELDS
            for limit in self._on(field)
            if not limit.kept(columns, own.get(field, columns[field])).all()
        ]
        if SPLIT in self.fix and sizes != self.cut(layers, len(sizes)):
            broken.append(f"--fix {SPLIT}={self.fix[SPLIT]}")
        return tuple(broken)

    @property
    def fixes_split(self) -> bool:
        """Say whether the layers of each chunk are asked for."""
        return SPLIT in self.fix

    def sizes(self, layers: int) -> tuple[int, ...]:
        """Give the layers of each chunk that are asked for, empty where that is nothing or an even cut of `layers`."""
        sizes = split_sizes(self.fix.get(SPLIT, EVEN))
        return () if sizes and sizes == chunk_sizes(layers, len(sizes)) else sizes

    def cut(self, layers: int, chunks: int) -> tuple[int, ...] | None:
        """Give the layers of each of so many chunks that are asked for; None where nothing is asked of them."""
        return (split_sizes(self.fix[SPLIT]) or chunk_sizes(layers, chunks)) if SPLIT in self.fix else None

    def recompute_counts(self, most: int) -> IntArray:
        """Give the numbers from 1 to `most` of layers that may be recomputed of a chunk."""
        counts = np.arange(1, most + 1)
        kept = [limit.keeps(counts) for limit in self._on(RECOMPUTED)]
        return counts[np.logical_and.reduce(kept)] if kept else counts

    def _by_kind(self) -> Iterator[tuple[str, Mapping[str, object]]]:
        yield from (("fix", self.fix), ("forbid", self.forbid), ("max", self.max))

    def _on(self, field: str) -> Iterator[Limit]:
        if field == SPLIT:
            return
        moot = MOOT.get(field, ())
        if field in self.fix:
            code = code_of(field, self.fix[field])
            yield Limit(option=f"--fix {field}={shown(self.fix[field])}", keeps=lambda values: values == code)
        for value in self.forbid.get(field, ()):
            keeps = partial(np.not_equal, code_of(field, value))
            yield Limit(option=f"--forbid {field}={shown(value)}", keeps=keeps, moot=moot)
        if field in self.max:
            most = self.max[field]
            yield Limit(option=f"--max {field}={most}", keeps=lambda values: values <= most)

    def _rules(self, field: str) -> Iterator[Rule]:
        if field == SPLIT and SPLIT in self.fix:
            yield from _split_rules(self.fix[SPLIT])
        elif field == RECOMPUTED and (limits := tuple(self._on(field))):
            yield _recompute_rule(self, " ".join(limit.option for limit in limits))
        else:
            yield from (_rule(limit, field) for limit in self._on(field))


def largest_chunk(job: Job, limits: Limits, columns: Columns) -> IntArray:
    """Give the layers of the largest chunk, [rows]."""
    chunks, layers = columns["pipeline_parallel"] * columns["virtual_pipeline"], len(job.model.layers)
    asked = split_sizes(limits.fix.get(SPLIT, EVEN))
    return np.where(chunks == len(asked), max(asked, default=0), -(-layers // chunks))


def _rule(limit: Limit, field: str) -> Rule:
    def keeps(job: Job, columns: Columns) -> BoolArray:
        return limit.kept(columns, told(job, columns, field))

    return Rule(reason=f"{limit.option} asks otherwise", keeps=keeps)


def _recompute_rule(limits: Limits, options: str) -> Rule:
    """Give the rule of the numbers of recomputed layers; of as few as fit one has to be among them."""

    def keeps(job: Job, columns: Columns) -> BoolArray:
        largest = largest_chunk(job, limits, columns)
        allowed = np.zeros(largest.max(initial=0) + 1, dtype=bool)
        allowed[limits.recompute_counts(len(allowed) - 1)] = True
        allowed[0] = RECOMPUTED not in limits.fix
        some = np.cumsum(allowed) > allowed[0]
        few = columns[RECOMPUTED] == AS_FEW_AS_FIT
        return np.where(few, some[largest - 1], allowed[recomputed_layers(columns, largest)])

    return Rule(reason=f"{options} asks otherwise", keeps=keeps)


def _split_rules(value: Value) -> Iterator[Rule]:
    sizes = split_sizes(value)
    if not sizes:
        return

    def fits(job: Job, columns: Columns) -> BoolArray:
        pipeline = columns["pipeline_parallel"]
        whole = sum(sizes) == len(job.model.layers)
        if "virtual_pipeline" not in columns:
            return np.asarray((len(sizes) % pipeline == 0) & whole)
        return np.asarray((pipeline * columns["virtual_pipeline"] == len(sizes)) & whole)

    def is_cut(job: Job, columns: Columns) -> BoolArray:
        any_way = job.stack.splits is Splits.ANY or sizes == chunk_sizes(sum(sizes), len(sizes))
        return np.full(len(columns["pipeline_parallel"]), any_way)

    yield Rule(reason=f"--fix {SPLIT}={value} asks otherwise", keeps=fits)
    yield Rule(reason="the training software cuts layers evenly alone", keeps=is_cut)
