"""What all logs have in common: colours, carriage returns, very long lines, and numbers that may be no numbers."""

import math
import re
from collections.abc import Iterator

from meshwright.catalog.errors import InputError

# No row of a table and no line of a step is nearly as long; what is longer is a dump of something else.
LONGEST_LINE = 2_000

_PRINTED_NUMBER = re.compile(r"[0-9,]+(?:\.([0-9]*))?(?:e\+([0-9]{1,2}))?")
_COLOURS = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\[[0-9]{1,3}(?:;[0-9]{1,3})*m")


def log_lines(text: str) -> Iterator[tuple[int, str]]:
    """Give each line with its number from 1, without colours; a progress bar's carriage returns part a line in two."""
    for number, line in enumerate(text.split("\n"), start=1):
        for part in line[:LONGEST_LINE].split("\r"):
            if part:
                yield number, _COLOURS.sub("", part)


def number_between(token: str, least: float, most: float, *, what: str, file: str, line: int) -> float:
    """Give the number that a token writes, thousands parted by commas or not.

    Raises InputError where it is none (nan and infinity included), or not from `least` to `most`.
    """
    try:
        value = float(token.replace(",", ""))
    except ValueError:
        value = math.nan
    if not least <= value <= most:
        raise InputError(
            f"line {line}: {what} {token!r:.40} is not a number from {least:g} to {most:g}",
            file=file,
            hint="leave the line out if its measurement failed",
        )
    return value


def half_unit(token: str) -> float:
    """Give half a unit of the last digit that a token prints, by which what was rounded to it may differ from it.

    0 where the number isn't written as 12.34 or 1.2e+07.
    """
    match = _PRINTED_NUMBER.fullmatch(token)
    return 0.0 if match is None else 0.5 * 10.0 ** (int(match[2] or 0) - len(match[1] or ""))
