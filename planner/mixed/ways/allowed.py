"""What a user allows: the ways by name, each with a number where it has one ("diloco:50")."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from meshwright.catalog.errors import InputError


class Allowed(StrEnum):
    """The ways that change the mathematics."""

    DILOCO = "diloco"
    NOLOCO = "noloco"
    CO2 = "co2"
    COMPRESS = "compress"
    SKIP_STAGES = "skip-stages"


# What a number behind the name is, and what it is where none is given.
NUMBERS = {
    Allowed.DILOCO: ("local steps", 100),
    Allowed.NOLOCO: ("local steps", 50),
    Allowed.CO2: ("local steps", 1),
    Allowed.COMPRESS: ("per mille of the gradients kept", 10),
    Allowed.SKIP_STAGES: ("per cent of the stages skipped", 25),
}
LARGEST = {Allowed.COMPRESS: 500, Allowed.SKIP_STAGES: 50}
MOST = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Permission:
    """A way that is allowed, with its number."""

    way: Allowed
    number: int


def permissions(given: Sequence[str]) -> tuple[Permission, ...]:
    """Read what is allowed. Raises InputError where a name is unknown or twice there, or a number out of range."""
    found: list[Permission] = []
    for text in given:
        name, colon, number = text.partition(":")
        if name not in tuple(Allowed):
            raise InputError(f"no way is called {name!r:.60}", path="allow", hint=f"known: {', '.join(Allowed)}")
        way = Allowed(name)
        most = LARGEST.get(way, MOST)
        if colon and not (number.isascii() and number.isdigit() and len(number) <= 6 and 1 <= int(number) <= most):
            raise InputError(f"{text!r:.60} needs a whole number from 1 to {most}: {NUMBERS[way][0]}", path="allow")
        if any(each.way is way for each in found):
            raise InputError(f"{name} is allowed twice", path="allow", hint="give it once")
        found.append(Permission(way=way, number=int(number) if colon else NUMBERS[way][1]))
    return tuple(found)
