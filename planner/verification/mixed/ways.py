"""A way of training that changes the mathematics is one that was allowed, with its number and its source."""

from meshwright.planner.mixed.plan_schema import MixedPlan, WaySection
from meshwright.planner.verification.check import Failures, Found, same

SOURCES = {
    "diloco": ("arXiv 2311.08105, 2501.18512",),
    "noloco": ("arXiv 2506.10911",),
    "co2": ("arXiv 2401.16265",),
    "compress": ("arXiv 2102.02888", "arXiv 1712.01887", "arXiv 2210.17357"),
    "skip-stages": ("arXiv 2502.19913",),
}


def way(plan: MixedPlan) -> Found:
    """Check that the way was allowed, and what its settings say against the number that it was allowed with."""
    used = plan.mixed.way
    what = "no way that changes the mathematics" if used is None else f"{used.name} was allowed"
    return what, () if used is None else _way(plan, used)


def _way(plan: MixedPlan, used: WaySection) -> Failures:
    numbers = dict(text.split(":", 1) for text in plan.inputs.allow)
    name, chains = str(used.name), plan.mixed.chains
    if name not in numbers:
        yield "mixed.way.name", f"{name} wasn't allowed"
        return
    if used.source not in SOURCES[name]:
        yield "mixed.way.source", f"isn't {' or '.join(SOURCES[name])}"
    if (name == "skip-stages") != (len(chains) == 1):
        yield "mixed.way.name", f"{name} is for {'one chain' if name == 'skip-stages' else 'several chains'}"
        return
    number = int(numbers[name])
    if name == "skip-stages":
        stages = len(chains[0].stages)
        expected = {"stages": float(stages), "skipped": float(min(number * stages // 100, stages - 2))}
    elif name == "compress":
        expected = {"kept": number / 1000} if "kept" in used.settings else {}
    else:
        expected = {"local_steps": float(number)}
    for field, value in expected.items():
        if not same(used.settings.get(field, -1.0), value):
            yield f"mixed.way.settings.{field}", f"isn't {value:g}, as {name}:{number} was allowed"
    if name in {"diloco", "noloco", "co2"} and f" {number} step" not in used.trades:
        yield "mixed.way.trades", f"doesn't name the {number} steps"
