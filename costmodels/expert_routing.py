"""How many instances of a tier (nodes, say) the experts of a token are on, each of which gets the token once.

Experts are dealt to ranks in order, so that each of I instances has a run of them: E / I of E. A token's k experts are

    at random      over all experts, or over those of g groups drawn from G, runs of E / G experts each
                   ("node-limited routing", arXiv 2412.19437, section 2.1.2)
    consecutive    experts i k to i k + k - 1, modulo E, of the i-th token, as gates of benchmarks deal them out

**At random over all.** An instance is missed by all k with chance (1 - 1 / I)^k; choices are taken as independent.

**In groups.** An instance has H = G / I groups: f = floor(H) whole ones and the part r = H - f of one more; where a
group spans several instances f = 0 and r = G / I. Of the g groups drawn, j are among the f whole ones with the chance
of draws without replacement, and the part's is drawn too in (g - j) / (G - f) of those cases. The k experts, at random
over the groups drawn, then all miss the instance with chance (1 - (j + r [drawn]) / g)^k:

    missed = sum over j of   C(f, j) C(G - f, g - j) / C(G, g)   (1 - d) (1 - j / g)^k + d (1 - (j + r) / g)^k
    d      = (g - j) / (G - f)

That is exact where H or 1 / H is whole, or H a whole number of halves, and at G = g the law of all experts.

**Consecutive.** A run of k enters one instance and one more for each border inside it. Runs start at the multiples of
gcd(k, E), equally often at each, and borders lie m = E / I apart, of which those at a start are inside one run less:

    instances = 1 + (k - gcd(k, m)) / m     no more than I
"""

import math
from collections.abc import Callable

import numpy as np

from meshwright.costmodels.layout import FloatArray
from meshwright.costmodels.transformer import Experts


def others_entered(experts: Experts, others: FloatArray) -> FloatArray:
    """Give the expected number of instances but its own that a token enters, of `others` + 1, of the same shape."""
    if experts.consecutive:
        return _of_each(_entered_in_a_row, experts, others)
    if experts.groups_per_token < experts.groups:
        return _of_each(_entered_by_groups, experts, others)
    return np.asarray(others * (1.0 - (others / (others + 1.0)) ** experts.top_k))


def _of_each(law: Callable[[Experts, float], float], experts: Experts, others: FloatArray) -> FloatArray:
    """Give what a law of one number of instances says of each; there are few."""
    distinct, back = np.unique(others, return_inverse=True)
    entered = np.array([number * law(experts, float(number) + 1.0) for number in distinct])
    return np.asarray(entered[back].reshape(np.shape(others)))


def _entered_by_groups(experts: Experts, instances: float) -> float:
    """Give the chance that an instance is entered by a token whose experts are in some groups."""
    groups, drawn, chosen = experts.groups, experts.groups_per_token, experts.top_k
    held = groups / instances
    whole = min(math.floor(held), groups - 1)
    part = held - whole
    missed, all_ways = 0.0, math.comb(groups, drawn)
    for inside in range(min(whole, drawn) + 1):
        ways = math.comb(whole, inside) * math.comb(groups - whole, drawn - inside)
        of_part = (drawn - inside) / (groups - whole)
        without, beside = ((1.0 - min(met / drawn, 1.0)) ** chosen for met in (inside, inside + part))
        missed += ways / all_ways * ((1.0 - of_part) * without + of_part * beside)
    return 1.0 - missed


def _entered_in_a_row(experts: Experts, instances: float) -> float:
    """Give the share of the instances that a run of experts is on."""
    each = experts.experts / instances
    aligned = math.gcd(experts.top_k, int(each)) if each.is_integer() else 0
    return min(1.0 + (experts.top_k - aligned) / each, instances) / instances
