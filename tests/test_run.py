"""The reference launcher's command line, as far as it goes without PyTorch; tests/targets trains."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from meshwright.catalog.errors import InputError, MeshwrightError
from meshwright.cli import extras
from meshwright.cli.run import run_command

GOLDEN = Path(__file__).parent / "golden"
SMALL = GOLDEN / "llama-3.1-8b-on-a-pcie-box.yaml"


def run(*arguments: str, rank: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"RANK": rank, "WORLD_SIZE": "4"}
    command = [sys.executable, "-m", "meshwright.cli.run", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=60)


def test_another_number_of_processes() -> None:
    first, second = (run(str(SMALL), rank=rank) for rank in "01")
    assert first.returncode == second.returncode == 2
    assert f"{SMALL}: mesh.devices: the plan is for 8 processes, not 4" in " ".join(first.stderr.split())
    assert "torchrun --nproc-per-node 8" in first.stderr
    assert second.stderr == ""


def test_too_few_steps() -> None:
    with pytest.raises(InputError, match="--steps: 2 are too few"):
        run_command(SMALL, steps=2)


def test_a_model_that_the_launcher_cant_build() -> None:
    with pytest.raises(InputError, match=r"inputs\.model: the reference launcher has no norms but RMS norms"):
        run_command(GOLDEN / "gpt3-175b-on-selene.yaml", model="plan")


def test_sixteen_bits_of_experts() -> None:
    with pytest.raises(InputError, match=r"inputs\.job\.precision"):
        run_command(GOLDEN / "mixtral-8x7b-on-64-h100.yaml", precision="bf16")


def test_without_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "8")
    monkeypatch.setattr(extras, "find_spec", lambda _: None)
    with pytest.raises(MeshwrightError, match="training needs PyTorch") as raised:
        run_command(SMALL)
    assert "meshwright[torch]" in raised.value.hint
