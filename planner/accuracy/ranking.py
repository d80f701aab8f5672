"""Whether predictions put layouts of one job in the right order, which is what a planner needs of them.

A group is the cases of one file that differ in layout alone: same model, cluster, framework, precision and global
batch, and at least two different layouts (degrees, switches and micro-batch). Repeats of a layout are one candidate,
measured as their median: they scatter by 4 %, and aren't pairs to put in order. With t measured and p predicted step
times,

    picked      the candidate of the least p; of several, the one of the largest t, so that no tie is luck
    over best   t(picked) / min t
    pairs       candidates a, b with max(t) / min(t) > 1.02; in order where (t_a - t_b) (p_a - p_b) > 0: ties aren't

Times alone decide: whether a layout fits is another question, and every one of these ran.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean, median

from meshwright.planner.accuracy.case import CaseModel
from meshwright.planner.accuracy.rows import Row
from meshwright.planner.uncertainty import Quantity

# Closer than this, measured times are equal: identical runs differ by more.
NEAR = 1.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One layout of a job: the rows that measured it, all with one prediction."""

    repeats: tuple[Row, ...]

    @property
    def name(self) -> str:
        """The id of the first case that measured it."""
        return self.repeats[0].case.id

    @property
    def measured_s(self) -> float:
        """Median step time of the repeats."""
        return median(row.measured for row in self.repeats)

    @property
    def predicted_s(self) -> float:
        """Step time as predicted."""
        return self.repeats[0].predicted


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Layouts of one job. pairs: those far enough apart to have an order; ordered: those of them in the right one."""

    candidates: tuple[Candidate, ...]
    picked: Candidate
    best: Candidate
    pairs: int
    ordered: int

    @property
    def file(self) -> str:
        """The file of its cases."""
        return self.best.repeats[0].file

    @property
    def over_best(self) -> float:
        """Measured time of the layout that would be picked, over the best measured."""
        return self.picked.measured_s / self.best.measured_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """The groups of one source, at least one."""

    file: str
    groups: tuple[Group, ...]

    @property
    def mean_over_best(self) -> float:
        """Mean of the groups' `over_best`."""
        return fmean(group.over_best for group in self.groups)

    @property
    def worst_over_best(self) -> float:
        """Largest of the groups' `over_best`."""
        return max(group.over_best for group in self.groups)

    @property
    def pairs(self) -> int:
        """Pairs of all groups that have an order."""
        return sum(group.pairs for group in self.groups)

    @property
    def ordered(self) -> int:
        """Those in the right order."""
        return sum(group.ordered for group in self.groups)


def rankings_of(rows: Iterable[Row]) -> tuple[Ranking, ...]:
    """Rank the layouts of each job, by source; sources whose cases all are jobs of their own aren't in it."""
    by_file: dict[str, list[Group]] = defaultdict(list)
    for group in _groups(row for row in rows if row.quantity is Quantity.STEP_TIME):
        by_file[group.file].append(group)
    return tuple(Ranking(file=file, groups=tuple(by_file[file])) for file in sorted(by_file))


def _groups(rows: Iterable[Row]) -> Iterator[Group]:
    jobs: dict[object, dict[object, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        jobs[_job(row)][row.case.layout, row.case.batch.micro_batch].append(row)
    for layouts in jobs.values():
        if len(layouts) > 1:
            yield _group(tuple(Candidate(repeats=tuple(repeats)) for repeats in layouts.values()))


def _job(row: Row) -> tuple[object, ...]:
    case = row.case
    return row.file, _unnamed(case.model), case.cluster, case.framework, case.precision, case.batch.global_batch


def _unnamed(model: CaseModel) -> CaseModel:
    """Give the model without what tables call it, which may differ from row to row."""
    return model.model_copy(update={"name": "model", "parameters_billion": None})


def _group(candidates: tuple[Candidate, ...]) -> Group:
    apart = [pair for pair in combinations(candidates, 2) if _ratio(*pair) > NEAR]
    return Group(
        candidates=candidates,
        picked=min(candidates, key=lambda candidate: (candidate.predicted_s, -candidate.measured_s)),
        best=min(candidates, key=lambda candidate: candidate.measured_s),
        pairs=len(apart),
        ordered=sum(_in_order(*pair) for pair in apart),
    )


def _ratio(one: Candidate, other: Candidate) -> float:
    return max(one.measured_s, other.measured_s) / min(one.measured_s, other.measured_s)


def _in_order(one: Candidate, other: Candidate) -> bool:
    return (one.measured_s - other.measured_s) * (one.predicted_s - other.predicted_s) > 0
