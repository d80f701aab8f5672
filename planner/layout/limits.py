"""What a user asks of the layout itself: some fields fixed, some values forbidden, some degrees at most so large.

    fix      {"tensor_parallel": 8}             no other value
    forbid   {"schedule": ["gpipe"]}            none of these; what is no pipeline has no schedule to forbid, and so on
    max      {"pipeline_parallel": 8}           no larger value

Limits are rules (rules.py) of the columns they name, and applied as soon as those are made.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np
from pydantic import Field, ValidationInfo, field_validator, model_validator

from meshwright.catalog.entry import Entry, field_error
from meshwright.catalog.errors import InputError
from meshwright.catalog.names import match_name
from meshwright.costmodels.job import Job
from meshwright.costmodels.layout import CONTEXT_METHODS, RECOMPUTES, SCHEDULES, BoolArray, Layout, LayoutTable
from meshwright.planner.layout.rules import Columns, Rule

Value = bool | int | str
Keeps = Callable[[Columns], BoolArray]

DEGREES = (
    "tensor_parallel",
    "context_parallel",
    "pipeline_parallel",
    "virtual_pipeline",
    "data_parallel",
    "expert_parallel",
    "expert_tensor_parallel",
    "micro_batch",
)
CLOSED: Mapping[str, tuple[Value, ...]] = {
    "sequence_parallel": (False, True),
    "vocabulary_parallel": (False, True),
    "zero_stage": (0, 1, 2, 3),
    "context_method": tuple(map(str, CONTEXT_METHODS)),
    "recompute": tuple(map(str, RECOMPUTES)),
    "schedule": tuple(map(str, SCHEDULES)),
}
FIELDS = (*DEGREES, *CLOSED)
ORDERED = (*DEGREES, "zero_stage")
SHORT = {
    "tp": "tensor_parallel",
    "cp": "context_parallel",
    "pp": "pipeline_parallel",
    "vp": "virtual_pipeline",
    "dp": "data_parallel",
    "ep": "expert_parallel",
    "etp": "expert_tensor_parallel",
}
# What has no such field where that degree is 1.
MOOT = {"schedule": "pipeline_parallel", "context_method": "context_parallel"}
LARGEST = 10**9


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
            if info.field_name == "max" and _field(name) not in ORDERED:
                raise field_error(f"{name:.80}", "has no order; forbid values of it, or fix one")
        return {(field := _field(name)): _value(field, value, key=name) for name, value in given.items()}

    @field_validator("forbid", mode="before")
    @classmethod
    def _some_values_each(cls, given: Any) -> Any:  # noqa: ANN401 - what a file holds
        if not isinstance(given, Mapping):
            return given
        several = {name: values if isinstance(values, list | tuple) else [values] for name, values in given.items()}
        return {
            (field := _field(name)): tuple(dict.fromkeys(_value(field, value, key=name) for value in values))
            for name, values in several.items()
        }

    @model_validator(mode="after")
    def _leave_something(self) -> Self:
        for field, value in self.fix.items():
            if field in self.max and int(value) > self.max[field]:
                raise field_error(f"fix.{field}", f"is {_shown(value)}, but at most {self.max[field]} is asked for too")
            if value in self.forbid.get(field, ()):
                raise field_error(f"fix.{field}", f"is {_shown(value)}, which is forbidden too")
        for field, forbidden in self.forbid.items():
            if not _left(field, forbidden, self.max.get(field, LARGEST)):
                raise field_error(f"forbid.{field}", "leaves no value of it")
        return self

    def __bool__(self) -> bool:
        """Say whether anything is limited."""
        return bool(self.fix or self.forbid or self.max)

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
            *(f"--fix {field}={_shown(value)}" for field, value in self.fix.items()),
            *(f"--forbid {field}={_shown(value)}" for field, values in self.forbid.items() for value in values),
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
        """Give the rules of the limits on some columns."""
        return tuple(_rule(option, keeps) for column in columns for option, keeps in self._kept(column))

    def broken_by(self, layout: Layout) -> tuple[str, ...]:
        """Give the limits, as options, that a layout doesn't keep."""
        table = LayoutTable.of([layout])
        columns = {field: getattr(table, field) for field in FIELDS}
        return tuple(option for field in FIELDS for option, keeps in self._kept(field) if not keeps(columns).all())

    def _by_kind(self) -> Iterator[tuple[str, Mapping[str, object]]]:
        yield from (("fix", self.fix), ("forbid", self.forbid), ("max", self.max))

    def _kept(self, field: str) -> Iterator[tuple[str, Keeps]]:
        if field in self.fix:
            yield f"--fix {field}={_shown(self.fix[field])}", _equal_to(field, self.fix[field])
        for value in self.forbid.get(field, ()):
            yield f"--forbid {field}={_shown(value)}", _other_than(field, value)
        if field in self.max:
            yield f"--max {field}={self.max[field]}", _at_most(field, self.max[field])


def limits_of(
    *, fix: Sequence[str] = (), forbid: Sequence[str] = (), most: Sequence[str] = (), option: str = "--fix"
) -> dict[str, dict[str, Any]]:
    """Give what limits in words ("tensor_parallel=8") say, for Limits to check; `option` is where `fix` is from.

    Raises InputError where one isn't of that form or contradicts another.
    """
    forbidden: dict[str, list[Value]] = {}
    for field, value in _pairs("--forbid", forbid):
        forbidden.setdefault(field, []).append(value)
    return {"fix": _single(option, fix), "forbid": forbidden, "max": _single("--max", most)}


def code_of(field: str, value: Value) -> int:
    """Give the value as the column of a LayoutTable holds it."""
    return CLOSED[field].index(value) if field in CLOSED else int(value)


def value_of(field: str, code: int) -> Value:
    """Give what a column holds as its value."""
    return CLOSED[field][code] if field in CLOSED else int(code)


def shown_limit(field: str, code: int) -> str:
    """Show what a column holds as users write it."""
    return _shown(value_of(field, code))


def _single(option: str, words: Sequence[str]) -> dict[str, Value]:
    found: dict[str, Value] = {}
    for field, value in _pairs(option, words):
        if found.setdefault(field, value) != value:
            raise InputError(f"is given as both {_shown(found[field])} and {_shown(value)}", path=f"{option} {field}")
    return found


def _pairs(option: str, words: Sequence[str]) -> Iterator[tuple[str, Value]]:
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name.strip() or not value.strip():
            raise InputError(f"must be FIELD=VALUE, not {word!r:.60}", path=option, hint="such as tensor_parallel=8")
        field = name.strip().replace("-", "_")
        yield SHORT.get(field, field), _read(value.strip())


def _read(text: str) -> Value:
    if text.isascii() and text.removeprefix("-").isdigit() and len(text) < 20:
        return int(text)
    return {"true": True, "false": False}.get(text.casefold(), text)


def _field(name: object) -> str:
    try:
        return SHORT.get(str(name)) or match_name(str(name), FIELDS, kind="field of a layout")
    except InputError as error:
        raise field_error(f"{name:.80}", error.message, hint=error.hint) from None


def _value(field: str, value: object, *, key: object) -> Value:
    if field in CLOSED:
        for known in CLOSED[field]:
            if value == known and type(value) is type(known):
                return known
        every = ", ".join(map(_shown, CLOSED[field]))
        raise field_error(f"{key}", f"must be one of {every}, not {_shown(value)}")
    if type(value) is not int or not 1 <= value <= LARGEST:
        raise field_error(f"{key}", f"must be a whole number from 1 to {LARGEST:,}, not {_shown(value)}")
    return value


def _left(field: str, forbidden: tuple[Value, ...], most: int) -> bool:
    if field not in CLOSED:
        return sum(int(value) <= most for value in forbidden) < most
    return any(value not in forbidden and (field not in ORDERED or int(value) <= most) for value in CLOSED[field])


def _shown(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value!s:.60}"


def _rule(option: str, keeps: Keeps) -> Rule:
    def rule(_: Job, columns: Columns) -> BoolArray:
        return keeps(columns)

    return Rule(reason=f"{option} asks otherwise", keeps=rule)


def _equal_to(field: str, value: Value) -> Keeps:
    def keeps(columns: Columns) -> BoolArray:
        return np.asarray(columns[field] == code_of(field, value))

    return keeps


def _other_than(field: str, value: Value) -> Keeps:
    def keeps(columns: Columns) -> BoolArray:
        moot = columns[MOOT[field]] == 1 if field in MOOT else False
        return np.asarray(moot | (columns[field] != code_of(field, value)))

    return keeps


def _at_most(field: str, most: int) -> Keeps:
    def keeps(columns: Columns) -> BoolArray:
        return np.asarray(columns[field] <= most)

    return keeps
