"""What importing the library costs, and what it doesn't import."""

import subprocess
import sys
from time import perf_counter

HEAVY = ("scipy", "ortools", "pulp", "pandas", "matplotlib", "highspy", "rich", "typer")


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def timed(code: str) -> float:
    start = perf_counter()
    run(code)
    return perf_counter() - start


def test_importing_the_library_is_quick() -> None:
    """Under 0.3 s, start of the interpreter taken off; the best of some runs, since others use the machine too."""
    bare = min(timed("pass") for _ in range(3))
    assert min(timed("import meshwright.planner") for _ in range(7)) - bare < 0.3


def test_importing_the_library_loads_no_solver() -> None:
    loaded = run("import sys, meshwright.planner; print(*{name.split('.')[0] for name in sys.modules})").split()
    assert set(loaded) & set(HEAVY) == set()
    assert "meshwright" in loaded


def test_estimate_is_there_when_asked_for() -> None:
    assert run("from meshwright.planner import estimate; print(estimate.__name__)").strip() == "estimate"
    assert run("import meshwright.planner as p; print(hasattr(p, 'estimates'))").strip() == "False"
