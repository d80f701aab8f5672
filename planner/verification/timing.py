"""The time breakdown sums to the step, what is told per token follows from it, and passes make up its compute."""

from meshwright.catalog.schedule import Schedule
from meshwright.planner.plan_schema import PassesSection, Plan
from meshwright.planner.verification.batch import micro_batches
from meshwright.planner.verification.check import Failures, Found, same
from meshwright.planner.verification.recomputation import Busiest, recomputation

BUBBLE, MESSAGES = "bubble", "pipeline_communication"
# What of a step is neither passes of micro-batches nor waiting for them.
OUTSIDE = ("gradient_communication", "parameter_communication", "optimizer", "step_overhead")


def outside_s(plan: Plan) -> float:
    """Give the seconds of a step that are outside the pipeline."""
    return sum(plan.predicted.time_breakdown_s.get(name, 0.0) for name in OUTSIDE)


def breakdown(plan: Plan) -> Found:
    """Check that the seconds of the breakdown sum to the step, and that speed and training time follow from it."""
    predicted = plan.predicted
    return f"{len(predicted.time_breakdown_s)} parts sum to {predicted.step_time_s:.6g} s", _breakdown(plan)


def _breakdown(plan: Plan) -> Failures:
    predicted, job = plan.predicted, plan.inputs.job
    step_s, total_s = predicted.step_time_s, 0.0
    for part_s in predicted.time_breakdown_s.values():
        total_s += part_s
    if not same(total_s, step_s):
        yield "predicted.step_time_s", f"is {step_s} s; its breakdown sums to {total_s:.9g} s"
    if not predicted.step_time_interval_s.low <= step_s <= predicted.step_time_interval_s.high:
        yield "predicted.step_time_interval_s", f"doesn't hold the predicted {step_s} s"
    tokens = job.global_batch * job.sequence_length
    if not same(predicted.tokens_per_s, tokens / step_s):
        path = "predicted.tokens_per_s"
        yield path, f"is {predicted.tokens_per_s}; {tokens} tokens in {step_s} s are {tokens / step_s:.9g}"
    training = predicted.training
    if training is not None:
        steps = -(-training.tokens // tokens)
        if training.steps != steps:
            yield "predicted.training.steps", f"is {training.steps}; {training.tokens} tokens take {steps}"
        elif not same(training.time_s, steps * step_s):
            path = "predicted.training.time_s"
            yield path, f"is {training.time_s}; {steps} steps of {step_s} s take {steps * step_s:.9g} s"


def repeats(plan: Plan) -> float:
    """Give how often a step passes each chunk of a stage; DualPipe feeds half of the micro-batches from each end."""
    count = micro_batches(plan)
    return count / 2 if plan.layout.schedule is Schedule.DUAL_PIPE else float(count)


def pairs(plan: Plan) -> float:
    """Give how many pairs of a forward and a backward pass a stage runs as one: all but those of fill and drain."""
    count, stages = micro_batches(plan), plan.layout.pipeline_parallel
    if plan.layout.schedule is Schedule.DUAL_PIPE:
        return max(count - stages / 2 - 2, 0)
    return max(2 * count - stages - 2, 0) if plan.layout.schedule is Schedule.DUAL_PIPE_V else 0


def work(plan: Plan) -> Found:
    """Check that the busiest stage's passes are the breakdown's compute, its recomputation and its messages."""
    passes, times = plan.predicted.passes, repeats(plan)
    busiest = max(range(len(passes.forward_s)), key=lambda stage: _stage_s(passes, stage))
    each_s = _stage_s(passes, busiest)
    return f"{times:g} micro-batches x {each_s * 1e3:.6g} ms of stage {busiest} are the compute", _work(plan, each_s)


def _stage_s(passes: PassesSection, stage: int) -> float:
    parts = (passes.forward_s, passes.backward_s, passes.weight_s)
    return sum(sum(part[stage]) for part in parts if part is not None)


def _work(plan: Plan, each_s: float) -> Failures:
    passes, told = plan.predicted.passes, plan.predicted.time_breakdown_s
    computed_s = sum(part_s for name, part_s in told.items() if name not in (BUBBLE, MESSAGES, *OUTSIDE))
    busiest = [stage for stage in range(len(passes.forward_s)) if same(_stage_s(passes, stage), each_s)]
    expected_s = [repeats(plan) * each_s - pairs(plan) * _pair_s(passes, stage) for stage in busiest]
    if not any(same(computed_s, each) for each in expected_s):
        path = f"predicted.passes.forward_s.{busiest[0]}"
        yield path, f"and the stage's other passes come to {expected_s[0]:.9g} s; the breakdown has {computed_s:.9g} s"
    spares = plan.inputs.stack.entry.spared_products > 0
    wrong = [list(recomputation(plan.layout, _busiest(plan, stage), told, spares=spares)) for stage in busiest]
    if all(wrong):
        yield from ((f"layout.{field}", message) for field, message in wrong[0])
    between, chunks = len(passes.forward_s) - 1, len(passes.forward_s[0])
    sent_s = 2 * chunks * repeats(plan) * passes.message_exposed_s + 2 * between * passes.message_s
    if not same(sent_s, told.get(MESSAGES, 0.0)):
        path = "predicted.passes.message_s"
        yield path, f"and what of it is exposed come to {sent_s:.9g} s; the breakdown has {told.get(MESSAGES, 0.0)} s"


def _busiest(plan: Plan, stage: int) -> Busiest:
    chunks = plan.stages[stage].chunks
    return Busiest(
        layers=sum(last - first + 1 for first, last in chunks),
        more_layers=plan.inputs.model.entry.mtp_layers,
        chunks=len(chunks),
        forward_s=repeats(plan) * sum(plan.predicted.passes.forward_s[stage]),
    )


def _pair_s(passes: PassesSection, stage: int) -> float:
    """Give what the mean pair of a stage saves."""
    return 0.0 if passes.paired_s is None else sum(passes.paired_s[stage]) / len(passes.paired_s[stage])
