"""Reading files of cases."""

from collections.abc import Iterable
from pathlib import Path

from meshwright.catalog.document import read_document, validate
from meshwright.catalog.errors import InputError
from meshwright.planner.accuracy.case import Case


def load_cases(path: Path) -> tuple[Case, ...]:
    """Read the cases of one file, a YAML or JSON list.

    Raises InputError with the file and the path to the first bad field ("3.layout.recompute": in the fourth case).
    """
    document = read_document(path)
    if not isinstance(document, list) or not document:
        raise InputError(
            "is not a list of cases",
            file=str(path),
            hint='start each case with "- id: NAME"; catalog/measurements/README.md lists its fields',
        )
    return parse_cases(document, file=str(path))


def parse_cases(items: Iterable[object], *, file: str) -> tuple[Case, ...]:
    """Make cases of parsed documents. Raises InputError with the path to the first bad field."""
    return tuple(validate(Case, item, file=file, path=str(index)) for index, item in enumerate(items))
