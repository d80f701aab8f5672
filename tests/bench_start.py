"""How long meshwright takes to start: medians of whole processes, the bare interpreter's time taken off."""

import statistics
import subprocess
import sys
from time import perf_counter

RUNS = 11
CASES = {
    "import of the planner": "from meshwright.planner import plan, load_plan",
    "import of the planner with estimate": "from meshwright.planner import estimate",
    "meshwright --help": "import sys; sys.argv[1:] = ['--help']; from meshwright.cli.main import main; main()",
}


def median_s(code: str) -> float:
    """Give the median time of a process that runs some code."""
    times = []
    for _ in range(RUNS):
        start = perf_counter()
        subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, check=True)
        times.append(perf_counter() - start)
    return statistics.median(times)


if __name__ == "__main__":
    bare_s = median_s("pass")
    for name, code in CASES.items():
        sys.stdout.write(f"{name}: {median_s(code) - bare_s:.3f} s\n")
