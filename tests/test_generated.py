"""What is generated is what today's code generates: golden plans, plan schema, README output, worked examples."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from meshwright.planner import load_plan

TESTS = Path(__file__).parent
GOLDEN = TESTS / "golden"
JOBS: list[dict[str, Any]] = yaml.safe_load((GOLDEN / "jobs.yaml").read_text("utf-8"))


@pytest.mark.parametrize("kind", ["uncertainty", "golden", "schema", "readme", "docs", "missed"])
def test_generated_files_are_current(kind: str) -> None:
    ran = subprocess.run(
        [sys.executable, str(TESTS / "refresh.py"), "--check", kind], text=True, capture_output=True, check=False
    )
    assert ran.returncode == 0, f"run `make refresh`, and look at what it changes:\n{ran.stdout}{ran.stderr}"


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job["name"])
def test_golden_plans_are_sane(job: dict[str, Any]) -> None:
    plan = load_plan(GOLDEN / f"{job['name']}.yaml")
    assert plan.predicted.peak_memory_bytes.nvidia_smi <= plan.predicted.memory_limit_bytes
    assert 0.2 < plan.predicted.mfu < 0.7
    assert plan.search.gap == 0
    assert plan.predicted.tokens_per_s == pytest.approx(
        job["plan"]["global_batch"] * job["plan"]["sequence_length"] / plan.predicted.step_time_s, rel=1e-6
    )
