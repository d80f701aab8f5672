"""Makes again what is generated: uncertainty, golden plans, schema, README output, worked examples, bars, figure.

`python tests/refresh.py` writes them; with `--check` it writes nothing, shows what would change, and exits with 1 if
anything would. Name one of uncertainty, golden, schema, readme, docs, bars, missed, figure to do that alone.
"""

import difflib
import json
import math
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from missed_bars_page import Reasons, missed_bars_page
from worked_examples import EXAMPLES

from meshwright.catalog.lookup import device_named, entry_names
from meshwright.catalog.schedule import Schedule
from meshwright.costmodels.layout import Layout, LayoutTable, Recompute
from meshwright.costmodels.predict import predict_memory, predict_time
from meshwright.planner import Plan, load_plan, plan
from meshwright.planner.accuracy import Accuracy, Estimate, accuracy, estimate
from meshwright.planner.accuracy.bars import AT_LEAST, Bar
from meshwright.planner.accuracy.borrowed import unmeasured_factor
from meshwright.planner.accuracy.left_out import left_out_estimates
from meshwright.planner.accuracy.spread import uncertainty_of
from meshwright.planner.job_inputs import job_of
from meshwright.planner.layout.description import describe
from meshwright.planner.mixed.plan_file import mixed_plan_json_schema
from meshwright.planner.plan_file import plan_json_schema, plan_yaml

ROOT = Path(__file__).parent.parent
GOLDEN = ROOT / "tests" / "golden"
README = ROOT / "README.md"
DOCS = ROOT / "docs"
MISSED = ROOT / "tests" / "missed_bars.yaml"
UNCERTAINTY = ROOT / "catalog" / "uncertainty.yaml"
MEASUREMENTS = ROOT / "catalog" / "measurements"
SCHEMA = ROOT / "planner" / "plan.schema.json"
MIXED_SCHEMA = ROOT / "planner" / "mixed" / "plan.schema.json"

Generated = Iterator[tuple[Path, str]]

_BLOCK = re.compile(r"```(console|python)\n(.*?)```\n", re.DOTALL)
_WORKED = re.compile(r"(<!-- worked -->\n).*?(<!-- /worked -->)", re.DOTALL)
_TABLE = re.compile(r"(<!-- owners -->\n).*?(<!-- /owners -->)", re.DOTALL)
# How long a search took is all in the README that differs from run to run.
_ELAPSED = re.compile(r"in [0-9.,]+ (ms|s)\b *")


def jobs() -> list[dict[str, Any]]:
    """Read the golden jobs."""
    return list(yaml.safe_load((GOLDEN / "jobs.yaml").read_text("utf-8")))


def golden() -> Generated:
    """Plan every golden job."""
    for job in jobs():
        yield GOLDEN / f"{job['name']}.yaml", plan_yaml(plan(**job["plan"]))


def schema() -> Generated:
    """Give the JSON schemas of plans, and of those of mixed clusters."""
    yield SCHEMA, json.dumps(plan_json_schema(), indent=2) + "\n"
    yield MIXED_SCHEMA, json.dumps(mixed_plan_json_schema(), indent=2) + "\n"


def readme() -> Generated:
    """Run the README's commands, in order and in one empty folder, and fill in what they print."""
    text = README.read_text("utf-8")
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "catalog").symlink_to(ROOT / "catalog")
        (Path(folder) / "config.json").symlink_to(ROOT / "tests" / "hugging_face" / "mistral-7b-v0.1.json")
        (Path(folder) / "train.sh").symlink_to(ROOT / "tests" / "launches" / "llama-70b.sh")
        dump = ROOT / "tests" / "routing" / "expert_distribution.pt"
        (Path(folder) / dump.name).symlink_to(dump)
        steps = ROOT / "tests" / "sequences" / "lengths.jsonl"
        (Path(folder) / steps.name).symlink_to(steps)
        text = _BLOCK.sub(lambda block: f"```{block[1]}\n{RUN[block[1]](block[2], Path(folder))}```\n", text)
    yield README, _TABLE.sub(lambda table: table[1] + "\n".join(_owners_table()) + "\n" + table[2], text)


def _run_python(block: str, folder: Path) -> str:
    subprocess.run([sys.executable, "-c", block], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return block


def _run_console(block: str, folder: Path) -> str:
    commands = [line[2:] for line in block.splitlines() if line.startswith("$ ")]
    return "".join(f"$ {command}\n{_output(command, folder)}" for command in commands)


RUN: dict[str, Callable[[str, Path], str]] = {"console": _run_console, "python": _run_python}


def _output(command: str, folder: Path) -> str:
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "COLUMNS": "100"}
    ran = subprocess.run(
        _demo_command() if command == "make demo" else command,
        shell=True,
        cwd=folder,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    return "\n".join(line.rstrip() for line in ran.stdout.splitlines()) + "\n"


def _demo_command() -> str:
    recipe = (ROOT / "Makefile").read_text("utf-8").split("\ndemo:")[1].splitlines()[1]
    return recipe.strip().removeprefix("$(BIN)/")


def _owners_table() -> list[str]:
    lines = [
        "| job | owners' layout | predicted for it | our plan | predicted for ours |",
        "|---|---|---|---|---|",
    ]
    for job in jobs():
        ours = load_plan(GOLDEN / f"{job['name']}.yaml")
        arguments = job["plan"]
        tokens = f"{arguments['global_batch']:,} x {arguments['sequence_length']:,}"
        told = f"{arguments['model']} on {arguments['cluster']}, {tokens}"
        predicted = ours.predicted
        memory = _gib(predicted.peak_memory_bytes.nvidia_smi)
        best = f"{predicted.step_time_s:,.2f} s, MFU {predicted.mfu:.0%}, {memory}"
        lines.append(f"| {told} | {_owner(job, ours)} | {describe(ours.layout.layout())} | {best} |")
    return lines


def owner_layout(job: dict[str, Any]) -> Layout:
    """Give the layout that the owners of a golden job's machine used."""
    given = dict(job["owner"]["layout"])
    given["recompute"] = Recompute(given.get("recompute", "none"))
    given["schedule"] = Schedule(given.get("schedule", "1f1b"))
    return Layout(**given)


def _owner(job: dict[str, Any], ours: Plan) -> str:
    if "owner" not in job:
        return "(not published) | "
    layout = owner_layout(job)
    table, task = LayoutTable.of([layout]), job_of(ours.inputs)
    step_s, memory = predict_time(task, table).step_time_s[0], predict_memory(task, table).nvidia_smi_bytes[0]
    return f"{describe(layout)} ({job['owner']['source']}) | {step_s:,.2f} s, {_gib(memory)}"


def _gib(amount: float) -> str:
    return f"{amount / 2**30:,.0f} GiB"


def docs() -> Generated:
    """Work out the example of each page of the documentation."""
    for name, example in EXAMPLES.items():
        block = f"```text\n{example()}```\n"
        text = (DOCS / name).read_text("utf-8")
        yield DOCS / name, _WORKED.sub(lambda old, new=block: old[1] + new + old[2], text)


def bars() -> Generated:
    """Record what each missed bar comes to. Records are only tightened or taken out: what got worse is to be seen."""
    text = MISSED.read_text("utf-8")
    old: dict[str, float] = yaml.safe_load(text) or {}
    header = "".join(line for line in text.splitlines(True) if line.startswith("#"))
    today = _shipped()[1].bars
    records = {bar.key: _record(bar, old[bar.key]) for bar in today if bar.key in old and not bar.holds}
    yield MISSED, header + (yaml.safe_dump(records, sort_keys=False) if records else "")


def missed() -> Generated:
    """Say of each missed bar which rows are furthest off, and why."""
    reasons = Reasons.model_validate(yaml.safe_load((DOCS / "missed-bars.yaml").read_text("utf-8")))
    yield DOCS / "missed-bars.md", missed_bars_page(_shipped()[1], reasons)


def _record(bar: Bar, old: float) -> float:
    if bar.measure in AT_LEAST:
        return max(old, math.floor(bar.value * 10_000) / 10_000)
    return min(old, math.ceil(bar.value * 10_000) / 10_000)


@cache
def _shipped() -> tuple[list[Estimate], Accuracy]:
    estimates = estimate(sorted(MEASUREMENTS.glob("*.yaml")))
    return estimates, accuracy(estimates, left_out=left_out_estimates(estimates))


def uncertainty() -> Generated:
    """Give how far predictions are from rows that no constant had seen."""
    estimates, result = _shipped()
    devices = {name: device_named(name) for name in entry_names("devices")}
    entry = uncertainty_of(
        result.rows,
        unmeasured=unmeasured_factor(estimates, result.rows, devices),
        family_of=lambda name: devices[name].family,
        source="errors on catalog/measurements by the constants of catalog/cross_validation.yaml",
    )
    header = "# Generated by `make refresh`.\n"
    yield (
        UNCERTAINTY,
        header + yaml.safe_dump(entry.model_dump(mode="json", exclude_none=True), sort_keys=False, width=120),
    )


def figure() -> Generated:
    """Draw predictions against measurements, as the docs show them; its bytes are those of a version of matplotlib."""
    from meshwright.cli.render.accuracy_figure import draw_accuracy  # noqa: PLC0415 - heavy, and for this alone
    from meshwright.cli.render.figure_kind import FigureKind  # noqa: PLC0415

    yield DOCS / "accuracy.svg", draw_accuracy(_shipped()[1].rows, FigureKind.SVG).decode()


KINDS: dict[str, Callable[[], Generated]] = {
    "uncertainty": uncertainty,
    "golden": golden,
    "schema": schema,
    "readme": readme,
    "docs": docs,
    "bars": bars,
    "missed": missed,
    "figure": figure,
}


def main(arguments: list[str]) -> int:
    """Write what the arguments name, or check it."""
    named = [argument for argument in arguments if argument in KINDS] or list(KINDS)
    stale = 0
    for kind in named:
        for path, new in KINDS[kind]():
            old = path.read_text("utf-8") if path.exists() else ""
            if _ELAPSED.sub("", old) == _ELAPSED.sub("", new):
                continue
            stale += 1
            if "--check" in arguments:
                sys.stdout.writelines(
                    difflib.unified_diff(old.splitlines(True), new.splitlines(True), path.name, "today")
                )
            else:
                path.write_text(new, "utf-8")
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
