"""What importing the library doesn't import; `make bench-start` times it."""

import subprocess
import sys

HEAVY = ("scipy", "ortools", "pandas", "matplotlib", "rich", "typer")


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_importing_the_library_loads_no_solver() -> None:
    loaded = run("import sys, meshwright.planner; print(*{name.split('.')[0] for name in sys.modules})").split()
    assert set(loaded) & set(HEAVY) == set()
    assert "meshwright" in loaded


def test_estimate_is_there_when_asked_for() -> None:
    assert run("from meshwright.planner import estimate; print(estimate.__name__)").strip() == "estimate"
    assert run("import meshwright.planner as p; print(hasattr(p, 'estimates'))").strip() == "False"
