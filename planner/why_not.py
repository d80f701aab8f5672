"""Why a plan isn't another way: the best layout that is, found by a search within limits, beside the plan."""

from dataclasses import dataclass, replace

from meshwright.catalog.errors import Infeasible
from meshwright.planner.explain import Contrast, contrast
from meshwright.planner.job_inputs import job_of
from meshwright.planner.layout.choices import RULES
from meshwright.planner.layout.limits import Limits
from meshwright.planner.layout.objective import Objective
from meshwright.planner.layout.search import search
from meshwright.planner.plan_schema import Plan
from meshwright.planner.planning import question_of
from meshwright.planner.targets import limits_under


@dataclass(frozen=True, slots=True, kw_only=True)
class WhyNot:
    """The answer.

    asked: the limits, as options. already: the plan keeps them.
    best: the best layout within them, beside the plan; None where there is none.
    refused: then why. rule: the rule that rejected what had passed all before it, empty where memory is what lacks.
    nearest_miss: how much of it, or what would be legal.
    """

    asked: tuple[str, ...]
    already: bool
    best: Contrast | None
    refused: str
    rule: str
    nearest_miss: str


def why_not(plan: Plan, limits: Limits) -> WhyNot:
    """Find the best layout within limits, on as many devices as the plan uses and under its objective.

    The plan's own limits hold, but on the fields that are named. Of a plan for the fewest devices it is the fastest.

    Raises MissingData, and InputError where the limits contradict one another or the plan's target.
    """
    layers = plan.inputs.model.entry.layers
    asked, already = limits.options(), not limits.broken_by(plan.layout.layout(), layers=layers)
    within = limits_under(plan.inputs.job.target, plan.inputs.job.limits.with_(limits))
    question = replace(question_of(plan.inputs), top=0, limits=within, time_limit_s=None)
    if question.objective is Objective.DEVICES:
        question = replace(question, objective=Objective.TIME)
    try:
        found = search([job_of(plan.inputs, devices=plan.mesh.devices)], question)
    except Infeasible as error:
        return _refused(asked, error)
    best = contrast(plan, found.best.layout)
    return WhyNot(asked=asked, already=already, best=best, refused="", rule="", nearest_miss="")


def _refused(asked: tuple[str, ...], error: Infeasible) -> WhyNot:
    rules = [rule.reason for rule in RULES if rule.reason in error.rejected]
    return WhyNot(
        asked=asked,
        already=False,
        best=None,
        refused=error.message,
        rule="" if error.nearest_miss or not rules else rules[-1],
        nearest_miss=error.nearest_miss or error.hint,
    )
