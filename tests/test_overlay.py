"""Overlays: figures laid over devices, clusters and stacks, in every command that uses them, and what is refused."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from meshwright.catalog.cluster_entry import ClusterEntry, TierEntry
from meshwright.catalog.device_entry import CalibrationEntry
from meshwright.catalog.errors import InputError
from meshwright.catalog.lookup import device_named, find_cluster, stack_named
from meshwright.catalog.overlay import overlaid_cluster, overlaid_device
from meshwright.catalog.overlay_entry import (
    CALIBRATION_FIELDS,
    STACK_FIELDS,
    TIER_FIELDS,
    CalibrationFigures,
    OverlayEntry,
)
from meshwright.catalog.overlay_file import read_overlay
from meshwright.catalog.stack_entry import StackEntry
from meshwright.cli.app import app
from meshwright.planner import check_plan, estimate, load_plan, plan, write_plan
from meshwright.planner.accuracy.case import Case
from meshwright.planner.explain import explain_plan
from meshwright.planner.repredict import repredict

JOB = ["llama-3.1-8b", "dgx-h100:8", "--global-batch", "64", "--sequence-length", "4096"]
SLOW = {"devices": {"h100-sxm-80gb": {"calibration": {"matmul_ceiling": 0.3}}}}


def overlay(**figures: object) -> OverlayEntry:
    return OverlayEntry.model_validate({"version": 1, "source": "measured here", **figures})


def written(path: Path, **figures: object) -> Path:
    path.write_text(yaml.safe_dump({"version": 1, "source": "measured here", **figures}), "utf-8")
    return path


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def refusal(path: Path, **figures: object) -> InputError:
    with pytest.raises(InputError) as caught:
        read_overlay(written(path, **figures))
    assert caught.value.file == str(path)
    return caught.value


def test_figures_replace_those_of_the_named_entry_and_no_others() -> None:
    laid = overlay(
        devices={"H100_SXM_80GB": {"calibration": {"matmul_ceiling": 0.5, "kernel_latency": "9 us"}}},
        clusters={"dgx-h100": {"tiers": {"NVLink": {"efficiency": 0.25}}}},
        stacks={"megatron-core": {"layer_launch": "3 ms"}},
    )
    before, after = device_named("h100-sxm-80gb"), device_named("h100-sxm-80gb", [laid])
    assert after.calibration.matmul_ceiling == 0.5
    assert after.calibration.kernel_latency == 9e-6
    assert (
        after.calibration.model_copy(
            update={
                "matmul_ceiling": before.calibration.matmul_ceiling,
                "kernel_latency": before.calibration.kernel_latency,
                "source": before.calibration.source,
            }
        )
        == before.calibration
    )
    assert after.calibration.source == f"{before.calibration.source}; matmul_ceiling, kernel_latency: measured here"
    assert device_named("b200-sxm-180gb", [laid]) == device_named("b200-sxm-180gb")
    cluster = find_cluster("dgx-h100:16", [laid])
    assert [tier.efficiency for tier in cluster.tiers] == [0.25, find_cluster("dgx-h100").tiers[1].efficiency]
    assert cluster.devices == 16
    assert stack_named("megatron-core", [laid]).layer_launch == 3e-3


def test_the_last_overlay_counts_figure_by_figure() -> None:
    first = overlay(stacks={"fsdp": {"layer_launch": "1 ms", "step_overhead": "2 ms"}})
    second = overlay(stacks={"fsdp": {"layer_launch": "3 ms"}})
    found = stack_named("fsdp", [first, second])
    assert (found.layer_launch, found.step_overhead) == (3e-3, 2e-3)
    assert stack_named("fsdp", [second, first]).layer_launch == 1e-3


def test_a_device_written_out_in_a_cluster_is_overlaid_by_its_name(toy_cluster: Callable[..., ClusterEntry]) -> None:
    laid = overlay(devices={"toy-device": {"calibration": {"streaming": 0.5}}})
    device = overlaid_cluster(toy_cluster(8), [laid]).device
    assert not isinstance(device, str)
    assert device.calibration.streaming == 0.5


def test_every_figure_that_can_be_overlaid_is_one_of_the_entry() -> None:
    assert set(CALIBRATION_FIELDS) == set(CalibrationEntry.model_fields) - {"source"}
    assert set(TIER_FIELDS) <= set(TierEntry.model_fields)
    assert set(STACK_FIELDS) <= set(StackEntry.model_fields)


def test_an_overlay_is_written_as_it_is_read() -> None:
    document = {
        "version": 1,
        "source": "measured here",
        "devices": {"h100-sxm-80gb": {"calibration": {"matmul_half_depth": 7, "kernel_latency": "4 us"}}},
        "clusters": {"dgx-h100": {"tiers": {"nvlink": {"startup": "8 us"}}}},
        "stacks": {"fsdp": {"gather_efficiency": 0.5}},
    }
    assert OverlayEntry.model_validate(document).model_dump(mode="json") == document


def test_no_figures_leave_an_entry_as_it_is() -> None:
    device = device_named("h100-sxm-80gb")
    laid = overlay(devices={"h100-sxm-80gb": {"calibration": {}}})
    assert overlaid_device(device, [laid]) == device
    assert CalibrationFigures.model_validate({}).given == {}


@pytest.mark.parametrize(
    ("figures", "path", "words", "hint"),
    [
        ({"devices": {"h100-smx-80gb": {"calibration": {}}}}, "devices", "no device is called", "h100-sxm-80gb"),
        ({"clusters": {"dgx-h10": {"tiers": {}}}}, "clusters", "no cluster is called", "dgx-h100"),
        ({"stacks": {"megatron": {"layer_launch": "1 ms"}}}, "stacks", "no stack is called", "megatron-core"),
        ({"clusters": {"dgx-h100": {"tiers": {"nvlnk": {}}}}}, "clusters", "no tier of dgx-h100", "nvlink"),
        (
            {"devices": {"h100-sxm-80gb": {"calibration": {"matmul_ceilng": 0.5}}}},
            "devices.h100-sxm-80gb.calibration.matmul_ceilng",
            "can be overlaid",
            "matmul_ceiling",
        ),
        ({"stacks": {"fsdp": {"dropout": True}}}, "stacks.fsdp.dropout", "can be overlaid", "layer_launch"),
        (
            {"clusters": {"dgx-h100": {"tiers": {"nvlink": {"bandwidth": "1 GB/s"}}}}},
            "clusters.dgx-h100.tiers.nvlink.bandwidth",
            "can be overlaid",
            "efficiency",
        ),
        (
            {"devices": {"h100-sxm-80gb": {"calibration": {"matmul_ceiling": 1.5}}}},
            "devices.h100-sxm-80gb.calibration.matmul_ceiling",
            "less than or equal to 1",
            "",
        ),
        ({"stacks": {"fsdp": {"layer_launch": 0.5}}}, "stacks.fsdp.layer_launch", "needs a number with its unit", ""),
        ({"stacks": {"fsdp": {}, "FSDP": {}}}, "stacks.fsdp", "is the same name as FSDP", ""),
        ({}, "", "holds no figures", "meshwright calibrate"),
        ({"version": 2}, "version", "should be 1", ""),
        ({"devices": {"h100-sxm-80gb": {"calibration": {}}}}, "", "holds no figures", "meshwright calibrate"),
        ({"devices": None}, "devices", "must be keys with values, not empty", ""),
        ({"devices": ["h100-sxm-80gb"]}, "devices", "must be keys with values, not a list", ""),
        ({"source": ["a"]}, "source", "must be text, not a list", ""),
        (
            {"devices": {"h100-sxm-80gb": {"calibration": {"matmul_ceiling": "high"}}}},
            "devices.h100-sxm-80gb.calibration.matmul_ceiling",
            "must be a number, not 'high'",
            "",
        ),
        ({"version": True}, "version", "whole number", ""),
        ({"kernels": {}}, "kernels", "is not a known key", ""),
    ],
)
def test_what_is_refused(tmp_path: Path, figures: dict[str, Any], path: str, words: str, hint: str) -> None:
    error = refusal(tmp_path / "overlay.yaml", **figures)
    assert error.path == path
    assert words in error.message
    assert hint in error.hint


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("# nothing\n", "is empty"),
        ("hello\n", "is not an overlay: it has no version"),
        ("- 1\n", "is not an overlay: it has no version"),
        ("name: h100\nvendor: nvidia\n", "is not an overlay: it has no version"),
    ],
)
def test_what_is_no_overlay_is_told_so(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "overlay.yaml"
    path.write_text(text, "utf-8")
    with pytest.raises(InputError) as caught:
        read_overlay(path)
    assert str(caught.value) == f"{path}: {words}"
    assert "meshwright calibrate -o FILE" in caught.value.hint


def test_a_plan_holds_what_was_laid_over_its_inputs(tmp_path: Path) -> None:
    file = tmp_path / "plan.yaml"
    base = plan("llama-3.1-8b", "dgx-h100:8", global_batch=64, sequence_length=4096)
    made = plan("llama-3.1-8b", "dgx-h100:8", global_batch=64, sequence_length=4096, overlays=[overlay(**SLOW)])
    assert made.predicted.step_time_s > 1.5 * base.predicted.step_time_s
    assert made.inputs.device.entry.calibration.matmul_ceiling == 0.3
    write_plan(made, file)
    again = load_plan(file)
    assert again == made
    assert check_plan(again) == ()
    assert explain_plan(again).time == explain_plan(made).time
    (first, *_) = check_plan(again, [overlay(stacks={"fsdp": {"layer_launch": "1 ms"}})])
    assert "layout" in first or "predicted" in first


def test_a_plan_of_a_users_cluster_is_overlaid_by_its_names(
    tmp_path: Path, toy_cluster: Callable[..., ClusterEntry]
) -> None:
    cluster = tmp_path / "cluster.yaml"
    cluster.write_text(yaml.safe_dump(toy_cluster(8).model_dump(mode="json")), "utf-8")
    laid = written(
        tmp_path / "overlay.yaml",
        devices={"toy-device": {"calibration": {"matmul_ceiling": 0.25}}},
        clusters={"toy-cluster": {"tiers": {"node": {"efficiency": 0.5}}}},
    )
    made = plan("llama-3.1-8b", cluster, global_batch=64, sequence_length=4096, overlays=[laid])
    assert made.inputs.device.entry.calibration.matmul_ceiling == 0.25
    assert made.inputs.cluster.entry.tiers[0].efficiency == 0.5
    assert check_plan(made) == ()
    written(laid, clusters={"toy-cluster": {"tiers": {"nodes": {"efficiency": 0.5}}}})
    with pytest.raises(InputError, match="no tier of toy-cluster is called 'nodes'"):
        plan("llama-3.1-8b", cluster, global_batch=64, sequence_length=4096, overlays=[laid])


def test_a_plan_predicted_again_keeps_its_layouts() -> None:
    made = plan("llama-3.1-8b", "dgx-h100:8", global_batch=64, sequence_length=4096, top=2)
    assert repredict(made, [overlay(stacks={"fsdp": {"layer_launch": "1 ms"}})]).predicted == made.predicted
    slow = repredict(made, [overlay(**SLOW)])
    assert (slow.layout, len(slow.alternatives)) == (made.layout, len(made.alternatives))
    assert slow.predicted.step_time_s > 1.5 * made.predicted.step_time_s
    for before, after in zip(made.alternatives, slow.alternatives, strict=True):
        assert after.step_time_s > before.step_time_s
        assert after.slower_by == pytest.approx(after.step_time_s / slow.predicted.step_time_s - 1)


def test_an_estimate_uses_what_is_laid_over(case_document: Callable[..., dict[str, Any]]) -> None:
    case = Case.model_validate(case_document())
    slower = {
        "devices": {"a100-sxm-80gb": {"calibration": {"matmul_ceiling": 0.4}}},
        "clusters": {"selene": {"tiers": {find_cluster("selene").tiers[0].name: {"efficiency": 0.1}}}},
        "stacks": {"megatron-core": {"step_overhead": "7 s"}},
    }
    (base,) = estimate([case])
    assert base.predicted is not None
    for kind, figures in slower.items():
        (found,) = estimate([case], overlays=[overlay(**{kind: figures})])
        assert found.predicted is not None
        assert found.predicted.step_time_s > base.predicted.step_time_s * 1.01, kind
    assert found.predicted.breakdown["step_overhead"] == 7.0


def test_every_command_that_uses_figures_takes_overlays(
    tmp_path: Path, case_document: Callable[..., dict[str, Any]]
) -> None:
    laid, cases, file = written(tmp_path / "overlay.yaml", **SLOW), tmp_path / "cases.yaml", tmp_path / "plan.yaml"
    h100 = {"device": "h100-sxm-80gb", "devices": 16, "devices_per_node": 8}
    cases.write_text(yaml.safe_dump([case_document(cluster=h100, measured={"step_time_s": 1.0})]), "utf-8")
    for words in (("estimate", cases), ("accuracy", cases), ("plan", *JOB), ("catalog", "devices", "h100-sxm-80gb")):
        plain, overlaid = run(*words, "--json"), run(*words, "--json", "--overlay", laid)
        assert (plain.exit_code, overlaid.exit_code) == (0, 0), overlaid.output
        assert json.loads(plain.stdout) != json.loads(overlaid.stdout)
    assert "matmul_ceiling: 0.3\n" in run("catalog", "devices", "h100-sxm-80gb", "--overlay", laid).stdout

    made = run("plan", *JOB, "-o", file, "--overlay", laid)
    assert "with calibrated figures: measured here" in made.stdout
    assert run("check", file).exit_code == 0
    fast = written(tmp_path / "fast.yaml", devices={"h100-sxm-80gb": {"calibration": {"matmul_ceiling": 0.9}}})
    assert run("check", file, "--overlay", laid, "--overlay", fast).exception is not None
    plain, overlaid = run("explain", file, "--json"), run("explain", file, "--json", "--overlay", fast)
    assert json.loads(plain.stdout)["layout"] == json.loads(overlaid.stdout)["layout"]
    assert json.loads(plain.stdout)["time"] != json.loads(overlaid.stdout)["time"]
    shown = run("show", file, "--overlay", fast)
    assert "Proved optimal" in run("show", file).stdout
    assert "Proved optimal" not in shown.stdout
    assert shown.stdout.count("with calibrated figures") == 2
    under = json.loads(run("show", file, "--json", "--overlay", fast).stdout)
    assert under["search"] is None
    assert (
        under["predicted"]["step_time_s"] < json.loads(run("show", file, "--json").stdout)["predicted"]["step_time_s"]
    )
    assert run("check", file, "--update", "--overlay", fast).exit_code == 0
    assert load_plan(file).inputs.device.entry.calibration.matmul_ceiling == 0.9


def test_a_wrong_overlay_ends_a_command_before_anything_is_written(tmp_path: Path) -> None:
    laid, file = tmp_path / "overlay.yaml", tmp_path / "plan.yaml"
    laid.write_text("version: 1\nsource: measured here\ndevices: {h100: {calibration: {}}}\n", "utf-8")
    command = [sys.executable, "-m", "meshwright.cli.main", "plan", *JOB, "-o", str(file), "--overlay", str(laid)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 2
    assert ran.stderr.startswith(f"error: {laid}: devices: no device is called 'h100'")
    assert not file.exists()
