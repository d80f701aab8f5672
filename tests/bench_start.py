"""How long meshwright takes to start and to search: medians, for starts less the bare interpreter's."""

import statistics
import subprocess
import sys
from time import perf_counter

from meshwright.planner import inputs_of, plan_of

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


def search_median_s(model: str, cluster: str, *, global_batch: int, sequence_length: int) -> float:
    """Give the median time of a search, in this process."""
    job = {"precision": "bf16", "objective": "time", "top": 5, "memory_headroom": 0.05}
    inputs = inputs_of(model, cluster, global_batch=global_batch, sequence_length=sequence_length, **job)
    return statistics.median(plan_of(inputs).search_s for _ in range(RUNS))


if __name__ == "__main__":
    bare_s = median_s("pass")
    for name, code in CASES.items():
        sys.stdout.write(f"{name}: {median_s(code) - bare_s:.3f} s\n")
    demo_s = search_median_s("llama-3.1-70b", "dgx-h100:64", global_batch=1024, sequence_length=8192)
    sys.stdout.write(f"search of the demo: {demo_s:.3f} s\n")
