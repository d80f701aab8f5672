"""Lists of what a consumer's configuration takes, kept beside the tests: by section, each field's types and choices."""

import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

TYPES: Mapping[str, type] = {
    "bool": bool,
    "int": int,
    "float": float,
    "str": str,
    "list": list,
    "tuple": tuple,
    "dict": dict,
    "other": dict,
    "null": type(None),
}
Sections = Mapping[str, Mapping[str, Any]]


@cache
def listed(consumer: str, version: str) -> dict[str, dict[str, dict[str, Any]]]:
    """Give the list of a consumer's version."""
    text = (Path(__file__).parent / consumer / f"{version}.json").read_text()
    sections: dict[str, dict[str, dict[str, Any]]] = json.loads(text)["sections"]
    return sections


def complaints(known: Mapping[str, Mapping[str, Mapping[str, Any]]], given: Sections) -> Iterator[str]:
    """Give what of some sections the list doesn't have: unknown, missing, of another type, or not a choice."""
    for section, values in given.items():
        if section not in known:
            yield f"{section}: unknown"
            continue
        fields = known[section]
        yield from (f"{section}.{name}: unknown" for name in values if name not in fields)
        required = (name for name, field in fields.items() if field.get("required"))
        yield from (f"{section}.{name}: missing" for name in required if name not in values)
        for name, value in values.items():
            if name in fields:
                yield from _of_value(f"{section}.{name}", fields[name], value)


def _of_value(path: str, field: Mapping[str, Any], value: object) -> Iterator[str]:
    types = field["types"]
    # A whole number is as good as a float, but true is no whole number.
    fits = any(type(value) is TYPES[name] for name in types) or (type(value) is int and "float" in types)
    if not fits:
        yield f"{path}: {value!r} isn't of {types}"
        return
    chosen = value if isinstance(value, list) else [value]
    if "choices" in field and value is not None:
        yield from (f"{path}: {one!r} isn't a choice" for one in chosen if one not in field["choices"])
