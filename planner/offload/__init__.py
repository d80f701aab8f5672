"""Offload splits: what stays on the device, what moves to its host, what is computed again.

Laws are linear, so that the best split is a linear program's; each has a module:

    optimizer_law      the optimizer's step by where its shares are updated
    pass_law           a micro-batch's passes, as flow shops of the device and the two ways of its link
    memory_law         bytes on device, host and drives
    questions          a job and a layout as the problem of one rank
    linear_program     the program, whose rows stand beside their functions
    rounding           whole layers, classes and subgroups from its optimum
    baselines          systems without a plan, under the same laws
    targets            what launchers can express, and their settings
    simulation         streams and events, which share no code with the laws
    rate_fit           a host's rates from measured steps
"""

from meshwright.planner.offload.host import UpdateRates
from meshwright.planner.offload.offload import offload_of, plan_offload
from meshwright.planner.offload.offload_plan import OffloadPlan
from meshwright.planner.offload.target import OffloadTarget

__all__ = ["OffloadPlan", "OffloadTarget", "UpdateRates", "offload_of", "plan_offload"]
