"""The tasks of the optimizer's step, subgroup by subgroup: in turn as many of each kind as their shares say."""

from collections.abc import Iterator

from meshwright.planner.offload.decision import Decision
from meshwright.planner.offload.problem import SUBGROUPS, Problem
from meshwright.planner.offload.simulation.events import Task

# Bytes of a parameter: fp32 weight and two moments; of an update through the host's memory; of a stream through it.
STATES, UPDATED, STREAMED, CAST = 12, 32, 24, 8
AT_ONCE = 3


def in_turn(decision: Decision) -> Iterator[str]:
    """Give the subgroups that aren't resident, "host" or "stream", spread evenly."""
    host = round(float(decision.shares.cpu) * SUBGROUPS)
    stream = round(float(decision.shares.streamed) * SUBGROUPS)
    given = 0
    for number in range(host + stream):
        due = (number + 1) * stream // (host + stream)
        yield "stream" if due > given else "host"
        given = max(given, due)


class Update:
    """Adds the tasks of one step."""

    __slots__ = ("_decision", "_each", "_problem", "tasks")

    def __init__(self, problem: Problem, decision: Decision) -> None:
        self._problem, self._decision = problem, decision
        self._each = problem.optimizer.parameters / SUBGROUPS
        self.tasks: list[Task] = []
        resident_s = float(decision.shares.resident) * problem.optimizer.device_s
        self._task("device", resident_s)
        kinds = list(in_turn(decision))
        streams: list[int] = []
        hosted: list[int] = []
        for kind in kinds:
            if kind == "stream":
                streams.append(self._stream(streams))
            else:
                hosted.append(self._host(hosted))
        if not decision.overlapped:
            self._copy_back(hosted)

    def _task(self, resource: str, seconds: float, *after: int) -> int:
        self.tasks.append(Task(resource=resource, seconds=seconds, after=after))
        return len(self.tasks) - 1

    def _bus_s(self, each_bytes: float) -> float:
        host = self._problem.host
        return host.ranks * each_bytes * self._each / host.rates.bus_bytes_per_s

    def _link_s(self, each_bytes: float) -> float:
        return each_bytes * self._each / self._problem.host.rates.link_bytes_per_s

    def _stream(self, streams: list[int]) -> int:
        room = (streams[-AT_ONCE],) if len(streams) >= AT_ONCE else ()
        memory = self._task("bus", self._bus_s(STREAMED), *room)
        arrived = self._task("in", self._link_s(STATES), *room)
        updated = self._task("device", self._problem.optimizer.device_s / SUBGROUPS, arrived)
        return self._task("out", self._link_s(STATES), updated, memory)

    def _host(self, hosted: list[int]) -> int:
        work, host = self._problem.optimizer, self._problem.host
        after: list[int] = []
        if not work.drained and self._decision.overlapped:
            after.append(self._task("out", self._link_s(work.gradient_bytes)))
        on_drives = len(hosted) < float(self._decision.shares.nvme) * SUBGROUPS
        if on_drives:
            after.append(self._task("drives", STATES * self._each / host.nvme_bytes_per_s))
            self._task("bus", self._bus_s(STREAMED) if self._decision.overlapped else 0.0)
        memory = self._task("bus", self._bus_s(UPDATED), *after)
        updated = self._task("processors", self._each / host.rates.update_per_s, *after)
        if on_drives:
            self._task("drives", STATES * self._each / host.nvme_bytes_per_s, updated)
        if not self._decision.overlapped:
            return self._task("join", 0.0, memory, updated)
        return self._task("in", self._link_s(work.weight_bytes), memory, updated)

    def _copy_back(self, hosted: list[int]) -> None:
        """Cast and copy, when all is updated."""
        for _ in hosted:
            self._task("bus", self._bus_s(CAST), *hosted)
            self._task("in", self._link_s(self._problem.optimizer.weight_bytes), *hosted)
