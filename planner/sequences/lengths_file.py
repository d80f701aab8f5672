"""Lengths of sequences in files: `.npy`, text, CSV and JSON lines, of one step or several, one a line."""

from pathlib import Path

import numpy as np

from meshwright.catalog.document import parse_json
from meshwright.catalog.errors import InputError
from meshwright.costmodels.layout import IntArray
from meshwright.planner.experts.array_file import read_npy, require_size
from meshwright.planner.sequences.batch import lengths_of


def read_lengths(path: Path) -> tuple[IntArray, ...]:
    """Give the lengths of each step.

    `.npy`: [sequences], or [steps, sequences]. JSON lines (`.jsonl`, `.ndjson`, `.json`): a list a line, or an object
    with `lengths`. Anything else: numbers between blanks or commas, a step a line; a number on each line is one step.

    Raises InputError where the file is of no such form, or a length can't be right, with its step.
    """
    file = str(path)
    if path.suffix == ".npy":
        array = read_npy(path)
        if array.ndim not in (1, 2):
            raise InputError(f"has {array.ndim} dimensions, not sequences, or steps and sequences", file=file)
        rows: list[object] = list(np.atleast_2d(array))
    else:
        rows = list(_lines(path))
    if not rows:
        raise InputError("holds no step", file=file, hint="give the lengths of a step's sequences on a line")
    return tuple(_step(row, file, number if len(rows) > 1 else None) for number, row in enumerate(rows))


def _step(row: object, file: str, number: int | None) -> IntArray:
    try:
        return lengths_of(row)
    except InputError as error:
        raise error.within(file if number is None else f"{file}: step {number}") from None


def _lines(path: Path) -> list[object]:
    require_size(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InputError("is neither text nor .npy", file=str(path)) from None
    except OSError as error:
        raise InputError(f"can't be read: {error.strerror or error}", file=str(path)) from None
    lines = [line for line in text.splitlines() if line.strip()]
    if path.suffix in (".jsonl", ".ndjson", ".json"):
        return [_of_json(line, file=f"{path}: line {number}") for number, line in enumerate(lines, start=1)]
    rows = [_of_text(line, file=f"{path}: line {number}") for number, line in enumerate(lines, start=1)]
    if all(len(row) == 1 for row in rows):
        return [[row[0] for row in rows]] if rows else []
    return list(rows)


def _of_json(line: str, *, file: str) -> object:
    found = parse_json(line, file=file)
    if isinstance(found, dict):
        if "lengths" not in found:
            raise InputError("has no lengths", file=file, hint='a list, or {"lengths": [...]}')
        found = found["lengths"]
    if not isinstance(found, list) or any(isinstance(each, bool) for each in found):
        raise InputError("isn't a list of lengths", file=file)
    return found


def _of_text(line: str, *, file: str) -> list[float]:
    words = line.replace(",", " ").replace(";", " ").split()
    try:
        return [float(word) for word in words]
    except ValueError:
        wrong = next(word for word in words if not _is_number(word))
        raise InputError(f"{wrong!r:.40} is not a length", file=file) from None


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
