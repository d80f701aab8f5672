"""Each message between stages that one sends another receives, in the order in which it was sent.

Stages walk through their schedule's orders. A pass whose output another stage needs sends it there, to where the plan
has the layer behind (or before, backward); one whose input another stage made receives it. Between two stages, outputs
and gradients go each through a channel of their own, as messages do that carry no name.
"""

from collections import defaultdict

from meshwright.catalog.schedule import Schedule
from meshwright.planner.plan_schema import Plan
from meshwright.planner.verification.check import Failures, Found
from meshwright.planner.verification.pipeline.passes import Orders, Pass, feeds

Channel = tuple[str, int, int]
"""Whether forward or backward, and the stages that send and receive."""


def exchange(plan: Plan, orders: Orders) -> Found:
    """Check that what stages send, each in the order in which it runs its passes, is what others receive.

    Raises ValueError where no stage holds a chunk that a pass is of.
    """
    sent, received = _messages(plan, orders)
    count = sum(map(len, sent.values()))
    batches = 1 + max(what.batch for order in orders for work in order for what in work)
    what = f"{count:,} messages of {batches} micro-batches in {len(sent)} channels have their receive, in order"
    return what, _failures(sent, received)


def _failures(sent: dict[Channel, list[Pass]], received: dict[Channel, list[Pass]]) -> Failures:
    for channel in dict.fromkeys((*sent, *received)):
        kind, sender, receiver = channel
        way = "outputs" if kind == "F" else "gradients"
        ours, theirs = sent.get(channel, []), received.get(channel, [])
        if sorted(ours) != sorted(theirs):
            awaited = str(len(theirs)) if len(theirs) != len(ours) else "others"
            yield f"stages.{sender}.chunks", f"sends {len(ours)} {way} to stage {receiver}, which waits for {awaited}"
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
                sender = stage if feed is None else _at(holder, feed.chunk, copy)
                receiver = stage if fed is None else _at(holder, fed, copy)
                if feed is not None and sender != stage:
                    received[what.kind, sender, stage].append(feed)
                if receiver != stage:
                    sent[what.kind, stage, receiver].append(what)
    return sent, received


def _at(holder: dict[tuple[int, int], int], chunk: int, copy: int) -> int:
    if (chunk, copy) not in holder:
        raise ValueError(f"no stage holds the model's chunk {chunk} where copy {copy} of the model has it")
    return holder[chunk, copy]


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
