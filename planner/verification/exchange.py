"""Each message between stages that one sends another receives, in the order in which it was sent.

Stages walk through their schedule's orders. A pass whose output another stage needs sends it there, to where the plan
has the layer behind (or before, backward); one whose input another stage made receives it. Between two stages, outputs
and gradients go each through a channel of their own, as messages do that carry no name.
"""

from collections import defaultdict
from collections.abc import Iterator

from meshwright.catalog.schedule import Schedule
from meshwright.planner.plan_schema import Plan
from meshwright.planner.verification.check import Found
from meshwright.planner.verification.pipeline.passes import Orders, Pass, feeds

Channel = tuple[str, int, int]
"""Whether forward or backward, and the stages that send and receive."""


def exchange(plan: Plan, orders: Orders) -> Found:
    """Check that what stages send, each in the order in which it runs its passes, is what others receive."""
    sent, received = _messages(plan, orders)
    count = sum(map(len, sent.values()))
    what = f"{count:,} messages in {len(sent)} channels of {len(plan.stages)} stages have their receive, in order"
    return what, _failures(sent, received)


def _failures(sent: dict[Channel, list[Pass]], received: dict[Channel, list[Pass]]) -> Iterator[tuple[str, str]]:
    for channel in dict.fromkeys((*sent, *received)):
        kind, sender, receiver = channel
        way = "outputs" if kind == "F" else "gradients"
        ours, theirs = sent.get(channel, []), received.get(channel, [])
        if sorted(ours) != sorted(theirs):
            path = f"stages.{sender}.chunks"
            yield path, f"sends {len(ours)} {way} to stage {receiver}, which waits for {len(theirs)} others"
        elif ours != theirs:
            place = next(number for number, (one, other) in enumerate(zip(ours, theirs, strict=True)) if one != other)
            told = f"sends the {way} of micro-batch {ours[place].batch} where stage {receiver} waits for"
            yield f"stages.{sender}.chunks", f"{told} those of {theirs[place].batch}"


def _messages(plan: Plan, orders: Orders) -> tuple[dict[Channel, list[Pass]], dict[Channel, list[Pass]]]:
    """Walk through all passes: what each sends and receives, named by the pass that makes it."""
    holder = _holders(plan)
    last = max(chunk for chunk, _ in holder)
    half = len({what.batch for order in orders for work in order for what in work}) // 2
    both = plan.layout.schedule is Schedule.DUAL_PIPE
    sent: dict[Channel, list[Pass]] = defaultdict(list)
    received: dict[Channel, list[Pass]] = defaultdict(list)
    for stage, order in enumerate(orders):
        for work in order:
            for what in work:
                copy = int(both and what.batch >= half)
                feed, fed = feeds(what, last), _fed(what, last)
                if feed is not None and holder[feed.chunk, copy] != stage:
                    received[what.kind, holder[feed.chunk, copy], stage].append(feed)
                if fed is not None and holder[fed, copy] != stage:
                    sent[what.kind, stage, holder[fed, copy]].append(what)
    return sent, received


def _fed(what: Pass, last: int) -> int | None:
    """Give the chunk whose pass of the same kind waits for this one."""
    if what.kind == "F" and what.chunk < last:
        return what.chunk + 1
    return what.chunk - 1 if what.kind == "B" and what.chunk else None


def _holders(plan: Plan) -> dict[tuple[int, int], int]:
    """Give by chunk of the model the stage that holds its layers; the second copy is DualPipe's, from the other end."""
    firsts = sorted({first for stage in plan.stages for first, _ in stage.chunks})
    holder: dict[tuple[int, int], int] = {}
    for number, stage in enumerate(plan.stages):
        for place, (first, _) in enumerate(stage.chunks):
            copy = place if plan.layout.schedule is Schedule.DUAL_PIPE else 0
            holder[firsts.index(first), copy] = number
    return holder
