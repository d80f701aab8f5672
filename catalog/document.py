"""Reading a YAML or JSON file that may be hostile: too large, binary, a directory, deeply nested, full of aliases.

Everything that enters meshwright from a file enters here, and every complaint is one InputError that names the file.
"""

import json
import re
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from meshwright.catalog.errors import InputError

MAXIMUM_BYTES = 16 * 2**20
MAXIMUM_DEPTH = 64
MAXIMUM_SCALAR = 100_000

try:
    from yaml import CSafeLoader as SafeLoader
except ImportError:  # PyYAML built without libyaml: slower, the same answers
    from yaml import SafeLoader  # type: ignore[assignment]

Model = TypeVar("Model", bound=BaseModel)


class _UniqueKeyLoader(SafeLoader):
    """The safe loader, except that a key given twice is an error, not a silent loss of the first value."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, list | dict):
                raise yaml.constructor.ConstructorError(None, None, "a key must be plain text", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r:.60} is given twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def read_text(path: Path) -> str:
    """Give the text of a file of at most 16 MiB of UTF-8.

    Raises InputError for anything else: no such file, a directory, a device, binary bytes, a file too large.
    """
    file = str(path)
    try:
        if path.is_dir():
            raise InputError("is a directory, not a file", file=file)
        if path.exists() and not path.is_file():
            raise InputError("is not a regular file", file=file)
        size = path.stat().st_size
        if size > MAXIMUM_BYTES:
            raise InputError(f"is {size / 2**20:.0f} MiB; at most {MAXIMUM_BYTES // 2**20} MiB are read", file=file)
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise InputError("no such file", file=file) from None
    except UnicodeDecodeError:
        raise InputError("is not UTF-8 text", file=file) from None
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise InputError(f"can't be read: {why}", file=file) from None
    if "\0" in text:
        raise InputError("is binary, not text", file=file)
    return text


def _refusal(event: yaml.Event, depth: int) -> str:
    """Say why an event can't stand in one of our files; empty if it can."""
    if isinstance(event, yaml.AliasEvent):
        return f"aliases (*{event.anchor}) aren't accepted"
    if isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent) and event.tag is not None:
        return f"tags ({event.tag:.60}) aren't accepted"
    if isinstance(event, yaml.ScalarEvent) and len(event.value) > MAXIMUM_SCALAR:
        return f"a value longer than {MAXIMUM_SCALAR:,} characters isn't accepted"
    return f"nested more than {MAXIMUM_DEPTH} deep" if depth > MAXIMUM_DEPTH else ""


def _check_events(text: str, *, file: str) -> None:
    """Read the events of the text without building anything from them. Raises InputError at the first refused one."""
    depth = 0
    for event in yaml.parse(text, Loader=SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        refusal = _refusal(event, depth)
        if refusal:
            where = f"line {event.start_mark.line + 1}: " if event.start_mark else ""
            raise InputError(where + refusal, file=file)


def parse_yaml(text: str, *, file: str) -> Any:  # noqa: ANN401 - whatever the file holds
    """Parse one YAML document.

    Aliases and tags are refused, since nothing here needs them: an alias can hide a billion nodes, a tag can name a
    type that its text doesn't fit. Raises InputError with line and column.
    """
    try:
        _check_events(text, file=file)
        return yaml.load(text, Loader=_UniqueKeyLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise InputError(f"{where}is not valid YAML: {error.problem or error.context}", file=file) from None
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"is not valid YAML: {str(error).splitlines()[0]}", file=file) from None


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    known: dict[str, Any] = {}
    for key, value in pairs:
        if key in known:
            raise ValueError(f"the key {key!r:.60} is given twice")
        known[key] = value
    return known


def parse_json(text: str, *, file: str) -> Any:  # noqa: ANN401 - whatever the file holds
    """Parse one JSON document. Raises InputError, with line and column where the fault has one."""
    try:
        return json.loads(text, object_pairs_hook=_unique_keys)
    except json.JSONDecodeError as error:
        raise InputError(
            f"line {error.lineno}, column {error.colno}: is not valid JSON: {error.msg}", file=file
        ) from None
    except ValueError as error:
        raise InputError(f"is not valid JSON: {error}", file=file) from None
    except RecursionError:
        raise InputError("is nested too deep", file=file) from None


def read_document(path: Path) -> Any:  # noqa: ANN401 - whatever the file holds
    """Read a YAML file, or a JSON one where its name ends in .json. Raises InputError."""
    text = read_text(path)
    return parse_json(text, file=str(path)) if path.suffix == ".json" else parse_yaml(text, file=str(path))


def validate(schema: type[Model], document: object, *, file: str, path: str = "") -> Model:
    """Make a `schema` of a parsed document. Raises InputError with the path to the first bad field."""
    try:
        return schema.model_validate(document)
    except ValidationError as error:
        found = [(_field_path(detail, document), detail) for detail in error.errors(include_url=False)]
        # Where a field may be of two kinds, pydantic complains once a kind: the deepest is about the kind meant.
        shallower = {where[:depth] for where, _ in found for depth in range(len(where))}
        deepest = [(where, detail) for where, detail in found if where not in shallower]
        where, first = deepest[0]
        more = len({where for where, _ in deepest}) - 1
        raise InputError(
            _sentence(first) + (f" (and {more} more)" if more else ""),
            file=file,
            path=".".join(part for part in (path, *where) if part),
            hint=first["ctx"].get("hint", "") if first["type"] == "inconsistent" else "",
        ) from None


def _field_path(detail: Any, document: Any) -> tuple[str, ...]:  # noqa: ANN401 - pydantic's ErrorDetails, a parsed file
    """Give the keys that lead to the bad field, without the names that pydantic adds for the kinds of a union."""
    path: list[str] = []
    node = document
    for part in detail["loc"]:
        if part in node if isinstance(node, dict) else isinstance(node, list) and isinstance(part, int):
            node = node[part]
            path.append(_shown_key(part))
    if detail["type"] == "missing":
        return (*path, str(detail["loc"][-1]))
    if detail["type"] == "inconsistent":
        return (*path, *(_shown_key(part) for part in detail["ctx"]["field"].split(".")))
    # The key itself is absent where its default doesn't go with the keys that are there.
    return tuple(path) or tuple(map(str, detail["loc"][:1]))


def _shown_key(part: object) -> str:
    """Show a key on one line, without what a terminal would act on."""
    text = str(part)
    return f"{text:.80}" if text.isprintable() else f"{text!r:.80}"


# What pydantic says in the words of Python, by the type of its complaint.
_MUST_BE = {
    **dict.fromkeys(("model_type", "model_attributes_type", "dict_type", "mapping_type"), "keys with values"),
    **dict.fromkeys(("list_type", "tuple_type"), "a list"),
    **dict.fromkeys(("string_type", "invalid_key"), "text"),
    **dict.fromkeys(("int_type", "int_from_float"), "a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "a number"),
    "bool_type": "true or false",
}


# YAML 1.1 reads a number with an exponent as text where it lacks the point, or the exponent its sign.
_NUMBER_AS_TEXT = ", which YAML reads as text; write it without quotes, as 1.0e-3 or 0.001"
_NUMBER = re.compile(r"[-+]?[0-9]+(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?")


def _is_number_as_text(error: Any) -> bool:  # noqa: ANN401 - pydantic's ErrorDetails
    of_number = error["type"] in {"float_type", "float_parsing", "int_type"}
    return of_number and isinstance(error["input"], str) and _NUMBER.fullmatch(error["input"]) is not None


def _shown_value(value: object) -> str:
    if isinstance(value, dict | list):
        return "keys with values" if isinstance(value, dict) else "a list"
    shown = {None: "empty", True: "true", False: "false"}
    return shown[value] if value is None or isinstance(value, bool) else f"{value!r:.60}"


def _sentence(error: Any) -> str:  # noqa: ANN401 - pydantic's ErrorDetails
    if error["type"] == "extra_forbidden":
        return "is not a known key"
    if error["type"] == "missing":
        return "is missing"
    if error["type"] == "inconsistent":
        return str(error["msg"])
    if error["type"] in _MUST_BE:
        must_be = f"must be {_MUST_BE[error['type']]}, not {_shown_value(error['input'])}"
        return must_be + (_NUMBER_AS_TEXT if _is_number_as_text(error) else "")
    message = str(error["msg"]).removeprefix("Value error, ")
    shown = repr(error["input"])
    return f"{message}" if shown in message or len(shown) > 60 else f"{message} (it is {shown})"
