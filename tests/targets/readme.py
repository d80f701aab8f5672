"""The README's blocks that need PyTorch, fenced as `shell-session`: run in order and in one empty folder.

`.venv-targets/bin/python tests/targets/readme.py` fills in what they print.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

README = Path(__file__).resolve().parents[2] / "README.md"
BLOCK = re.compile(r"(```shell-session\n)(.*?)(```\n)", re.DOTALL)
# What differs from run to run, or in the last digits from processor to processor.
STEP = re.compile(r"replica; step [0-9.,]+ (ms|s)")
LOSS = re.compile(r"(\d\.\d{3})\d{3}\b")


def blocks(text: str) -> list[str]:
    """Give the blocks of a text."""
    return [block[1] for block in BLOCK.findall(text)]


def run_again(text: str) -> str:
    """Give a text with what its blocks' commands print today."""
    with tempfile.TemporaryDirectory() as folder:
        return BLOCK.sub(lambda block: block[1] + _run(block[2], folder) + block[3], text)


def comparable(block: str) -> str:
    """Give a block without what differs from run to run."""
    return LOSS.sub(r"\1", STEP.sub("replica; step", block))


def _run(block: str, folder: str) -> str:
    commands = [line[2:] for line in block.splitlines() if line.startswith("$ ")]
    return "".join(f"$ {command}\n{_output(command, folder)}" for command in commands)


def _output(command: str, folder: str) -> str:
    search = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": search, "COLUMNS": "100", "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(
        command,
        shell=True,
        cwd=folder,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        timeout=300,
    )
    return "\n".join(line.rstrip() for line in ran.stdout.splitlines()) + "\n"


if __name__ == "__main__":
    README.write_text(run_again(README.read_text("utf-8")), "utf-8")
