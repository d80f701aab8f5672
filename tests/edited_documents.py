"""Edits of documents, for tests of what they are checked for."""

from typing import Any


def change(document: Any, path: str, value: object) -> None:  # noqa: ANN401 - whatever a file holds
    """Give the field at a path, dotted, another value; a function is one of the value that is there."""
    *way, last = path.split(".")
    for key in way:
        document = document[int(key) if isinstance(document, list) else key]
    place = int(last) if isinstance(document, list) else last
    document[place] = value(document[place]) if callable(value) else value
