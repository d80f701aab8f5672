"""A plan from its file to a finished run, under torchrun."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

PLAN = Path(__file__).parents[1] / "golden" / "llama-3.1-8b-on-a-pcie-box.yaml"


def torchrun(*arguments: str) -> str:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "8", "-m", "meshwright.cli.run"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    finished = subprocess.run(
        [*command, *arguments], capture_output=True, text=True, env=environment, check=False, timeout=300
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    return finished.stdout


def test_a_plan_trains() -> None:
    document: dict[str, Any] = json.loads(torchrun(str(PLAN), "--steps", "3", "--device", "cpu", "--json"))
    assert document["differences"] == []
    assert document["devices"] == len(document["ranks"]) == 8
    assert document["model"] == "tiny llama-3.1-8b"
    assert document["predicted"]["model"] == "llama-3.1-8b"
    assert len(document["losses"]) == len(document["losses_in_one_process"]) == 3
    # stages of 17 and 15 layers, each gathered once, with the embedding or the head
    first, last = (document["ranks"][rank] for rank in (0, 7))
    assert first["parameter_bytes"]["measured"] > last["parameter_bytes"]["measured"] > 0
    assert first["collectives"]["send"] == last["collectives"]["recv"]
    assert first["collectives"]["all_gather"]["measured"]["count"] == 17 + 1
    assert last["collectives"]["all_gather"]["measured"]["count"] == 15 + 1
