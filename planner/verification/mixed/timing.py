"""Memory stays within the limits, parts sum to chains' steps, the longest is the plan's, and speed and cost follow."""

from meshwright.catalog.schedule import Schedule
from meshwright.catalog.uncertainty import shipped_uncertainty
from meshwright.planner.mixed.plan_schema import ChainSection, IslandSection, MixedPlan, MixedStageSection
from meshwright.planner.verification.check import ROUNDING, Failures, Found, same
from meshwright.planner.verification.mixed.islands import parts_of
from meshwright.planner.verification.mixed.model_size import model_size
from meshwright.planner.verification.recomputation import Busiest, recomputation
from meshwright.planner.verification.timing import BUBBLE, MESSAGES, OUTSIDE

TAIL = "last_micro_batch"
PAIRED = (Schedule.DUAL_PIPE, Schedule.DUAL_PIPE_V)


def memory(plan: MixedPlan) -> Found:
    """Check that no stage takes more than its island's limit."""
    limits = [island.memory_limit_bytes for island in plan.mixed.islands]
    shares = [stage.peak_bytes / limits[stage.island] for chain in plan.mixed.chains for stage in chain.stages]
    return f"the fullest stage takes {max(shares):.1%} of its island's limit", _memory(plan, limits)


def _memory(plan: MixedPlan, limits: list[int]) -> Failures:
    for number, chain in enumerate(plan.mixed.chains):
        for position, stage in enumerate(chain.stages):
            if stage.peak_bytes > limits[stage.island]:
                path = f"mixed.chains.{number}.stages.{position}.peak_bytes"
                yield path, f"{stage.peak_bytes} are more than the island's {limits[stage.island]}"
    for number, island in enumerate(plan.mixed.islands):
        yield from _held(plan, number, island)


def _held(plan: MixedPlan, number: int, island: IslandSection) -> Failures:
    """Check the bytes of the island's fullest device against its stages."""
    where = f"mixed.islands.{number}"
    stages = [stage for chain in plan.mixed.chains for stage in chain.stages if stage.island == number]
    peak, interval = island.peak_bytes, island.nvidia_smi_interval_bytes
    if peak is None or interval is None:
        if stages or peak is not None or interval is not None:
            yield f"{where}.peak_bytes", "and its interval are there where stages are, and only there"
        return
    if peak != max((stage.peak_bytes for stage in stages), default=0):
        yield f"{where}.peak_bytes", f"is {peak}, which isn't that of the island's fullest stage"
    if interval.low > interval.high or not same(interval.low * interval.high, float(peak) ** 2):
        yield f"{where}.nvidia_smi_interval_bytes", f"isn't as far below {peak} as above, as a factor"


def time(plan: MixedPlan) -> Found:
    """Check the parts of each chain's step, and the plan's step, speed and cost against them."""
    return f"parts sum to the chains' steps, the longest is {plan.predicted.step_time_s:.6g} s", _time(plan)


def _time(plan: MixedPlan) -> Failures:
    for number, chain in enumerate(plan.mixed.chains):
        where, parts_s = f"mixed.chains.{number}", sum(chain.time_breakdown_s.values())
        if not same(parts_s, chain.own_step_s):
            yield f"{where}.own_step_s", f"is {chain.own_step_s}; its parts sum to {parts_s:.9g}"
        if plan.mixed.exchange is None and chain.exposed_s:
            yield f"{where}.exposed_s", f"is {chain.exposed_s}, of no exchange"
        yield from _work(plan, chain, where) if len(chain.islands) == 1 else _parts(plan, chain, where)
    predicted, job = plan.predicted, plan.inputs.job
    longest_s = max(chain.own_step_s + chain.exposed_s for chain in plan.mixed.chains)
    if not same(longest_s, predicted.step_time_s):
        yield "predicted.step_time_s", f"is {predicted.step_time_s}; the longest chain takes {longest_s:.9g} s"
    interval = predicted.step_time_interval_s
    if interval.low > interval.high or not same(interval.low * interval.high, predicted.step_time_s**2):
        yield "predicted.step_time_interval_s", f"isn't as far below {predicted.step_time_s} s as above, as a factor"
    level = shipped_uncertainty().level
    if not same(predicted.interval_level, level):
        yield "predicted.interval_level", f"is {predicted.interval_level}; intervals are {level:.0%} ones"
    tokens = job.global_batch * job.sequence_length / predicted.step_time_s
    if not same(tokens, predicted.tokens_per_s):
        yield "predicted.tokens_per_s", f"is {predicted.tokens_per_s}; the step makes it {tokens:.9g}"
    yield from _cost(plan)


def _work(plan: MixedPlan, chain: ChainSection, where: str) -> Failures:
    """Check that the busiest stage's passes of the fullest replica are the compute of an island alone."""
    layout, told = chain.layouts[0], chain.time_breakdown_s
    computed_s = sum(part_s for name, part_s in told.items() if name not in (BUBBLE, MESSAGES, TAIL, *OUTSIDE))
    each_s = max(stage.forward_s + stage.backward_s for stage in chain.stages)
    full = max(*(alike.micro_batches for alike in chain.replicas), 1)
    rounded = max(alike.micro_batches + (alike.last_micro_batch > 0) for alike in chain.replicas)
    counts = {full} if told.get(TAIL) else {full, rounded}
    repeats = 2 if layout.schedule is Schedule.DUAL_PIPE else 1
    if layout.schedule in PAIRED:
        if not any(computed_s <= each * each_s / repeats * (1 + ROUNDING) for each in counts):
            yield f"{where}.time_breakdown_s", f"has {computed_s:.9g} s of compute, more than its passes"
    elif not any(same(computed_s, each * each_s) for each in counts):
        passes_s = f"{rounded} x {each_s:.9g} s"
        yield f"{where}.stages", f"have passes of {passes_s} at most; the breakdown has {computed_s:.9g} s of compute"
    busiest = [stage for stage in chain.stages if same(stage.forward_s + stage.backward_s, each_s)]
    spares = plan.inputs.stack.entry.spared_products > 0
    more = plan.inputs.model.entry.mtp_layers
    wrong = [
        list(recomputation(layout, _busiest(stage, each / repeats, more), told, spares=spares))
        for stage in busiest
        for each in counts
    ]
    if all(wrong):
        yield from ((f"{where}.layouts.0.{field}", message) for field, message in wrong[0])


def _busiest(stage: MixedStageSection, repeats: float, more_layers: int) -> Busiest:
    return Busiest(
        layers=sum(last - first + 1 for first, last in stage.chunks),
        more_layers=more_layers,
        chunks=len(stage.chunks),
        forward_s=repeats * stage.forward_s,
    )


def _parts(plan: MixedPlan, chain: ChainSection, where: str) -> Failures:
    """Check the parts of a chain of several islands: the busiest stage's passes, the longest end, the overhead."""
    count = max(alike.micro_batches + (alike.last_micro_batch > 0) for alike in chain.replicas)
    expected = {
        "end": max(stage.end_s or 0.0 for stage in chain.stages),
        "step_overhead": plan.inputs.stack.entry.step_overhead,
    }
    if plan.mixed.way is None or str(plan.mixed.way.name) != "skip-stages":
        expected["passes"] = count * max(stage.forward_s + stage.backward_s for stage in chain.stages)
    for name, seconds in expected.items():
        if not same(chain.time_breakdown_s.get(name, -1.0), seconds):
            told = chain.time_breakdown_s.get(name)
            yield f"{where}.time_breakdown_s.{name}", f"is {told}; the stages' passes and ends make it {seconds:.9g}"


def _cost(plan: MixedPlan) -> Failures:
    job, predicted, parts = plan.inputs.job, plan.predicted, parts_of(plan)
    hourly = [None if part.device.price is None else part.device.price.hourly * part.devices for part in parts]
    known = [each for each in hourly if each is not None]
    usd = predicted.usd_per_million_tokens
    if len(known) < len(hourly):
        if usd is not None:
            yield "predicted.usd_per_million_tokens", f"is {usd}; a device has no price"
    else:
        each = sum(known) * predicted.step_time_s / 3600 / (job.global_batch * job.sequence_length) * 1e6
        if usd is None or not same(usd, each):
            yield "predicted.usd_per_million_tokens", f"is {usd}; the devices' prices make it {each:.9g}"
    peak = sum(part.devices * part.compute * part.device.compute.peak.get(job.precision, 0.0) for part in parts)
    size = model_size(plan.inputs.model.entry, sequence_length=job.sequence_length)
    flop = predicted.mfu * predicted.step_time_s * peak / (job.global_batch * job.sequence_length)
    if size is not None and not 6 * size.active <= flop * (1 + ROUNDING) <= 6 * size.active + size.attention_flop:
        yield "predicted.mfu", f"is {predicted.mfu}, {flop:.4g} FLOP a token; its matrices have {6 * size.active:.4g}"
    if not 0 < predicted.mfu < 1:
        yield "predicted.mfu", f"is {predicted.mfu}"
