"""The passes of pipelines through islands, run one by one in the order of 1F1B."""

from math import isclose

from meshwright.planner.mixed.plan_schema import ChainSection, MixedPlan
from meshwright.planner.verification.check import ROUNDING, Failures, Found

# The schedule's law is of the longest chain of passes that it knows of; events may find a longer one.
SCHEDULE_TOLERANCE = 0.05


def passes(plan: MixedPlan) -> Found:
    """Run the passes of chains of several islands in the order of 1F1B."""
    words = []

    def wrong() -> Failures:
        for number, chain in enumerate(plan.mixed.chains):
            if len(chain.islands) == 1:
                continue
            total = max(replica.micro_batches + (replica.last_micro_batch > 0) for replica in chain.replicas)
            forward_s, backward_s = _with_links(chain)
            took = one_forward_one_backward(forward_s, backward_s, total)
            said = chain.time_breakdown_s.get("passes", 0.0) + chain.time_breakdown_s.get("bubble", 0.0)
            words.append(f"{took:.6g} s simulated, {said:.6g} s predicted")
            if plan.mixed.way is not None and plan.mixed.way.name == "skip-stages":
                if not _skips_enough(chain, plan.mixed.way.settings, total, said) or said > took * (
                    1 + SCHEDULE_TOLERANCE
                ):
                    yield f"mixed.chains.{number}.time_breakdown_s", f"skipping stages can't take {said:.6g} s"
            elif not isclose(took, said, rel_tol=SCHEDULE_TOLERANCE):
                yield f"mixed.chains.{number}.time_breakdown_s", f"the passes take {took:.6g} s, not {said:.6g} s"

    failures = list(wrong())
    return "1F1B of chains: " + ("; ".join(words) or "none of several islands"), failures


def _skips_enough(chain: ChainSection, settings: dict[str, float], total: int, said: float) -> bool:
    """Say whether a step is as long as what each stage has to do, where those between the ends are skipped alike."""
    between = len(chain.stages) - 2
    seen = total * (between - settings.get("skipped", 0.0)) / max(between, 1)
    busy = [
        (total if stage.embedding or stage.head else seen - 1) * (stage.forward_s + stage.backward_s)
        for stage in chain.stages
    ]
    return max(busy) <= said * (1 + ROUNDING)


def _with_links(chain: ChainSection) -> tuple[list[float], list[float]]:
    """Give the passes of stages, and of links between them where messages are buffered."""
    forward_s: list[float] = []
    backward_s: list[float] = []
    links = list(chain.crossing_s) if chain.buffered else []
    for number, stage in enumerate(chain.stages):
        if number and stage.island != chain.stages[number - 1].island and links:
            message_s = links.pop(0)
            forward_s.append(message_s)
            backward_s.append(message_s)
        forward_s.append(stage.forward_s)
        backward_s.append(stage.backward_s)
    return forward_s, backward_s


def one_forward_one_backward(forward_s: list[float], backward_s: list[float], total: int) -> float:
    """Give the seconds until the last pass ends: each stage runs its passes in order, each when its input is there."""
    stages = len(forward_s)
    orders = []
    for stage in range(stages):
        warm = min(stages - 1 - stage, total)
        order = [("f", number) for number in range(warm)]
        for number in range(total - warm):
            order += [("f", warm + number), ("b", number)]
        order += [("b", number) for number in range(total - warm, total)]
        orders.append(order)
    ended: dict[tuple[str, int, int], float] = {}
    free, next_ = [0.0] * stages, [0] * stages
    left = 2 * total * stages
    while left:
        for stage in range(stages):
            while next_[stage] < len(orders[stage]):
                way, number = orders[stage][next_[stage]]
                source = ("f", number, stage - 1) if way == "f" else ("b", number, stage + 1)
                if source[2] in range(stages) and source not in ended:
                    break
                begins = max(free[stage], ended.get(source, 0.0))
                free[stage] = begins + (forward_s if way == "f" else backward_s)[stage]
                ended[way, number, stage] = free[stage]
                next_[stage] += 1
                left -= 1
    return max(free)
