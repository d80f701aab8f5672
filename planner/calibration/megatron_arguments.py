"""The arguments that Megatron-LM prints before it trains.

So does what descends from it (Megatron-DeepSpeed, MindSpeed-LLM): one on a line, as
"  tensor_model_parallel_size ...................... 8", with the defaults filled in.
"""

import re
from collections.abc import Mapping

from meshwright.catalog.errors import InputError
from meshwright.planner.calibration.log_text import log_lines

_ARGUMENT = re.compile(r"(?<![\w.\-/])([a-z][a-z0-9_]{1,80}) \.{2,}(?: (.*))?$")
_VOCABULARY = re.compile(r"padded vocab \(size: [0-9]+\) with [0-9]+ dummy tokens \(new size: ([0-9]{1,9})\)")
_WHOLE = re.compile(r"-?[0-9]{1,18}")
NOTHING = frozenset({"", "None", "none", "null"})
# Fewer lines of that form may be of anything.
FEWEST = 10


class Arguments:
    """The printed arguments, by name; a value that is printed as None counts as not given."""

    __slots__ = ("_file", "_values")

    def __init__(self, values: Mapping[str, str], *, file: str) -> None:
        self._values = {name: value for name, value in values.items() if value not in NOTHING}
        self._file = file

    def has(self, *names: str) -> bool:
        """Tell whether one of the names is given."""
        return any(name in self._values for name in names)

    def text(self, *names: str) -> str | None:
        """Give the value of the first name that is given."""
        return next((self._values[name] for name in names if name in self._values), None)

    def whole(self, *names: str) -> int | None:
        """Give a whole number. Raises InputError where the value is none."""
        name = next((name for name in names if name in self._values), None)
        if name is None:
            return None
        if not _WHOLE.fullmatch(self._values[name]):
            raise InputError(f"the argument {name} is {self._values[name]!r:.40}, not a whole number", file=self._file)
        return int(self._values[name])

    def number(self, *names: str) -> float | None:
        """Give a number. Raises InputError where the value is none."""
        text = self.text(*names)
        try:
            return None if text is None else float(text)
        except ValueError:
            raise InputError(f"the argument {names[0]} is {text!r:.40}, not a number", file=self._file) from None

    def needed(self, *names: str) -> int:
        """Give a whole number. Raises InputError where it is missing."""
        found = self.whole(*names)
        if found is None:
            raise InputError(
                f"the printed arguments don't tell {names[0]}",
                file=self._file,
                hint="give the job in a file of one case with --case",
            )
        return found

    def on(self, *names: str) -> bool:
        """Tell whether one of the switches is given as True."""
        return any(self._values.get(name) == "True" for name in names)

    def switch(self, name: str) -> bool | None:
        """Give a switch; None where it isn't printed, as it is not by releases that don't have it."""
        return {"True": True, "False": False}.get(self._values.get(name, ""))


def arguments_of(text: str, *, file: str) -> Arguments | None:
    """Find the printed arguments of a log; None where it has none. Of an argument printed twice the last counts."""
    values: dict[str, str] = {}
    for _, content in log_lines(text):
        if match := _ARGUMENT.search(content):
            values[match[1]] = (match[2] or "").strip()
        elif match := _VOCABULARY.search(content):
            values["padded_vocab_size"] = match[1]
    return Arguments(values, file=file) if len(values) >= FEWEST else None
