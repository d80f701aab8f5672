"""Reading what users have into evidence: cases, logs of collectives, tables of products, training logs."""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from meshwright.catalog.document import read_text
from meshwright.catalog.errors import InputError
from meshwright.catalog.names import canonical_name
from meshwright.catalog.precision import Precision
from meshwright.hardware.device import device_of
from meshwright.planner.accuracy.case import Case, Trust
from meshwright.planner.accuracy.case_cluster import Machine
from meshwright.planner.accuracy.case_file import load_cases
from meshwright.planner.accuracy.estimate import estimate
from meshwright.planner.calibration.case_evidence import MeasuredStep, case_evidence
from meshwright.planner.calibration.collective_log import parse_collective_log
from meshwright.planner.calibration.collective_run import looks_like_collective_log
from meshwright.planner.calibration.evidence import Evidence
from meshwright.planner.calibration.known_steps import measured_steps
from meshwright.planner.calibration.matmul_table import looks_like_matmul_table, parse_matmul_table
from meshwright.planner.calibration.timing import (
    AttentionTiming,
    Collective,
    CollectiveTiming,
    MatmulTiming,
    Timing,
)
from meshwright.planner.calibration.timing_evidence import timing_evidence
from meshwright.planner.calibration.training_log import parse_training_log
from meshwright.planner.calibration.training_steps import looks_like_training_log

DOCUMENTS = (".yaml", ".yml", ".json")
TRUSTS = tuple(Trust)  # from the most to the least


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Which machine is calibrated, and what is to be known of the files.

    trust: the least trust of a case that says what it has.
    collective, ranks, nodes: of logs of collectives that don't tell. precision: of tables of products that don't.
    job: of training logs that don't tell theirs.
    """

    machine: Machine
    trust: Trust = Trust.MEDIUM
    collective: Collective | None = None
    ranks: int | None = None
    nodes: int | None = None
    precision: Precision | None = None
    job: Case | None = None

    @property
    def device(self) -> str:
        """The name of the device."""
        return self.machine.device.name

    def is_of(self, device: str) -> bool:
        """Tell whether a name spells the device that is calibrated."""
        return canonical_name(device) == canonical_name(self.device)


class FileKind(StrEnum):
    """What a file is."""

    CASES = "a file of cases"
    COLLECTIVES = "a log of collectives"
    PRODUCTS = "a table of products"
    TRAINING = "a training log"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What one file says of the machine; `notes` say, in sentences, what of it isn't used.

    kind: of the file; None where the machine itself was timed. cases: what it holds, that were used or not.
    """

    evidence: tuple[Evidence, ...]
    kind: FileKind | None = None
    cases: tuple[Case, ...] = ()
    steps: tuple[MeasuredStep, ...] = ()
    notes: tuple[str, ...] = ()


def read_sources(paths: Sequence[Path], asked: Asked) -> list[Source]:
    """Read files, each a source. A case that several hold counts in the first.

    Raises as `read_source` does, and InputError where something is told of logs or tables that aren't there.
    """
    sources: list[Source] = []
    for path in paths:
        known = frozenset(case.fingerprint for source in sources for case in source.cases)
        sources.append(read_source(path, asked, known=known))
    _require_of_use(asked, {source.kind for source in sources})
    return sources


def _require_of_use(asked: Asked, kinds: Set[FileKind | None]) -> None:
    for option, given, kind in (
        ("--collective", asked.collective, FileKind.COLLECTIVES),
        ("--ranks", asked.ranks, FileKind.COLLECTIVES),
        ("--nodes", asked.nodes, FileKind.COLLECTIVES),
        ("--precision", asked.precision, FileKind.PRODUCTS),
        ("--case", asked.job, FileKind.TRAINING),
    ):
        if given is not None and kind not in kinds:
            raise InputError(f"tells of {kind}, and no file is one", path=option, hint=f"leave out {option}")


def read_job(path: Path) -> Case:
    """Read the job of training logs, the only case of a file. Raises InputError."""
    first, *others = load_cases(path)
    if others:
        raise InputError(f"holds {len(others) + 1} cases, not the one job of the logs", file=str(path))
    return first


def read_source(path: Path, asked: Asked, *, known: Set[str] = frozenset()) -> Source:
    """Read one file, whatever it is, but for cases whose fingerprints are `known`.

    Raises InputError where it is none of what can be read, or is wrong; MissingData where the catalog lacks a number.
    """
    file = str(path)
    if path.suffix in DOCUMENTS:
        return _cases(load_cases(path), file=file, asked=asked, known=known)
    text = read_text(path)
    if looks_like_collective_log(text):
        timings: Sequence[Timing] = parse_collective_log(
            text,
            file=file,
            collective=asked.collective,
            ranks=asked.ranks,
            nodes=asked.nodes,
            device=asked.device,
        )
        return replace(timed_source(timings, label=file, asked=asked), kind=FileKind.COLLECTIVES)
    if looks_like_matmul_table(text):
        device = device_of(asked.machine.device)
        products = parse_matmul_table(text, file=file, device=device, precision=asked.precision)
        return replace(timed_source(products, label=file, asked=asked), kind=FileKind.PRODUCTS)
    if looks_like_training_log(text):
        case = parse_training_log(text, file=file, device=asked.device, case=asked.job)
        return replace(_cases([case], file=file, asked=asked), kind=FileKind.TRAINING)
    raise InputError(
        "is nothing that constants can be fitted to",
        file=file,
        hint="give a YAML list of measured cases, the output of nccl-tests, rccl-tests or hccl_test, a CSV of timed "
        "products (m,n,k,precision,time_us), or a training log",
    )


def timed_source(timings: Sequence[Timing], *, label: str, asked: Asked) -> Source:
    """Make a source of pieces of work that were timed on the machine; each kind of them counts for itself."""
    kinds: dict[str, list[Timing]] = defaultdict(list)
    for timing in timings:
        kinds[_kind(timing)].append(timing)
    evidence = (
        replace(timing_evidence(members, machine=asked.machine, label=label), kind=kind)
        for kind, members in kinds.items()
    )
    return Source(evidence=tuple(evidence))


def _kind(timing: Timing) -> str:
    if isinstance(timing, MatmulTiming):
        return f"products in {timing.precision}"
    if isinstance(timing, AttentionTiming):
        return f"attention {timing.through}"
    if isinstance(timing, CollectiveTiming):
        return f"{timing.collective} {'over nodes' if timing.nodes > 1 else 'in a node'}"
    return "copies"


def _cases(cases: Sequence[Case], *, file: str, asked: Asked, known: Set[str] = frozenset()) -> Source:
    left_out: Counter[str] = Counter()
    fresh = {case.fingerprint: case for case in cases if case.fingerprint not in known}
    chosen = [case for case in fresh.values() if not _is_left_out(case, asked, left_out)]
    estimates = estimate(chosen, overlays=asked.machine.overlays, machine=lambda _: asked.machine)
    steps = tuple(measured_steps(estimates, machine=lambda _: asked.machine, overlays=asked.machine.overlays))
    failed = [item for item in estimates if item.error is not None]
    notes = [f"{file}: {_cases_of(count)} left out: {why}" for why, count in left_out.items()]
    if len(fresh) < len(cases):
        notes.append(f"{file}: {_cases_of(len(cases) - len(fresh))} left out: given before, and counted there")
    if failed:
        first = f"{failed[0].case.id} ({failed[0].error})"
        notes.append(f"{file}: {_cases_of(len(failed))} left out: no prediction, such as of {first}")
    return Source(evidence=case_evidence(steps, label=file), cases=tuple(cases), steps=steps, notes=tuple(notes))


def _cases_of(count: int) -> str:
    return f"{count} case" if count == 1 else f"{count} cases"


def _is_left_out(case: Case, asked: Asked, left_out: Counter[str]) -> bool:
    reasons: Sequence[tuple[bool, Callable[[], str]]] = (
        (not asked.is_of(case.cluster.device), lambda: f"of {case.cluster.device}, not of {asked.device}"),
        (case.measured is None or case.measured.step_time_s is None, lambda: "no step time was measured"),
        (
            case.trust is not None and TRUSTS.index(case.trust) > TRUSTS.index(asked.trust),
            lambda: f"of {case.trust} trust, less than {asked.trust} (--trust)",
        ),
    )
    for applies, why in reasons:
        if applies:
            left_out[why()] += 1
            return True
    return False
