"""Measured training steps as evidence: each case beside the step time that the cost model predicts for it."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from meshwright.catalog.cluster_entry import ClusterEntry
from meshwright.catalog.device_entry import DeviceEntry
from meshwright.catalog.overlay import overlaid_cluster, overlaid_stack
from meshwright.catalog.overlay_entry import OverlayEntry
from meshwright.catalog.precision import PRECISION_CLASSES
from meshwright.catalog.stack_entry import StackEntry
from meshwright.costmodels.job import Job
from meshwright.costmodels.layout import FloatArray, Layout, LayoutTable
from meshwright.costmodels.predict import predict_time
from meshwright.hardware.cluster import cluster_of
from meshwright.planner.accuracy.case import Case, Trust
from meshwright.planner.accuracy.case_cluster import Machine, cluster_entry_of_case
from meshwright.planner.accuracy.case_stack import stack_for, with_switches
from meshwright.planner.accuracy.estimate import job_of_case
from meshwright.planner.calibration.constants import Section
from meshwright.planner.calibration.evidence import Evidence, StepClass

# Where something was inferred, a row may be off by twice as much.
CONFIDENCE = {None: 1.0, Trust.HIGH: 1.0, Trust.MEDIUM: 1 / 4, Trust.LOW: 1 / 16}


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredStep:
    """A case with what its prediction follows from. Its layout is the one that the catalog's own figures choose.

    device, cluster, stack: the entries that overlays are laid over; the case's switches come after them.
    """

    place: str
    case: Case
    layout: Layout
    device: DeviceEntry
    cluster: ClusterEntry
    stack: StackEntry
    job: Job
    measured_s: float

    @property
    def entries(self) -> frozenset[tuple[str, str]]:
        """What an overlay must name to change the prediction."""
        return frozenset(
            {
                (Section.DEVICES, self.device.name),
                (Section.CLUSTERS, self.cluster.name),
                (Section.STACKS, self.stack.name),
            }
        )

    def predict(self, overlay: OverlayEntry) -> float:
        """Give the seconds of a step under an overlay."""
        job = replace(
            self.job,
            cluster=cluster_of(overlaid_cluster(self.cluster, [overlay])),
            stack=with_switches(overlaid_stack(self.stack, [overlay]), self.case),
        )
        return float(predict_time(job, LayoutTable.of([self.layout])).step_time_s[0])


def measured_step(
    case: Case, layout: Layout, *, place: str, machine: Callable[[str], Machine], stacks: Sequence[StackEntry]
) -> MeasuredStep | None:
    """Prepare a case to be predicted with; None where its step time wasn't measured. Raises MeshwrightError."""
    if case.measured is None or case.measured.step_time_s is None:
        return None
    of_device = machine(case.cluster.device)
    job, _ = job_of_case(case, of_device, stacks)
    stack, _ = stack_for(case.framework, stacks, default=of_device.stack)
    return MeasuredStep(
        place=place,
        case=case,
        layout=layout,
        device=of_device.device,
        cluster=cluster_entry_of_case(case.cluster, of_device),
        stack=stack,
        job=job,
        measured_s=case.measured.step_time_s,
    )


def case_evidence(steps: Sequence[MeasuredStep], *, label: str) -> tuple[Evidence, ...]:
    """Make evidence of the measured steps of one source, parted by the entries that their predictions depend on."""
    parts: dict[frozenset[tuple[str, str]], list[MeasuredStep]] = defaultdict(list)
    for step in steps:
        parts[step.entries].append(step)
    return tuple(_evidence(part, label=label, entries=entries) for entries, part in parts.items())


def _evidence(steps: Sequence[MeasuredStep], *, label: str, entries: frozenset[tuple[str, str]]) -> Evidence:
    def predict(overlay: OverlayEntry) -> FloatArray:
        return np.array([step.predict(overlay) for step in steps])

    return Evidence(
        label=label,
        places=tuple(step.place for step in steps),
        measured_s=np.array([step.measured_s for step in steps]),
        predict=predict,
        confidence=np.array([CONFIDENCE[step.case.trust] for step in steps]),
        entries=entries,
        steps=tuple(_class(step) for step in steps),
    )


def _class(step: MeasuredStep) -> StepClass:
    return StepClass(
        precision=PRECISION_CLASSES[step.case.precision],
        model=step.job.model.kind,
        devices=step.case.cluster.devices,
    )
