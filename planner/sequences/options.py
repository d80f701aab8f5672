"""What a caller of the library asks for, checked."""

from collections.abc import Sequence
from enum import StrEnum
from math import isnan
from operator import index
from typing import SupportsIndex, TypeVar

import numpy as np

from meshwright.catalog.errors import InputError
from meshwright.catalog.names import match_name
from meshwright.costmodels.layout import IntArray
from meshwright.planner.sequences.degrees import any_degrees
from meshwright.planner.sequences.group_costs import powers_of_two

Choice = TypeVar("Choice", bound=StrEnum)


def chosen(kind: type[Choice], value: object, *, path: str) -> Choice:
    """Give the member that a name in any spelling means. Raises InputError where none is called so."""
    if not isinstance(value, str):
        raise InputError(f"{value!r:.60} is not a name", path=path, hint=f"known: {', '.join(kind)}")
    return kind(match_name(value, kind, kind=path))


def allowed_degrees(
    ranks: int, node_ranks: int, *, degrees: Sequence[int] | None, any_degree: bool, most: int | None
) -> IntArray:
    """Give the degrees that groups may have, ascending. Raises InputError where those asked for can't be.

    degrees: those alone, whatever `any_degree` is. most: no larger ones.
    """
    if degrees is None:
        found = any_degrees(ranks, node_ranks) if any_degree else powers_of_two(ranks)
    else:
        found = _given_degrees(degrees, ranks)
    if most is None:
        return found
    limit = whole(most, path="max_degree")
    if limit < 1:
        raise InputError(f"must be 1 at least, not {limit}", path="max_degree")
    kept = found[found <= limit]
    if not len(kept):
        raise InputError(f"no group is as small as {limit}: the least degree is {found[0]}", path="max_degree")
    return kept


def _given_degrees(degrees: Sequence[int], ranks: int) -> IntArray:
    if isinstance(degrees, str) or not hasattr(degrees, "__iter__"):
        raise InputError("must be a list of whole numbers", path="degrees")
    found = sorted({whole(degree, path="degrees") for degree in degrees})
    if not found or found[0] < 1 or found[-1] > ranks:
        raise InputError(f"must be whole numbers between 1 and the {ranks:,} ranks there are", path="degrees")
    return np.array(found, dtype=np.int64)


def whole(value: object, *, path: str) -> int:
    """Give a whole number. Raises InputError where it is none."""
    if isinstance(value, bool) or not isinstance(value, SupportsIndex):
        raise InputError(f"{value!r:.60} is not a whole number", path=path)
    return index(value)


def require_time_limit(limit_s: float | None) -> None:
    """Raise InputError where a time limit is no number of seconds."""
    if limit_s is None:
        return
    if isinstance(limit_s, bool) or not isinstance(limit_s, int | float) or isnan(limit_s) or limit_s < 0:
        raise InputError(
            f"{limit_s!r:.60} is not a number of seconds", path="time_limit_s", hint="0 or more, or None for no limit"
        )
