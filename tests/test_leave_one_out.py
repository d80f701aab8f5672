"""Constants fitted without one source: they never see it, say what they couldn't learn, and ship with the catalog."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from meshwright.catalog.cross_validation import cross_validation
from meshwright.catalog.cross_validation_entry import CrossValidationEntry
from meshwright.catalog.lookup import device_named, entry_names, find_cluster
from meshwright.catalog.overlay import require_named, require_tiers
from meshwright.catalog.overlay_entry import OverlayEntry
from meshwright.planner.accuracy import Case, estimate, load_cases
from meshwright.planner.calibration.case_evidence import MeasuredStep
from meshwright.planner.calibration.constants import CALIBRATION_SPANS
from meshwright.planner.calibration.known_steps import measured_steps
from meshwright.planner.calibration.leave_one_out import cross_validate, cross_validation_yaml, figures_digest

MEASUREMENTS = Path(__file__).parent.parent / "catalog" / "measurements"
FIGURES = "sha256:" + "0" * 64
TRUTH = OverlayEntry.model_validate(
    {
        "version": 1,
        "source": "made up",
        "devices": {
            "a100-sxm-80gb": {"calibration": {"matmul_ceiling": 0.7}},
            "a100-sxm-40gb": {"calibration": {"matmul_ceiling": 0.7}},
            "h100-sxm-80gb": {"calibration": {"matmul_ceiling": 0.5}},
        },
    }
)

Steps = dict[str, Sequence[MeasuredStep]]


@pytest.fixture
def steps(case_document: Callable[..., dict[str, Any]]) -> Callable[..., Steps]:
    """Give a maker of two sources of A100s and one of H100s; `slower` multiplies the times of the first."""

    def source(device: str, layers: Sequence[int], *, slower: float = 1.0, trust: str = "high") -> list[MeasuredStep]:
        cases = []
        for count in layers:
            document = case_document(
                id=f"{device}-{count}",
                trust=trust,
                framework="Megatron-Core",
                cluster={"device": device},
                model={"layers": count, "hidden": 4096, "heads": 32, "ffn_hidden": 16384},
            )
            (found,) = estimate([Case.model_validate(document)], overlays=[TRUTH])
            assert found.predicted is not None
            measured = {"step_time_s": slower * found.predicted.step_time_s}
            cases.append(Case.model_validate(document | {"measured": measured}))
        return list(measured_steps(estimate(cases)))

    def make(*, slower: float = 1.0, trust: str = "high") -> Steps:
        return {
            "first": source("a100-sxm-80gb", (8, 16), slower=slower, trust=trust),
            "second": source("a100-sxm-40gb", (4, 8, 12, 24)),
            "third": source("h100-sxm-80gb", (8, 16)),
        }

    return make


def ceiling(entry: CrossValidationEntry, source: str, device: str) -> float:
    return entry.sources[source].overlay.devices[device].calibration.given["matmul_ceiling"]


def test_a_family_is_learnt_from_another_of_its_devices(steps: Callable[..., Steps]) -> None:
    made = steps()
    entry = cross_validate(made, figures=FIGURES)
    assert entry.sources["first"].refitted == {"ampere": True}
    # The H100s' rows are of the same software, whose launch times they tell of.
    assert (entry.sources["first"].rows, entry.sources["second"].rows) == (4 + 2, 2 + 2)
    assert ceiling(entry, "first", "a100-sxm-80gb") == pytest.approx(0.7, rel=0.05)
    for step in made["first"]:
        error = step.predict(entry.sources["first"].overlay) / step.measured_s - 1
        assert abs(error) < 0.02 < abs(step.predict(OverlayEntry(version=1, source="none")) / step.measured_s - 1)


def test_a_source_is_never_seen_by_its_own_constants(steps: Callable[..., Steps]) -> None:
    once, slower = (cross_validate(steps(slower=factor), figures=FIGURES) for factor in (1.0, 1.4))
    assert once.sources["first"] == slower.sources["first"]
    assert once.sources["second"] != slower.sources["second"]


def test_a_family_that_is_alone_is_said_to_be(steps: Callable[..., Steps]) -> None:
    alone = cross_validate(steps(), figures=FIGURES).sources["third"]
    assert alone.refitted == {"hopper": False}
    assert "h100-sxm-80gb" not in alone.overlay.devices
    assert {f"hopper.{name}" for name in CALIBRATION_SPANS} <= set(alone.untold)


def test_rows_of_low_trust_teach_nobody(steps: Callable[..., Steps]) -> None:
    entry = cross_validate(steps(trust="low"), figures=FIGURES)
    assert entry.sources["second"].refitted == {"ampere": False}
    assert entry.sources["first"].refitted == {"ampere": True}


def test_it_is_read_as_it_is_written_and_the_same_each_time(steps: Callable[..., Steps]) -> None:
    text = cross_validation_yaml(cross_validate(steps(), figures=FIGURES))
    assert text == cross_validation_yaml(cross_validate(steps(), figures=FIGURES))
    assert cross_validation_yaml(CrossValidationEntry.model_validate(yaml.safe_load(text))) == text


def test_the_digest_is_of_the_figures_and_the_measurements(
    case_document: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def cases(seconds: float) -> dict[str, tuple[Case, ...]]:
        return {"a": (Case.model_validate(case_document(measured={"step_time_s": seconds})),)}

    digest = figures_digest(cases(1.0))
    assert digest == figures_digest(cases(1.0))
    assert digest != figures_digest(cases(2.0))
    monkeypatch.setattr(
        "meshwright.planner.calibration.leave_one_out.device_named", lambda name: device_named(name, [TRUTH])
    )
    assert digest != figures_digest(cases(1.0))


def test_the_shipped_constants_are_of_each_source_and_of_todays_figures() -> None:
    entry = cross_validation()
    cases = {file.stem: load_cases(file) for file in sorted(MEASUREMENTS.glob("*.yaml"))}
    timed = {source for source, members in cases.items() if any(_is_timed(case) for case in members)}
    assert timed >= set(entry.sources)
    assert len(entry.sources) >= len(timed) - 1
    assert entry.figures == figures_digest(cases), "run `make bench-cross-validation`"


def _is_timed(case: Case) -> bool:
    return case.measured is not None and case.measured.step_time_s is not None


def test_the_shipped_overlays_name_what_is_there() -> None:
    for source, left_out in cross_validation().sources.items():
        overlay = left_out.overlay
        require_named(overlay.devices, entry_names("devices"), kind="device", file=source, path="devices")
        require_named(overlay.stacks, entry_names("stacks"), kind="stack", file=source, path="stacks")
        for cluster in overlay.clusters:
            require_tiers(overlay, find_cluster(cluster), file=source)
        families = {device_named(name).family for name in overlay.devices}
        assert families == {family for family, refitted in left_out.refitted.items() if refitted}, source
