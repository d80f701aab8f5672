"""Plan files: read with doubt, written whole or not at all, and always the same bytes for the same plan."""

import json
from pathlib import Path
from typing import Any

import yaml

from meshwright.catalog.document import read_document, validate
from meshwright.catalog.errors import InputError
from meshwright.planner.consistency import require_consistent
from meshwright.planner.digest import digest_of
from meshwright.planner.file_replacement import replace_file
from meshwright.planner.plan_schema import FORMAT_VERSION, Plan, Section


def load_plan(path: str | Path) -> Plan:
    """Read a plan to act on: one whose sections agree with one another.

    Raises InputError where the file isn't a plan, is of a newer format, or was edited by hand.
    """
    plan = read_plan(path)
    require_consistent(plan, file=str(path))
    return plan


def require_devices(plan: Plan, devices: int | None, *, file: str) -> None:
    """Raise InputError where a plan is for another number of devices than the one asked for; None asks for none."""
    if devices is not None and devices != plan.mesh.devices:
        raise InputError(
            f"the plan is for {plan.mesh.devices} devices, not for {devices}",
            file=file,
            path="mesh.devices",
            hint=f"make one with `meshwright plan`, on a cluster of {devices}",
        )


def read_plan(path: str | Path) -> Plan:
    """Read a plan to compare: it may say anything about its inputs, but the inputs are those that its digest is of.

    Raises InputError where the file isn't a plan, is of a newer format, or its inputs were edited by hand.
    """
    file = str(path)
    document = read_document(Path(path))
    if not isinstance(document, dict) or "version" not in document:
        raise InputError("is not a plan: it has no version", file=file, hint="`meshwright plan -o FILE` writes one")
    if "placement" in document:
        raise InputError(
            "is a placement of experts, not a plan",
            file=file,
            hint="`meshwright emit` takes it with --target sglang or vllm, and `meshwright experts` with --previous",
        )
    version = document["version"]
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise InputError(
            f"was made by a newer meshwright: its format is version {version}, this one reads {FORMAT_VERSION}",
            file=file,
            path="version",
            hint="upgrade meshwright, or make the plan again with this one",
        )
    if "mixed" in document:
        raise InputError(
            "is the plan of a mixed cluster, which gives each island a layout and each replica its share of the batch; "
            "this takes plans of one layout on all ranks, as launchers do",
            file=file,
            path="mixed",
            hint="`meshwright show`, `verify` and `check` read it; plan one island alone to run it",
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
    replace_file(path, text.encode("utf-8"))


def plan_yaml(plan: Section) -> str:
    """Give a plan as YAML: keys in the order of the schema, lists of plain values on one line."""
    return yaml.dump(plan.model_dump(mode="json"), Dumper=_PlanDumper, sort_keys=False, allow_unicode=True, width=120)


def plan_json(plan: Section) -> str:
    """Give a plan as JSON."""
    return json.dumps(plan.model_dump(mode="json"), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def plan_json_schema() -> dict[str, Any]:
    """Give the JSON schema of plan files, as shipped in `plan.schema.json`."""
    schema = Plan.model_json_schema(mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | schema


class _PlanDumper(yaml.SafeDumper):
    """The pure Python dumper: libyaml's breaks long lines elsewhere, and it isn't on every machine."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ANN401, ARG002 - the base class's signature
        """Write every value out, however often it occurs."""
        return True

    def represent_sequence(self, tag: str, sequence: Any, flow_style: bool | None = None) -> yaml.SequenceNode:  # noqa: ANN401, FBT001
        """Put a list on one line where its items are plain values, or pairs of them."""
        flat = all(not isinstance(item, dict) for item in sequence)
        return super().represent_sequence(tag, sequence, flow_style=flat if flow_style is None else flow_style)
