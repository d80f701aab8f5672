"""What is generated is what today's code generates: golden plans, plan schema, README output, worked examples."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from meshwright.catalog.schedule import Schedule
from meshwright.costmodels.layout import Layout, LayoutTable, Recompute
from meshwright.costmodels.predict import predict_memory, predict_time
from meshwright.planner import load_plan
from meshwright.planner.job_inputs import job_of

TESTS = Path(__file__).parent
GOLDEN = TESTS / "golden"
JOBS: list[dict[str, Any]] = yaml.safe_load((GOLDEN / "jobs.yaml").read_text("utf-8"))


@pytest.mark.parametrize("kind", ["uncertainty", "golden", "schema", "readme", "docs", "missed"])
def test_generated_files_are_current(kind: str) -> None:
    ran = subprocess.run(
        [sys.executable, str(TESTS / "refresh.py"), "--check", kind], text=True, capture_output=True, check=False
    )
    assert ran.returncode == 0, f"run `make refresh`, and look at what it changes:\n{ran.stdout}{ran.stderr}"


@pytest.mark.parametrize("job", [job for job in JOBS if "owner" in job], ids=lambda job: job["name"])
def test_no_owner_has_a_faster_layout_than_ours(job: dict[str, Any]) -> None:
    plan = load_plan(GOLDEN / f"{job['name']}.yaml")
    given = dict(job["owner"]["layout"])
    given["recompute"] = Recompute(given.get("recompute", "none"))
    given["schedule"] = Schedule(given.get("schedule", "1f1b"))
    layout = Layout(**given)
    assert layout.world_size == plan.layout.layout().world_size
    table, task = LayoutTable.of([layout]), job_of(plan.inputs)
    fits = predict_memory(task, table).nvidia_smi_bytes[0] <= plan.predicted.memory_limit_bytes
    assert plan.predicted.step_time_s <= predict_time(task, table).step_time_s[0] * (1 + 1e-9) or not fits


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job["name"])
def test_golden_plans_are_sane(job: dict[str, Any]) -> None:
    plan = load_plan(GOLDEN / f"{job['name']}.yaml")
    assert plan.predicted.peak_memory_bytes.nvidia_smi <= plan.predicted.memory_limit_bytes
    assert 0.2 < plan.predicted.mfu < 0.7
    assert plan.search.gap == 0
    assert plan.predicted.tokens_per_s == pytest.approx(
        job["plan"]["global_batch"] * job["plan"]["sequence_length"] / plan.predicted.step_time_s, rel=1e-6
    )
