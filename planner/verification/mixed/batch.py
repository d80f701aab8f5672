"""Replicas share the batch, and the weights of their gradients make the sum that of the whole batch."""

from fractions import Fraction
from math import isclose

from meshwright.planner.mixed.plan_schema import ChainSection, MixedPlan
from meshwright.planner.verification.check import ROUNDING, Failures, Found


def batch(plan: MixedPlan) -> Found:
    """Check that micro-batches make up the replicas' sequences, those the chains', and those the global batch."""
    replicas = sum(alike.replicas for chain in plan.mixed.chains for alike in chain.replicas)
    return f"{replicas} replicas share {plan.inputs.job.global_batch} sequences", _batch(plan)


def _batch(plan: MixedPlan) -> Failures:
    for number, chain in enumerate(plan.mixed.chains):
        where, layout = f"mixed.chains.{number}", chain.layouts[0]
        count = sum(alike.replicas for alike in chain.replicas)
        if count != layout.data_parallel:
            yield f"{where}.replicas", f"are {count}, not {layout.data_parallel}"
        rounds = layout.pipeline_parallel if str(layout.schedule) == "interleaved" else 1
        for position, alike in enumerate(chain.replicas):
            path, size = f"{where}.replicas.{position}", layout.micro_batch
            if alike.micro_batches * size + alike.last_micro_batch != alike.sequences:
                yield f"{path}.sequences", f"is {alike.sequences}, other than its micro-batches of {size} hold"
            if alike.last_micro_batch >= size:
                yield f"{path}.last_micro_batch", f"is {alike.last_micro_batch}, a whole micro-batch of {size}"
            if rounds > 1 and (alike.micro_batches % rounds or alike.last_micro_batch):
                yield f"{path}.micro_batches", f"is {alike.micro_batches}; {rounds} stages that interleave take rounds"
        held = sum(alike.replicas * alike.sequences for alike in chain.replicas)
        if held != chain.sequences:
            yield f"{where}.sequences", f"is {chain.sequences}; its replicas train on {held}"
    total = sum(chain.sequences for chain in plan.mixed.chains)
    if total != plan.inputs.job.global_batch:
        yield "mixed.chains", f"train on {total} sequences, not on the batch of {plan.inputs.job.global_batch}"


def gradients(plan: MixedPlan) -> Found:
    """Replay a batch whose sequences have gradients 0, 1, 4, 9, ...: the weighted sum has to be their mean, exactly."""
    return "the weighted sum of all replicas' gradients is the mean over the batch", _gradients(plan)


def _gradients(plan: MixedPlan) -> Failures:
    whole_batch = plan.inputs.job.global_batch
    if sum(_sequences(chain) for chain in plan.mixed.chains) != whole_batch:
        yield "mixed.chains", "don't train on the batch, so that its gradient isn't theirs"
        return
    first, total, whole = 0, Fraction(0), 0
    for number, chain in enumerate(plan.mixed.chains):
        for position, alike in enumerate(chain.replicas):
            weight = Fraction(alike.sequences, whole_batch)
            if not isclose(weight, alike.gradient_weight, rel_tol=ROUNDING, abs_tol=ROUNDING):
                told = (
                    f"is {alike.gradient_weight:g}; {alike.sequences} of {whole_batch} sequences are {float(weight):g}"
                )
                yield f"mixed.chains.{number}.replicas.{position}.gradient_weight", told
                return
            for _ in range(alike.replicas if alike.sequences else 0):
                own = sum(each * each for each in range(first, first + alike.sequences))
                first += alike.sequences
                total += weight * Fraction(own, alike.sequences)
                whole += own
    if total != Fraction(whole, whole_batch):
        yield "mixed.chains", "the weighted sum of the replicas' gradients isn't the mean of the batch"


def _sequences(chain: ChainSection) -> int:
    return sum(alike.replicas * alike.sequences for alike in chain.replicas)
