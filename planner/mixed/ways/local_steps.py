"""Ways in which islands take steps of their own and meet from time to time: DiLoCo, NoLoCo, CO2.

With N parameters, H local steps between meetings, v bytes a value, links of w bytes/s, T seconds a step:

    DiLoCo   each of F fragments of the layers meets once in H steps, in turn, as 4-bit differences; while a fragment is
             on its way the islands go on for up to D steps               (arXiv 2311.08105; streamed: 2501.18512)
                 x = N v / (F w) + latency          exposed a step: F / H max(x - D T, 0)
                 over synchronous training with r bytes a gradient in one step: H r / v fewer bytes, and a peak rate
                 F D r / v lower
    NoLoCo   as DiLoCo without fragments, but each island meets one other, drawn anew each time: no tree of links, and
             no island waits for more than one                            (arXiv 2506.10911)
                 x = N v / w of the slowest pair + latency                exposed a step: x / H
    CO2      what all did in H steps is summed while the next H are taken, and used one round late
                                                                          (arXiv 2401.16265)
                 x as of synchronous training                             exposed a step: max(x - H T, 0) / H

DiLoCo, NoLoCo and CO2 keep the parameters of the last meeting and an outer momentum, 4 bytes each.
"""

from collections.abc import Sequence

from meshwright.costmodels.island_links import Across, Edge, Exchange, exchange_of
from meshwright.costmodels.job import Job
from meshwright.costmodels.parameter_bytes import reduced_bytes
from meshwright.costmodels.parameters import total_parameters
from meshwright.planner.mixed.ways.allowed import Allowed
from meshwright.planner.mixed.ways.way import Way

OUTER_STATE_BYTES = 8.0
QUANTISED_BYTES = 0.5
PAIRED_BYTES = 4.0
# Layers of a fragment, and how many steps its way may take (arXiv 2501.18512, section 3).
FRAGMENT_LAYERS = 3
DELAY = 5


def diloco(job: Job, tree: Sequence[Edge], *, local_steps: int, step_s: float) -> Way:
    """Give DiLoCo in streamed, overlapped, quantised fragments. `step_s`: what a step takes at least."""
    count = float(total_parameters(job.model))
    fragments = min(max(-(-len(job.model.layers) // FRAGMENT_LAYERS), 1), local_steps)
    delay = min(DELAY, local_steps // fragments)
    sent = count * QUANTISED_BYTES
    slowest = min(edge.bandwidth_bytes_per_s for edge in tree)
    each_s = sent / fragments / slowest + 2.0 * sum(edge.latency_s for edge in tree)
    exposed_s = fragments / local_steps * max(each_s - delay * step_s, 0.0)
    return Way(
        name=Allowed.DILOCO,
        exchange=_late(exposed_s, 2.0 * sent * len(tree) / local_steps),
        state_bytes=OUTER_STATE_BYTES,
        settings={
            "local_steps": local_steps,
            "fragments": fragments,
            "delay_steps": delay,
            "bytes_a_value": QUANTISED_BYTES,
            "fragment_s": each_s,
            "bytes_below_synchronous": local_steps * reduced_bytes(job) / QUANTISED_BYTES,
            "peak_rate_below_synchronous": fragments * max(delay, 1) * reduced_bytes(job) / QUANTISED_BYTES,
        },
        trades=f"islands drift apart for {_counted(local_steps)}, and meet by 4-bit differences {delay} steps late",
        source="arXiv 2311.08105, 2501.18512",
    )


def noloco(job: Job, edges: Sequence[Edge], *, local_steps: int) -> Way:
    """Give NoLoCo's averaging in pairs, over any of the edges."""
    sent = float(total_parameters(job.model)) * PAIRED_BYTES
    each_s = max(sent / edge.bandwidth_bytes_per_s + edge.latency_s for edge in edges)
    parties = len({party for edge in edges for party in edge.between})
    return Way(
        name=Allowed.NOLOCO,
        exchange=_late(each_s / local_steps, 2.0 * sent * (parties // 2) / local_steps),
        state_bytes=OUTER_STATE_BYTES,
        settings={"local_steps": local_steps, "bytes_a_value": PAIRED_BYTES, "pair_s": each_s},
        trades=f"islands are never equal: each averages with one other after {_counted(local_steps)} of its own",
        source="arXiv 2506.10911",
    )


def co2(job: Job, parties: int, tree: Sequence[Edge], *, local_steps: int, step_s: float) -> Way:
    """Give CO2's sum that is used a round late. `step_s`: what a step takes at least."""
    whole = exchange_of(job, parties, tree, Across.COPIES)
    exposed_s = max(whole.gradients_s - local_steps * step_s, 0.0) / local_steps
    return Way(
        name=Allowed.CO2,
        exchange=_late(exposed_s, whole.sent_bytes / local_steps),
        state_bytes=OUTER_STATE_BYTES,
        settings={"local_steps": local_steps, "sum_s": whole.gradients_s},
        trades=f"islands take {_counted(local_steps)} of their own, and what others did arrives a round late",
        source="arXiv 2401.16265",
    )


def _counted(steps: int) -> str:
    return "1 step" if steps == 1 else f"{steps} steps"


def _late(exposed_s: float, sent_bytes: float) -> Exchange:
    return Exchange(gradients_s=0.0, parameters_s=0.0, sent_bytes=sent_bytes, fixed_s=exposed_s)
