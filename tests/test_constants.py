"""Constants that can be fitted: their bounds, their names in overlays, and how an overlay writes them."""

import math
from dataclasses import replace

import pytest
import yaml
from pydantic import ValidationError

from meshwright.catalog.device_entry import CalibrationEntry
from meshwright.catalog.lookup import device_named, entry_names, find_cluster, stack_named
from meshwright.catalog.overlay_entry import CALIBRATION_FIELDS, STACK_FIELDS, TIER_FIELDS, OverlayEntry
from meshwright.planner.calibration.constants import (
    CALIBRATION_SPANS,
    STACK_SPANS,
    TIER_SPANS,
    Constant,
    Section,
    Span,
    candidate,
    device_constants,
    stack_constants,
    tier_constants,
)
from meshwright.planner.calibration.overlay_document import overlay_yaml, rounded_overlay

# Bytes that no timing tells, and what only steps under kernels of two generations tell apart.
NOT_TIMED = {"workspace", "communicator", "context", "attention_ampere"}


def test_what_is_fitted_can_be_overlaid() -> None:
    assert set(CALIBRATION_SPANS) | NOT_TIMED >= set(CALIBRATION_FIELDS)
    assert set(CALIBRATION_SPANS) <= set(CALIBRATION_FIELDS)
    assert set(TIER_SPANS) == set(TIER_FIELDS)
    assert set(STACK_SPANS) <= set(STACK_FIELDS)


def test_a_device_family_has_about_a_dozen() -> None:
    assert len(CALIBRATION_SPANS) <= 12


@pytest.mark.parametrize("name", entry_names("devices"))
def test_shipped_devices_are_within_the_spans(name: str) -> None:
    for constant in device_constants(name, [device_named(name)]):
        assert constant.span.low <= constant.before <= constant.span.high, constant.name
        low, high = constant.bounds
        assert low <= 0 <= high


@pytest.mark.parametrize("name", entry_names("clusters"))
def test_shipped_tiers_are_within_the_spans(name: str) -> None:
    for tier in find_cluster(name).tiers:
        for constant in tier_constants(name, tier):
            assert constant.span.low <= constant.before <= constant.span.high, constant.name


@pytest.mark.parametrize("name", entry_names("stacks"))
def test_shipped_stacks_are_within_the_spans(name: str) -> None:
    for constant in stack_constants(stack_named(name)):
        assert constant.span.low <= constant.before <= constant.span.high, constant.name


def test_devices_of_a_family_move_by_one_factor() -> None:
    devices = [device_named("a100-sxm-80gb"), device_named("a100-sxm-40gb")]
    (constant,) = (each for each in device_constants("ampere", devices) if each.figure == "streaming")
    assert constant.name == "ampere.streaming"
    overlay = candidate([constant], [math.log(0.5)])
    for device in devices:
        found = device_named(device.name, [overlay]).calibration
        assert found.streaming == pytest.approx(device.calibration.streaming / 2)
        assert found.matmul_ceiling == device.calibration.matmul_ceiling


def test_a_family_is_held_by_its_member_that_is_nearest_to_a_bound() -> None:
    constant = Constant(
        section=Section.DEVICES,
        owner="family",
        figure="streaming",
        shipped={"slow": 0.25, "fast": 0.8},
        span=Span(low=0.2, high=1.0, spread=0.3),
    )
    assert constant.bounds == pytest.approx((math.log(0.8), math.log(1.25)))
    assert replace(constant, shipped={"beyond": 2.0}).bounds == (math.log(0.1), 0.0)


def test_what_a_device_lacks_is_not_fitted() -> None:
    device = device_named("a100-sxm-80gb")
    lacking = device.model_copy(
        update={"calibration": device.calibration.model_copy(update={"narrow_matmul_ceiling": None})}
    )
    names = {each.figure for each in device_constants("ampere", [device_named("h100-sxm-80gb"), lacking])}
    assert names == set(CALIBRATION_SPANS) - {"narrow_matmul_ceiling"}


def test_an_overlay_is_rounded_to_four_digits_with_units() -> None:
    device, stack = device_named("h100-sxm-80gb"), stack_named("fsdp")
    constants = [
        *(each for each in device_constants("h100-sxm-80gb", [device]) if each.figure != "contention"),
        *tier_constants("dgx-h100", find_cluster("dgx-h100").tiers[0]),
        *stack_constants(stack),
    ]
    overlay = rounded_overlay(constants, [math.log(1 / 3)] * len(constants), source="a test")
    text = overlay_yaml(overlay)
    assert OverlayEntry.model_validate(yaml.safe_load(text)) == overlay
    calibration = overlay.devices["h100-sxm-80gb"].calibration.given
    assert calibration["matmul_ceiling"] == float(f"{device.calibration.matmul_ceiling / 3:.4g}")
    assert calibration["matmul_half_depth"] == round(device.calibration.matmul_half_depth / 3)
    launch = overlay.stacks["fsdp"].given["layer_launch"]
    assert launch == pytest.approx(stack.layer_launch / 3, rel=1e-3)


def test_an_overlay_can_hold_no_value_that_an_entry_cannot() -> None:
    constant = Constant(
        section=Section.DEVICES,
        owner="h100-sxm-80gb",
        figure="streaming",
        shipped={"h100-sxm-80gb": 0.9},
        span=Span(low=0.1, high=1.0, spread=0.1),
    )
    overlay = candidate([constant], [constant.bounds[1]])
    value = overlay.devices["h100-sxm-80gb"].calibration.given["streaming"]
    assert CalibrationEntry.model_validate(
        device_named("h100-sxm-80gb").calibration.model_dump(mode="json") | {"streaming": round(value, 12)}
    )
    with pytest.raises(ValidationError):
        CalibrationEntry.model_validate(
            device_named("h100-sxm-80gb").calibration.model_dump(mode="json") | {"streaming": value * 1.001}
        )
