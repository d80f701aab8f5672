"""Lengths of sequences in files: `.npy`, text, CSV and JSON lines, of one step or several, one a line."""

import csv
import re
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
    In `.csv` the name of an only column is passed over, fields may be quoted, and only a line's last may be empty.

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
    of_line = _of_csv if path.suffix == ".csv" else _of_text
    if path.suffix == ".csv" and len(lines) > 1 and _is_name(lines[0]):
        lines[0] = ""
    rows = [of_line(line, file=f"{path}: line {number}") for number, line in enumerate(lines, start=1) if line]
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
    if any(isinstance(each, list) for each in found):
        raise InputError("has lists in a list", file=file, hint="give each step's list a line of its own")
    return found


def _of_csv(line: str, *, file: str) -> list[float]:
    try:
        cells = next(csv.reader([line], delimiter=";" if ";" in line else ",", strict=True))
    except csv.Error as error:
        raise InputError(f"is not CSV: {error}", file=file) from None
    while cells and not cells[-1].strip():
        cells.pop()
    for number, cell in enumerate(cells, start=1):
        if not cell.strip():
            raise InputError(f"field {number} is empty", file=file, hint="give each sequence's length, and no gaps")
    return _numbers([word for cell in cells for word in cell.split()], file=file)


def _of_text(line: str, *, file: str) -> list[float]:
    return _numbers(line.replace(",", " ").replace(";", " ").split(), file=file)


def _numbers(words: list[str], *, file: str) -> list[float]:
    try:
        return [float(word) for word in words]
    except ValueError:
        wrong = next(word for word in words if not _is_number(word))
        raise InputError(f"{wrong!r:.40} is not a length", file=file) from None


def _is_name(line: str) -> bool:
    """Tell whether a line is the name of the only column."""
    return not re.search(r"[\s,;]", line.strip()) and not _is_number(line.strip().strip('"'))


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
