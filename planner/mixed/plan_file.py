"""Files of mixed plans: read with doubt, written whole or not at all."""

from pathlib import Path
from typing import Any

from meshwright.catalog.document import read_document, validate
from meshwright.catalog.errors import InputError
from meshwright.planner.digest import digest_of
from meshwright.planner.file_replacement import replace_file
from meshwright.planner.mixed.plan_schema import MixedPlan
from meshwright.planner.plan_file import plan_json, plan_yaml


def is_mixed_plan(path: Path) -> bool:
    """Tell whether a file is a mixed plan. Raises InputError where it can't be read."""
    document = read_document(path)
    return isinstance(document, dict) and "mixed" in document


def read_mixed_plan(path: Path) -> MixedPlan:
    """Read a mixed plan. Raises InputError where it isn't one, or its inputs were edited by hand."""
    document = read_document(path)
    plan = validate(MixedPlan, document, file=str(path))
    if digest_of(document["inputs"]) != plan.inputs.digest:
        raise InputError(
            "the inputs aren't those that the digest is of: they were edited by hand",
            file=str(path),
            path="inputs.digest",
            hint="make the plan again with `meshwright plan`",
        )
    return plan


def write_mixed_plan(plan: MixedPlan, path: Path) -> None:
    """Write a mixed plan as YAML, or as JSON where the name ends in .json: whole, or not at all. Raises InputError."""
    text = plan_json(plan) if path.suffix == ".json" else plan_yaml(plan)
    replace_file(path, text.encode("utf-8"))


def mixed_plan_json_schema() -> dict[str, Any]:
    """Give the JSON schema of mixed plans, as shipped in `mixed/plan.schema.json`."""
    schema = MixedPlan.model_json_schema(mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | schema
