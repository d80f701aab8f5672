"""Sequence scatter: each training step's sequences on groups of ranks, so that the step ends soonest.

given       lengths s[i]; ranks; degrees d of groups; T(d, sequences), most tokens(d)          group_costs.py
choose      for each micro-batch disjoint groups of ranks, and for each sequence a group       split.py
memory      sum of s[i] of a group <= most_tokens(d)
lockstep    minimise the sum over micro-batches of the longest T of their groups
free        minimise when the last rank is done, groups in turn, without barriers

cost_table       T and memory of each degree, from the cost model
quick_bound      what no split is below, in a millisecond; certificate: by linear programs
packing          best fit within a given time, with barriers; free_packing: without
homogeneous      groups of one size: the baseline
floor_search     halving of the time, under each floor of degrees
search           in each mode, on all ranks and on half, of few sequences under each restriction
checker          is it a split, asked of every answer
"""

from meshwright.planner.sequences.group_costs import GroupCosts, uniform_costs
from meshwright.planner.sequences.method import Method
from meshwright.planner.sequences.mode import Mode
from meshwright.planner.sequences.scatter import SequenceScatterer, scatter_sequences
from meshwright.planner.sequences.scattered import RankGroup, Scattered

__all__ = [
    "GroupCosts",
    "Method",
    "Mode",
    "RankGroup",
    "Scattered",
    "SequenceScatterer",
    "scatter_sequences",
    "uniform_costs",
]
