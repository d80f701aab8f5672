"""Plan files: read with doubt, written whole or not at all, and always the same bytes for the same plan."""

import json
import os
from pathlib import Path
from typing import Any
from uuid import uuid4

import yaml

from meshwright.catalog.document import read_document, validate
from meshwright.catalog.errors import InputError
from meshwright.planner.consistency import require_consistent
from meshwright.planner.digest import digest_of
from meshwright.planner.plan_schema import FORMAT_VERSION, Plan


def load_plan(path: str | Path) -> Plan:
    """Read a plan to act on: one whose sections agree with one another.

    Raises InputError where the file isn't a plan, is of a newer format, or was edited by hand.
    """
    plan = read_plan(path)
    require_consistent(plan, file=str(path))
    return plan


def read_plan(path: str | Path) -> Plan:
    """Read a plan to compare: it may say anything about its inputs, but the inputs are those that its digest is of.

    Raises InputError where the file isn't a plan, is of a newer format, or its inputs were edited by hand.
    """
    file = str(path)
    document = read_document(Path(path))
    if not isinstance(document, dict) or "version" not in document:
        raise InputError("is not a plan: it has no version", file=file, hint="`meshwright plan -o FILE` writes one")
    version = document["version"]
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise InputError(
            f"was made by a newer meshwright: its format is version {version}, this one reads {FORMAT_VERSION}",
            file=file,
            path="version",
            hint="upgrade meshwright, or make the plan again with this one",
        )
    plan = validate(Plan, document, file=file)
    if digest_of(document["inputs"]) != plan.inputs.digest:
        raise InputError(
            "the inputs aren't those that the digest is of: they were edited by hand",
            file=file,
            path="inputs.digest",
            hint="make the plan again with `meshwright plan`",
        )
    return plan


def write_plan(plan: Plan, path: str | Path) -> None:
    """Write a plan as YAML, or as JSON where the name ends in .json: whole, or not at all.

    Raises InputError where the folder is missing or can't be written to; an existing file is then as it was.
    """
    text = plan_json(plan) if Path(path).suffix == ".json" else plan_yaml(plan)
    try:
        _replace(_target(path), text.encode("utf-8"))
    except OSError as error:
        raise InputError(f"can't be written: {error.strerror or error}", file=str(path)) from None


def plan_yaml(plan: Plan) -> str:
    """Give a plan as YAML: keys in the order of the schema, lists of plain values on one line."""
    return yaml.dump(plan.model_dump(mode="json"), Dumper=_PlanDumper, sort_keys=False, allow_unicode=True, width=120)


def plan_json(plan: Plan) -> str:
    """Give a plan as JSON."""
    return json.dumps(plan.model_dump(mode="json"), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def plan_json_schema() -> dict[str, Any]:
    """Give the JSON schema of plan files, as shipped in `plan.schema.json`."""
    schema = Plan.model_json_schema(mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | schema


def _target(path: str | Path) -> Path:
    """Give the file to replace, links followed; anything else there, such as a device, is never replaced."""
    target = Path(os.path.realpath(path))
    if target.is_symlink():
        raise InputError("is a link that leads back to itself, so no plan is written over it", file=str(path))
    if target.exists() and not target.is_file():
        raise InputError("is not a regular file, so no plan is written over it", file=str(path))
    if not target.parent.is_dir():
        raise InputError(f"there is no folder {target.parent}", file=str(path), hint="make the folder first")
    return target


def _replace(target: Path, content: bytes) -> None:
    """Write beside the target and rename over it. Whatever goes wrong before that leaves no file behind."""
    draft = target.with_name(f".{target.name}.{uuid4().hex}.tmp")
    try:
        with draft.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)


class _PlanDumper(yaml.SafeDumper):
    """The pure Python dumper: libyaml's breaks long lines elsewhere, and it isn't on every machine."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ANN401, ARG002 - the base class's signature
        """Write every value out, however often it occurs."""
        return True

    def represent_sequence(self, tag: str, sequence: Any, flow_style: bool | None = None) -> yaml.SequenceNode:  # noqa: ANN401, FBT001
        """Put a list on one line where its items are plain values, or pairs of them."""
        flat = all(not isinstance(item, dict) for item in sequence)
        return super().represent_sequence(tag, sequence, flow_style=flat if flow_style is None else flow_style)
