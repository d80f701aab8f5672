"""Fitting the catalog's constants without one source of measurements each.

The constants that a source's predictions depend on are fitted to the rows of all other sources, of high and medium
trust, that depend on any of them; all other constants stay. One Jacobian, at the catalog's values, serves every fit;
exact predictions correct it. The priors are at the catalog's values, which the source may have been used for: so what
the others hardly tell is named (`LeftOutEntry.untold`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import yaml

from meshwright.catalog.cross_validation_entry import CrossValidationEntry, LeftOutEntry
from meshwright.catalog.lookup import device_named, entry_names, find_cluster, stack_named
from meshwright.costmodels.layout import FloatArray
from meshwright.planner.accuracy.case import Case, Trust
from meshwright.planner.calibration.case_evidence import MeasuredStep, case_evidence
from meshwright.planner.calibration.constants import (
    Constant,
    Section,
    device_constants,
    stack_constants,
    tier_constants,
)
from meshwright.planner.calibration.evidence import Evidence
from meshwright.planner.calibration.fit import corrected, uncertainty, weights_of
from meshwright.planner.calibration.known_steps import constants_of_steps
from meshwright.planner.calibration.linearised import Linearised, Watch, depends, linearise
from meshwright.planner.calibration.overlay_document import rounded_overlay
from meshwright.planner.digest import digest_of

TOLD = 0.05
CORRECTIONS = 3

Steps = Mapping[str, Sequence[MeasuredStep]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _All:
    """All evidence to fit to, part by part, linearised at the catalog's values."""

    evidence: tuple[Evidence, ...]
    constants: tuple[Constant, ...]
    near: Linearised

    def within(self, evidence: Sequence[bool], constants: Sequence[bool]) -> "_All":
        """Give some of the evidence and of the constants."""
        rows = np.array([kept for each, kept in zip(self.evidence, evidence, strict=True) for _ in each.places])
        return _All(
            evidence=tuple(each for each, kept in zip(self.evidence, evidence, strict=True) if kept),
            constants=tuple(each for each, kept in zip(self.constants, constants, strict=True) if kept),
            near=self.near.rows(rows.astype(bool)).columns(np.array(constants, dtype=bool)),
        )


def cross_validate(steps: Steps, *, figures: str, watch: Watch = iter) -> CrossValidationEntry:
    """Fit constants without each source in turn.

    Args:
        steps: the measured steps of each source, of all trusts.
        figures: the digest of what the fits start from.
        watch: given the numbers of the constants whose derivatives are measured, hands them on; a progress bar does.

    """
    every = tuple(chain.from_iterable(steps.values()))
    constants = constants_of_steps(every, by_family=True)
    evidence = tuple(
        part for source, members in steps.items() for part in case_evidence(_trusted(members), label=source)
    )
    near = linearise(evidence, constants, np.zeros(len(constants)), watch=watch)
    known = _All(evidence=evidence, constants=constants, near=near)
    return CrossValidationEntry(
        version=1,
        figures=figures,
        sources={source: _left_out(source, members, known) for source, members in sorted(steps.items()) if members},
    )


def figures_digest(cases: Mapping[str, Sequence[Case]]) -> str:
    """Give the digest of what the fits start from: the catalog's values of all constants, and what was measured."""
    devices = [device_named(name) for name in entry_names("devices")]
    clusters = [find_cluster(name) for name in entry_names("clusters")]
    stacks = [stack_named(name) for name in entry_names("stacks")]
    constants = (
        *(each for device in devices for each in device_constants(device.name, [device])),
        *(each for cluster in clusters for tier in cluster.tiers for each in tier_constants(cluster.name, tier)),
        *(each for stack in stacks for each in stack_constants(stack)),
    )
    return digest_of(
        {
            "constants": {f"{each.section}.{each.name}": each.before for each in constants},
            "measured": {source: {case.id: _measured_s(case) for case in members} for source, members in cases.items()},
        }
    )


def _measured_s(case: Case) -> float | None:
    return case.measured.step_time_s if case.measured else None


def _trusted(steps: Sequence[MeasuredStep]) -> list[MeasuredStep]:
    return [step for step in steps if step.case.trust in {Trust.HIGH, Trust.MEDIUM}]


def _left_out(source: str, steps: Sequence[MeasuredStep], known: _All) -> LeftOutEntry:
    entries = frozenset(chain.from_iterable(step.entries for step in steps))
    free = [not entries.isdisjoint(constant.entries) for constant in known.constants]
    chosen = [constant for constant, kept in zip(known.constants, free, strict=True) if kept]
    others = known.within([_tells(each, source, chosen) for each in known.evidence], free)
    log_factors, told = _fitted(others)
    kept = told >= TOLD
    overlay = rounded_overlay(
        [constant for constant, keep in zip(chosen, kept, strict=True) if keep],
        log_factors[kept],
        source=f"fitted to published training steps but those of {source}",
    )
    return LeftOutEntry(
        rows=len(others.near.log_ratio),
        refitted=_families(chosen, others.evidence),
        untold=tuple(constant.name for constant, keep in zip(chosen, kept, strict=True) if not keep),
        overlay=overlay,
    )


def _tells(evidence: Evidence, source: str, constants: Sequence[Constant]) -> bool:
    return evidence.label != source and any(depends(evidence, constant) for constant in constants)


def _fitted(others: _All) -> tuple[FloatArray, FloatArray]:
    """Give the log_factors, and how much of each the evidence told."""
    if not others.evidence:
        return others.near.at, np.zeros(len(others.constants))
    weights = weights_of(others.evidence)
    found = corrected(others.evidence, others.constants, others.near, weights, corrections=CORRECTIONS)
    _, told = uncertainty(others.near, others.constants, weights)
    return found.at, told


def _families(constants: Sequence[Constant], others: Sequence[Evidence]) -> dict[str, bool]:
    """Tell of each family of devices whether another source has rows of it."""
    return {
        constant.owner: any(depends(each, constant) for each in others)
        for constant in constants
        if constant.section is Section.DEVICES
    }


def cross_validation_yaml(entry: CrossValidationEntry) -> str:
    """Give the text of `catalog/cross_validation.yaml`: the figures of a device, a tier or a stack on one line."""
    dumped = yaml.dump(entry.model_dump(mode="json"), Dumper=_LeavesOnALine, sort_keys=False, width=120)
    return f"# Generated by `make bench-cross-validation`.\n{dumped}"


class _LeavesOnALine(yaml.SafeDumper):
    """The pure Python dumper: libyaml's breaks long lines elsewhere, and it isn't on every machine."""

    def represent_mapping(self, tag: str, mapping: Any, flow_style: bool | None = None) -> yaml.MappingNode:  # noqa: ANN401, FBT001
        """Put a mapping on one line where its values are numbers, switches and short texts."""
        leaves = all(isinstance(value, int | float) or len(str(value)) < 20 for value in mapping.values())
        return super().represent_mapping(tag, mapping, flow_style=leaves if flow_style is None else flow_style)
