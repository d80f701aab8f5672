"""Arguments that several commands take."""

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, TypeAlias, TypeVar

import typer

from meshwright.catalog.errors import InputError

Value = TypeVar("Value")
_DURATIONS = {"s": 1.0, "ms": 1e-3, "min": 60.0, "h": 3600.0, "d": 86_400.0}
_LONG_DURATIONS = {
    name: seconds
    for seconds, names in (
        (60.0, ("minutes",)),
        (3600.0, ("hour", "hours")),
        (86_400.0, ("day", "days")),
        (7 * 86_400.0, ("week", "weeks")),
        (365.25 * 86_400.0, ("year", "years")),
    )
    for name in names
}
_NO_TIME = re.compile(rf"0(?:\.0+)?\s*(?:{'|'.join(_DURATIONS)})")
_COUNTS = {"": 0, "k": 3, "K": 3, "M": 6, "B": 9, "T": 12}
_COUNT = re.compile(r"([0-9][0-9_]*)(?:\.([0-9]+))?(?:[eE]\+?([0-9]{1,2}))?\s*([kKMBT]?)")


def duration(text: str) -> float:
    """Give the seconds of "10s", "90 min" or "30d". Raises InputError."""
    from meshwright.catalog.quantity import parse_quantity

    try:
        return parse_quantity(text, _DURATIONS)
    except ValueError as error:
        raise InputError(str(error)) from None


def pause(text: str) -> float:
    """Give the seconds of a duration, which may be "0s". Raises InputError."""
    return 0.0 if _NO_TIME.fullmatch(text.strip()) else duration(text)


def failure_time(text: str) -> tuple[float, str]:
    """Give the seconds, and of what, of "3 years/device" or "200 days/node". Raises InputError."""
    from meshwright.catalog.quantity import parse_quantity

    time, slash, unit = (part.strip() for part in text.lower().partition("/"))
    if not slash or unit not in ("device", "node"):
        raise InputError(f"{text!r:.60} isn't a time by device or node", hint='such as "3 years/device"')
    try:
        return parse_quantity(time, _DURATIONS | _LONG_DURATIONS), unit
    except ValueError as error:
        raise InputError(str(error)) from None


def rate(text: str) -> float:
    """Give the bytes/s of "100 GB/s". Raises InputError."""
    from pydantic import TypeAdapter, ValidationError

    from meshwright.catalog.quantity import BytesPerSecond

    try:
        return TypeAdapter(BytesPerSecond).validate_python(text)
    except ValidationError as error:
        raise InputError(str(error.errors()[0]["ctx"]["error"])) from None


def of_option(option: str, read: Callable[[str], Value]) -> Callable[[str], Value]:
    """Give the parser whose errors name the option that it reads."""

    def named(text: str) -> Value:
        try:
            return read(text)
        except InputError as error:
            raise InputError(error.message, path=option, hint=error.hint) from None

    return named


def one_of(kind: str, known: Iterable[str]) -> Callable[[str], str]:
    """Give what reads a member of a closed set, in any spelling, and raises InputError with all of them for others."""
    names = tuple(map(str, known))

    def read(text: str) -> str:
        from meshwright.catalog.names import canonical_name

        for name in names:
            if canonical_name(name) == canonical_name(text):
                return name
        raise InputError(f"no {kind} is called {text!r:.80}", hint=f"known: {', '.join(names)}")

    return read


def token_count(text: str) -> int:
    """Give the number of "15T", "15e12" or "300_000_000". Raises InputError where it isn't a whole number of tokens."""
    match = _COUNT.fullmatch(text.strip()) if len(text) <= 100 else None
    digits = match[1].replace("_", "") + (match[2] or "") if match else ""
    power = int(match[3] or 0) + _COUNTS[match[4]] - len(match[2] or "") if match else 0
    count: int = int(digits or 0) * 10 ** max(power, 0)
    if match is None or (power < 0 and count % 10**-power):
        raise InputError(f"{text!r:.60} is not a number of tokens", hint="such as 300B, 15T or 15e12")
    return count // int(10 ** max(-power, 0))


def file_path(name: str) -> Path:
    """Give the path of a file that a user named. Raises InputError for an empty name, which would be the folder."""
    if not name:
        raise InputError("the name of the file is empty")
    return Path(name)


def output_file(name: str) -> Path:
    """Give the path of a file to write. Raises InputError where it can't be, before the work for it is done."""
    from meshwright.planner.file_replacement import replaceable_file

    path = file_path(name)
    replaceable_file(path)
    return path


def require_distinct(files: Iterable[Path]) -> None:
    """Raise InputError where two of the files are one, by whatever path, or hold the same: it would count twice."""
    from meshwright.catalog.document import read_text

    known: dict[str, Path] = {}
    for file in files:
        content = read_text(file)
        if content in known:
            first = known[content]
            same = "is given twice" if file.resolve() == first.resolve() else f"holds the same as {first}"
            raise InputError(f"{same}, and would count twice", file=str(file), hint="give it once")
        known[content] = file


OverlayFiles: TypeAlias = Annotated[
    list[Path] | None,
    typer.Option(
        "--overlay",
        help="Lay these calibrated figures over the catalog's (`meshwright calibrate` writes them); the last counts.",
        parser=file_path,
        metavar="FILE",
    ),
]
