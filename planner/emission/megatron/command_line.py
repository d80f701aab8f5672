"""Arguments of Megatron-LM as people keep them: a shell script, a list of words, or a recipe in YAML."""

import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from meshwright.catalog.errors import InputError

_VARIABLE = re.compile(r"\$")


class CommandLine:
    """Options by name without dashes, each with its values as text; a flag has none."""

    __slots__ = ("_file", "_values")

    def __init__(self, values: Mapping[str, tuple[str, ...]], *, file: str) -> None:
        self._values = values
        self._file = file

    def __contains__(self, name: object) -> bool:
        return name in self._values

    def texts(self, name: str) -> tuple[str, ...]:
        """Give the values of an option, none where it isn't given. Raises InputError where one is a variable."""
        values = self._values.get(name, ())
        for value in values:
            if _VARIABLE.search(value):
                raise InputError(
                    f"is {value!r:.60}, a variable of the shell", file=self._file, path=f"--{name}", hint="write it out"
                )
        return values

    def text(self, name: str) -> str | None:
        """Give the value of an option. Raises InputError where it has several, or none."""
        if name not in self:
            return None
        values = self.texts(name)
        if len(values) != 1:
            raise InputError(f"has {len(values)} values, not one", file=self._file, path=f"--{name}")
        return values[0]

    def whole(self, name: str) -> int | None:
        """Give a whole number. Raises InputError where the value is none, or less than 1."""
        text = self.text(name)
        if text is None:
            return None
        if not re.fullmatch(r"[0-9]{1,12}", text) or int(text) < 1:
            raise InputError(f"is {text!r:.60}, not a whole number from 1", file=self._file, path=f"--{name}")
        return int(text)

    def wholes(self, name: str) -> tuple[int, ...]:
        """Give whole numbers. Raises InputError where a value is none."""
        texts = self.texts(name)
        if not all(re.fullmatch(r"[0-9]{1,12}", text) for text in texts):
            raise InputError(f"is {' '.join(texts)!r:.60}, not whole numbers", file=self._file, path=f"--{name}")
        return tuple(map(int, texts))

    def needed(self, name: str) -> int:
        """Give a whole number. Raises InputError where it isn't given."""
        found = self.whole(name)
        if found is None:
            raise InputError("is missing", file=self._file, path=f"--{name}", hint="it must be among the arguments")
        return found


def command_line(text: str, *, file: str) -> CommandLine:
    """Read arguments. Raises InputError where there are none to be found."""
    values = dict(_of_recipe(text) if _is_recipe(text) else _of_words(text, file=file))
    if not values:
        raise InputError("holds no arguments that begin with --", file=file)
    return CommandLine(values, file=file)


def _is_recipe(text: str) -> bool:
    return re.search(r"^(MODEL_ARGS|--[a-z0-9-]+) *:", text, flags=re.MULTILINE) is not None


def _of_recipe(text: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    document: Any = yaml.safe_load(text)
    for name, value in document.get("MODEL_ARGS", document).items():
        if value is False or not str(name).startswith("--"):
            continue
        yield str(name).removeprefix("--"), () if value is True else tuple(_words_of(value))


def _words_of(value: object) -> Iterator[str]:
    text = str(value)
    # What is in brackets or bars is one value, with blanks or without.
    return iter([text]) if re.match(r"[(\[]|.*\|", text) else iter(text.split())


def _of_words(text: str, *, file: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    name, values = "", list[str]()
    try:
        words = shlex.split(text.replace("\\\n", " "), comments=True)
    except ValueError as error:
        raise InputError(f"isn't words of a shell: {error}", file=file) from None
    for word in words:
        if re.match(r"--[a-z0-9]", word):
            if name:
                yield name, tuple(values)
            name, _, value = word.removeprefix("--").partition("=")
            values = [value] if value else []
        elif word == ")" or re.match(r"[A-Za-z_][A-Za-z0-9_]*=", word):  # the end of an array, the start of another
            if name:
                yield name, tuple(values)
            name, values = "", []
        elif name:
            values.append(word)
    if name:
        yield name, tuple(values)
