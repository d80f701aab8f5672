"""Replicas that run unequal numbers of micro-batches: who runs how many, and what a step of theirs takes.

Replicas wait for one another at the end of a step, so that it takes as long as one in which all run as many as the
busiest does: an even step of a larger batch, which the cost model knows. What is counted by tokens is of the batch as
it is.
"""

from meshwright.catalog.errors import InputError
from meshwright.costmodels.layout import Layout
from meshwright.planner.figures import significant
from meshwright.planner.job_inputs import job_of
from meshwright.planner.plan_schema import Inputs, Plan, PredictedSection, ReplicaBatch, TrainingSection
from meshwright.planner.planning import memory_limit_bytes, predicted_of


def shared_out(micro_batches: int, replicas: int) -> tuple[ReplicaBatch, ...]:
    """Share micro-batches out over replicas, the first ones running one more where they don't divide."""
    each, more = divmod(micro_batches, replicas)
    runs = ((more, each + 1), (replicas - more, each))
    return tuple(ReplicaBatch(replicas=count, micro_batches=size) for count, size in runs if count)


def even_inputs(inputs: Inputs, layout: Layout, batches: tuple[ReplicaBatch, ...] | None) -> Inputs:
    """Give the inputs of the even step that takes as long: every replica runs as many as the busiest does."""
    if batches is None:
        return inputs
    most = max(batch.micro_batches for batch in batches)
    even = layout.data_parallel * layout.micro_batch * most
    return inputs.model_copy(update={"job": inputs.job.model_copy(update={"global_batch": even})})


def predicted_with(inputs: Inputs, layout: Layout, batches: tuple[ReplicaBatch, ...] | None) -> PredictedSection:
    """Predict a layout whose replicas run these micro-batches, the same number each where None. Raises MissingData."""
    even, limit = even_inputs(inputs, layout, batches), memory_limit_bytes(inputs)
    job = job_of(even, devices=layout.world_size)
    if batches is None:
        return predicted_of(job, layout, limit=limit, tokens=inputs.job.tokens)
    found = predicted_of(job, layout, limit=limit)
    share = inputs.job.global_batch / even.job.global_batch
    usd, joules = found.usd_per_million_tokens, significant(found.joules_per_token / share)
    usd = None if usd is None else significant(usd / share)
    return found.model_copy(
        update={
            "tokens_per_s": significant(inputs.job.tokens_per_step / found.step_time_s),
            "mfu": significant(found.mfu * share),
            "usd_per_million_tokens": usd,
            "joules_per_token": joules,
            "training": _training(inputs, found.step_time_s, usd, joules),
        }
    )


def _training(inputs: Inputs, step_time_s: float, usd: float | None, joules: float) -> TrainingSection | None:
    tokens, steps = inputs.job.tokens, inputs.job.steps
    if tokens is None:
        return None
    seen = steps * inputs.job.tokens_per_step
    return TrainingSection(
        tokens=tokens,
        steps=steps,
        time_s=significant(steps * step_time_s),
        usd=None if usd is None else significant(usd * seen / 1e6),
        energy_joules=significant(joules * seen),
    )


def require_equal_batches(plan: Plan, *, what: str) -> None:
    """Raise InputError where a plan's replicas run unequal numbers of micro-batches, for what can't do that."""
    if plan.replica_batches is not None:
        raise InputError(
            f"are unequal, which {what} doesn't have",
            path="replica_batches",
            hint="plan with `meshwright plan` for a number of devices whose replicas divide the batch",
        )
