"""Limits in words, as the command line has them."""

from collections.abc import Iterator, Sequence
from typing import Any

from meshwright.catalog.errors import InputError
from meshwright.planner.layout.limited_fields import SHORT, Value, shown


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


def _single(option: str, words: Sequence[str]) -> dict[str, Value]:
    found: dict[str, Value] = {}
    for field, value in _pairs(option, words):
        if found.setdefault(field, value) != value:
            raise InputError(f"is given as both {shown(found[field])} and {shown(value)}", path=f"{option} {field}")
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
