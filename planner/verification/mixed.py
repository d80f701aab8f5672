"""Whether a mixed plan holds together, by plain loops that share no code with its search and its cost model."""

from collections.abc import Iterator
from fractions import Fraction
from math import isclose

from meshwright.planner.mixed.plan_schema import ChainSection, MixedPlan, ReplicasSection
from meshwright.planner.verification.check import ROUNDING, Check, Failure, Found

# The schedule's law is of the longest chain of passes that it knows of; events may find a longer one.
SCHEDULE_TOLERANCE = 0.05


def verify_mixed(plan: MixedPlan, *, devices: int | None = None) -> tuple[Check, ...]:
    """Check a mixed plan; `devices` is how many it is to run on, if that is asked."""
    looks = {
        "islands": _islands,
        "degrees": _degrees,
        "layers": _layers,
        "batch": _batch,
        "gradients": _gradients,
        "links": _links,
        "memory": _memory,
        "time": _time,
        "passes": _passes,
        "search": _search,
    }
    checks = [_check(name, look(plan)) for name, look in looks.items()]
    if devices is not None:
        wrong = [("mixed.islands", f"{plan.devices} devices train, not {devices}")] if plan.devices != devices else []
        checks.insert(0, _check("devices", (f"the plan trains on {devices} devices", wrong)))
    return tuple(checks)


def _check(name: str, found: Found) -> Check:
    what, failures = found
    return Check(name=name, what=what, failures=tuple(Failure(path=path, message=text) for path, text in failures))


def _islands(plan: MixedPlan) -> Found:
    def wrong() -> Iterator[tuple[str, str]]:
        used = [island for chain in plan.mixed.chains for island in chain.islands] + list(plan.mixed.idle)
        if sorted(used) != list(range(len(plan.mixed.islands))):
            yield "mixed.chains", f"islands {used} aren't each of {len(plan.mixed.islands)} once"
        groups = {group.name: group for group in plan.inputs.cluster.groups}
        for number, island in enumerate(plan.mixed.islands):
            if island.group not in groups:
                yield f"mixed.islands.{number}.group", f"the cluster has no group {island.group}"
                continue
            cluster = groups[island.group].cluster
            if isinstance(cluster, str) or len(island.nodes) * cluster.devices_per_node < island.devices:
                yield f"mixed.islands.{number}.devices", f"{island.devices} devices aren't on {len(island.nodes)} nodes"
        for name in groups:
            nodes = [node for island in plan.mixed.islands if island.group == name for node in island.nodes]
            if len(nodes) != len(set(nodes)):
                yield "mixed.islands", f"a node of {name} is in two islands"

    return f"{len(plan.mixed.islands)} islands, each once; {len(plan.mixed.idle)} idle", list(wrong())


def _degrees(plan: MixedPlan) -> Found:
    def wrong() -> Iterator[tuple[str, str]]:
        for number, chain in enumerate(plan.mixed.chains):
            for position, (island, layout) in enumerate(zip(chain.islands, chain.layouts, strict=False)):
                where = f"mixed.chains.{number}.layouts.{position}"
                inside = layout.tensor_parallel * layout.context_parallel * layout.data_parallel
                have = plan.mixed.islands[island].devices if island < len(plan.mixed.islands) else 0
                if inside * layout.pipeline_parallel != have:
                    yield where, f"{inside} x {layout.pipeline_parallel} ranks aren't the island's {have} devices"
                if inside % (layout.expert_parallel * layout.expert_tensor_parallel):
                    yield f"{where}.expert_parallel", "expert groups don't divide the ranks of a stage"
                for field in ("data_parallel", "context_parallel", "micro_batch"):
                    if getattr(layout, field) != getattr(chain.layouts[0], field):
                        yield f"{where}.{field}", "differs from that of the chain's first island"
            if len(chain.layouts) != len(chain.islands):
                yield f"mixed.chains.{number}.layouts", "aren't one for each island"

    return f"the degrees of {sum(len(chain.layouts) for chain in plan.mixed.chains)} layouts fill their islands", list(
        wrong()
    )


def _layers(plan: MixedPlan) -> Found:
    layers = plan.inputs.model.entry.layers

    def wrong() -> Iterator[tuple[str, str]]:
        for number, chain in enumerate(plan.mixed.chains):
            where = f"mixed.chains.{number}.stages"
            held: list[int] = []
            for stage in chain.stages:
                for chunk in stage.chunks:
                    held += range(chunk[0], chunk[1] + 1) if chunk else ()
            if sorted(held) != list(range(layers)):
                yield where, f"they don't hold each of {layers} layers once"
            expected = [
                island
                for island, layout in zip(chain.islands, chain.layouts, strict=False)
                for _ in range(layout.pipeline_parallel)
            ]
            if [stage.island for stage in chain.stages] != expected:
                yield where, "aren't on the islands in the order of the chain, as many as the layouts say"
            if len(chain.islands) > 1 and held != list(range(layers)):
                yield where, "don't hold the layers in order"
            if sum(stage.embedding for stage in chain.stages) < 1 or sum(stage.head for stage in chain.stages) < 1:
                yield where, "hold no embedding, or no head"

    return f"{layers} layers once in each of {len(plan.mixed.chains)} chains", list(wrong())


def _each_replica(chain: ChainSection) -> list[ReplicasSection]:
    return [alike for alike in chain.replicas for _ in range(alike.replicas)]


def _batch(plan: MixedPlan) -> Found:
    batch = plan.inputs.job.global_batch

    def wrong() -> Iterator[tuple[str, str]]:
        for number, chain in enumerate(plan.mixed.chains):
            where, size = f"mixed.chains.{number}", chain.layouts[0].micro_batch
            each = _each_replica(chain)
            if len(each) != chain.layouts[0].data_parallel:
                yield f"{where}.replicas", f"are {len(each)}, not {chain.layouts[0].data_parallel}"
            if any(replica.micro_batches * size + replica.last_micro_batch != replica.sequences for replica in each):
                yield f"{where}.replicas", "have other sequences than their micro-batches hold"
            if sum(replica.sequences for replica in each) != chain.sequences:
                yield f"{where}.sequences", "aren't those of its replicas"
        total = sum(chain.sequences for chain in plan.mixed.chains)
        if total != batch:
            yield "mixed.chains", f"train on {total} sequences, not on the batch of {batch}"

    replicas = sum(len(_each_replica(chain)) for chain in plan.mixed.chains)
    return f"{replicas} replicas share {batch} sequences", list(wrong())


def _gradients(plan: MixedPlan) -> Found:
    """Replay a batch whose sequences have gradients 0, 1, 4, 9, ...: the weighted sum has to be their mean, exactly."""

    def wrong() -> Iterator[tuple[str, str]]:
        first, total, whole = 0, Fraction(0), Fraction(0)
        batch = plan.inputs.job.global_batch
        for number, chain in enumerate(plan.mixed.chains):
            for replica in _each_replica(chain):
                own = [each * each for each in range(first, first + replica.sequences)]
                first += replica.sequences
                weight = Fraction(replica.sequences, batch)
                if not isclose(weight, replica.gradient_weight, rel_tol=ROUNDING, abs_tol=ROUNDING):
                    yield (
                        f"mixed.chains.{number}.replicas",
                        f"weight {replica.gradient_weight:g} isn't {replica.sequences} of {batch} sequences",
                    )
                    return
                total += weight * Fraction(sum(own), max(len(own), 1))
                whole += sum(own)
        if total != whole / max(batch, 1):
            yield "mixed.chains", "the weighted sum of the replicas' gradients isn't the mean of the batch"

    return "the weighted sum of all replicas' gradients is the mean over the batch", list(wrong())


def _links(plan: MixedPlan) -> Found:
    pairs = [set(link.between) for link in plan.inputs.cluster.links]
    islands = plan.mixed.islands

    def joined(one: int, other: int) -> bool:
        first, second = islands[one].group, islands[other].group
        return first == second or {first, second} in pairs

    def wrong() -> Iterator[tuple[str, str]]:
        for number, chain in enumerate(plan.mixed.chains):
            for one, other in zip(chain.islands, chain.islands[1:], strict=False):
                if not joined(one, other):
                    yield (
                        f"mixed.chains.{number}.islands",
                        f"no link joins {islands[one].name} and {islands[other].name}",
                    )
        if (plan.mixed.exchange is None) != (len(plan.mixed.chains) == 1):
            yield "mixed.exchange", "is there where several chains train replicas, and only there"

    return f"{len(pairs)} links join what sends", list(wrong())


def _memory(plan: MixedPlan) -> Found:
    fullest = 0.0

    def wrong() -> Iterator[tuple[str, str]]:
        nonlocal fullest
        for number, chain in enumerate(plan.mixed.chains):
            for stage in chain.stages:
                limit = plan.mixed.islands[stage.island].memory_limit_bytes
                fullest = max(fullest, stage.peak_bytes / limit)
                if stage.peak_bytes > limit:
                    yield (
                        f"mixed.chains.{number}.stages.{stage.stage}.peak_bytes",
                        f"{stage.peak_bytes} are more than the island's {limit}",
                    )

    failures = list(wrong())
    return f"the fullest stage takes {fullest:.1%} of its island's limit", failures


def _time(plan: MixedPlan) -> Found:
    def wrong() -> Iterator[tuple[str, str]]:
        for number, chain in enumerate(plan.mixed.chains):
            if not isclose(sum(chain.time_breakdown_s.values()), chain.own_step_s, rel_tol=ROUNDING):
                yield f"mixed.chains.{number}.own_step_s", "isn't the sum of its parts"
        longest = max(chain.own_step_s + chain.exposed_s for chain in plan.mixed.chains)
        if not isclose(longest, plan.predicted.step_time_s, rel_tol=ROUNDING):
            yield "predicted.step_time_s", f"isn't the longest chain's {longest:.6g} s"
        tokens = plan.inputs.job.tokens_per_step / plan.predicted.step_time_s
        if not isclose(tokens, plan.predicted.tokens_per_s, rel_tol=ROUNDING):
            yield "predicted.tokens_per_s", f"isn't {tokens:.6g}"

    return f"parts sum to the chains' steps, the longest is {plan.predicted.step_time_s:.6g} s", list(wrong())


def _passes(plan: MixedPlan) -> Found:
    """Run the passes of chains of several islands in the order of 1F1B."""
    words = []

    def wrong() -> Iterator[tuple[str, str]]:
        for number, chain in enumerate(plan.mixed.chains):
            if len(chain.islands) == 1:
                continue
            total = max(replica.micro_batches + (replica.last_micro_batch > 0) for replica in chain.replicas)
            forward_s, backward_s = _with_links(chain)
            took = _one_forward_one_backward(forward_s, backward_s, total)
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


def _one_forward_one_backward(forward_s: list[float], backward_s: list[float], total: int) -> float:
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


def _search(plan: MixedPlan) -> Found:
    def wrong() -> Iterator[tuple[str, str]]:
        bound, step_s = plan.search.lower_bound, plan.predicted.step_time_s
        if bound > step_s * (1 + ROUNDING):
            yield "search.lower_bound", f"{bound:.6g} s is above the step"
        if not isclose(plan.search.gap, max(step_s / bound - 1, 0.0), abs_tol=ROUNDING):
            yield "search.gap", f"isn't {step_s / bound - 1:.3g}"
        if (plan.search.proof == "optimal") != (plan.search.gap == 0):
            yield "search.proof", "goes with a gap of 0, and only with that"
        for number, shape in enumerate(plan.search.shapes):
            if shape.step_time_s is not None and shape.step_time_s < step_s * (1 - ROUNDING):
                yield f"search.shapes.{number}", "is faster than the plan"

    return f"{len(plan.search.shapes)} shapes, none faster; the gap is {plan.search.gap:.2%}", list(wrong())
