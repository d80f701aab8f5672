"""`calibrate`: what users have goes in, an overlay comes out that predicts it better; and what is refused."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from command_line import Outcome, Run

from meshwright.catalog.cluster_entry import ClusterEntry
from meshwright.catalog.lookup import device_named, find_cluster
from meshwright.catalog.overlay_entry import OverlayEntry
from meshwright.catalog.overlay_file import read_overlay
from meshwright.catalog.precision import Precision
from meshwright.costmodels.collectives import Group, all_reduce_s
from meshwright.costmodels.matmul import Matmul, matmul_time_s
from meshwright.hardware.cluster import cluster_of
from meshwright.hardware.device import Device, device_of
from meshwright.planner.accuracy import estimate
from meshwright.planner.accuracy.case import Case
from meshwright.planner.calibration.measure import torch_bench
from meshwright.planner.calibration.measure.bench import AttentionShape, LayerProduct
from meshwright.planner.calibration.timing import Collective

DEVICE = "a100-sxm-80gb"


@pytest.fixture
def calibrated(run: Run) -> Run:
    """Run `meshwright calibrate`."""

    def call(*words: str | Path, device: str = DEVICE) -> Outcome:
        return run("calibrate", *words, "--device", device)

    return call


def answer(outcome: tuple[int, str, str]) -> Any:  # noqa: ANN401 - the JSON of a command
    code, out, err = outcome
    assert code == 0, err
    return json.loads(out, parse_constant=pytest.fail)


def overlay(**figures: object) -> OverlayEntry:
    return OverlayEntry.model_validate({"version": 1, "source": "made up", **figures})


TRUTH = overlay(devices={DEVICE: {"calibration": {"matmul_ceiling": 0.7}}})


@pytest.fixture
def case_file(tmp_path: Path, case_document: Callable[..., dict[str, Any]]) -> Callable[..., Path]:
    """Give a maker of files of cases, measured on a machine whose products reach 0.7 of the peak."""

    def make(name: str = "runs.yaml", layers: Sequence[int] = (8, 12, 16, 24), **changes: object) -> Path:
        documents = [
            case_document(
                id=f"{name}-{count}",
                model={"layers": count, "hidden": 4096, "heads": 32, "ffn_hidden": 16384},
                framework="Megatron-Core",
                **changes,
            )
            for count in layers
        ]
        for document in documents:
            (found,) = estimate([Case.model_validate(document)], overlays=[TRUTH])
            assert found.predicted is not None
            document["measured"] = {"step_time_s": found.predicted.step_time_s}
        path = tmp_path / name
        path.write_text(yaml.safe_dump(documents), "utf-8")
        return path

    return make


def test_a_machine_is_found_by_its_steps(calibrated: Run, case_file: Callable[..., Path], tmp_path: Path) -> None:
    file, target = case_file(), tmp_path / "overlay.yaml"
    found = answer(calibrated(file, "--json", "-o", target))
    (ceiling,) = (each for each in found["moved"] if each["constant"] == f"{DEVICE}.matmul_ceiling")
    assert ceiling["before"] == device_named(DEVICE).calibration.matmul_ceiling
    assert ceiling["after"] == pytest.approx(0.7, rel=0.05)
    assert ceiling["told"] > 0.8
    (source,) = found["sources"]
    assert source["before"] > 0.08
    assert source["after"] < 0.01
    assert source["left_out"] < 0.02
    assert source["left_out_at_once"] == "in fifths"
    assert found["overlay"] == yaml.safe_load(target.read_text("utf-8")) | {
        key: found["overlay"][key] for key in ("clusters", "stacks")
    }
    laid = read_overlay(target)
    assert "runs.yaml (4 rows)" in laid.source
    # The left-out steps say how far to trust predictions under the overlay; its four rows count as four.
    (residuals,) = found["residuals"]
    assert (residuals["precision"], residuals["model"], residuals["rows"]) == ("16-bit", "dense", 4)
    assert residuals["counts_as"] == 4
    assert residuals["spread"] < 0.03
    assert [each.model_dump(mode="json") for each in laid.devices[DEVICE].residuals] == [residuals]
    again = answer(calibrated(file, "--json", "--overlay", target))
    assert again["sources"][0]["before"] == pytest.approx(source["after"], abs=1e-9)


def test_sources_that_agree_foretell_each_other(calibrated: Run, case_file: Callable[..., Path]) -> None:
    found = answer(calibrated(case_file("a.yaml"), case_file("b.yaml", layers=(4, 32)), "--json"))
    assert [source["left_out_at_once"] for source in found["sources"]] == ["whole", "whole"]
    for source in found["sources"]:
        assert source["after"] < 0.01
        assert source["left_out"] < 0.02 < source["before"]


def test_the_tables(calibrated: Run, case_file: Callable[..., Path], tmp_path: Path) -> None:
    target = tmp_path / "overlay.yaml"
    code, out, err = calibrated(case_file("a.yaml"), case_file("b.yaml", layers=(4, 32)), "-o", target)
    assert (code, err) == (0, "")
    assert "6 left-out 16-bit steps of dense models are off by a factor of 1.0" in out
    for words in ("matmul_ceiling", "std. error", "left out", "whole", "mean over sources", "written to"):
        assert words in out


def test_an_overlay_holds_what_the_files_tell_of_and_nothing_else(
    calibrated: Run, case_file: Callable[..., Path], tmp_path: Path
) -> None:
    target = tmp_path / "overlay.yaml"
    found = answer(calibrated(case_file(), "--json", "-o", target))
    laid = read_overlay(target)
    held = {f"{DEVICE}.{name}" for name in laid.devices[DEVICE].calibration.given}
    held |= {f"{c}.{t}.{n}" for c, e in laid.clusters.items() for t, f in e.tiers.items() for n in f.given}
    held |= {f"{stack}.{name}" for stack, figures in laid.stacks.items() for name in figures.given}
    assert held == {each["constant"] for each in found["moved"]}
    assert held.isdisjoint(found["untold"])
    assert f"{DEVICE}.narrow_matmul_ceiling" not in held


def test_cases_of_others_are_left_out_with_a_note(
    calibrated: Run, case_file: Callable[..., Path], case_document: Callable[..., dict[str, Any]]
) -> None:
    file = case_file()
    documents = yaml.safe_load(file.read_text("utf-8"))
    measured = {"step_time_s": 0.5}
    documents += [
        case_document(id="other", cluster={"device": "h100-sxm-80gb"}, measured=measured),
        case_document(id="guess", trust="low", measured=measured),
        case_document(id="plan"),
        case_document(id="odd", layout={"tensor_parallel": 3}, measured=measured),
    ]
    file.write_text(yaml.safe_dump(documents), "utf-8")
    found = answer(calibrated(file, "--json"))
    assert found["sources"][0]["rows"] == 4
    notes = "\n".join(found["notes"])
    assert f"{file}: 1 case left out: of h100-sxm-80gb, not of {DEVICE}" in notes
    assert f"{file}: 1 case left out: of low trust, less than medium (--trust)" in notes
    assert f"{file}: 1 case left out: no step time was measured" in notes
    assert "1 case left out: no prediction, such as of odd (layout: tensor, context" in notes
    assert answer(calibrated(file, "--json", "--trust", "low"))["sources"][0]["rows"] == 5


def test_a_case_in_two_files_counts_once(calibrated: Run, case_file: Callable[..., Path]) -> None:
    first, second = case_file("a.yaml"), case_file("b.yaml", layers=(4, 32))
    documents = yaml.safe_load(second.read_text("utf-8"))
    second.write_text(yaml.safe_dump(documents + yaml.safe_load(first.read_text("utf-8"))[:3]), "utf-8")
    found = answer(calibrated(first, second, "--json"))
    assert [source["rows"] for source in found["sources"]] == [4, 2]
    assert f"{second}: 3 cases left out: given before, and counted there" in found["notes"]


def products(path: Path, *, share: float) -> Path:
    """Write a table of products that take 1 / share of the time that the catalog predicts."""
    device = device_of(device_named(DEVICE))
    lines = ["m,n,k,precision,time_us"]
    for size in (2048, 3072, 4096, 6144, 8192):
        each = np.array([float(size)])
        product = Matmul(rows=each, columns=each, inner=each, count=np.ones(1))
        seconds = matmul_time_s(device, Precision.BF16, product)[0] / share
        lines.append(f"{size},{size},{size},bf16,{seconds * 1e6:.3f}")
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def collectives(path: Path, *, share: float) -> Path:
    """Write what nccl-tests prints of all-reduces on one node that take 1 / share of the predicted time."""
    cluster = cluster_of(find_cluster("selene:8").model_copy(update={"device": device_named(DEVICE)}))
    lines = [f"#  Rank {rank:2d} Group  0 Pid  1{rank} on  node-1 device  {rank} [0x07] A100" for rank in range(8)]
    lines.append("#       size         count      type   redop    root     time   algbw   busbw #wrong")
    lines.append("#        (B)    (elements)                               (us)  (GB/s)  (GB/s)       ")
    group = Group(size=np.array([8]), stride=np.array([1]))
    for size in (2**power for power in range(20, 31, 2)):
        seconds = float(all_reduce_s(cluster, group, np.array([float(size)]))[0]) / share
        rate = size / seconds / 1e9
        timed = f"{seconds * 1e6:8.2f} {rate:7.2f} {rate * 1.75:7.2f}"
        lines.append(f"{size:12d} {size // 4:12d}     float     sum      -1 {timed} 0")
    path.write_text("# Collective test starting: all_reduce_perf\n" + "\n".join(lines) + "\n", "utf-8")
    return path


def test_tables_and_logs_tell_of_what_they_time(calibrated: Run, tmp_path: Path) -> None:
    gemm, nccl = products(tmp_path / "gemm.csv", share=0.9), collectives(tmp_path / "nccl.txt", share=0.8)
    found = answer(calibrated(gemm, nccl, "--json"))
    after = {each["constant"]: each["after"] / each["before"] for each in found["moved"]}
    assert after[f"{DEVICE}.matmul_ceiling"] == pytest.approx(0.9, rel=0.03)
    inner = find_cluster("selene").tiers[0].name
    assert after[f"selene.{inner}.efficiency"] == pytest.approx(0.8, rel=0.05)
    assert not any(name.startswith("selene.infiniband") for name in after)
    for source in found["sources"]:
        assert source["after"] < 0.02 < source["before"]
        # Neither source tells of the other's constants, so each is held against itself.
        assert source["left_out_at_once"] == "in fifths"


def test_a_cluster_of_ones_own_is_calibrated_by_its_name(
    calibrated: Run, tmp_path: Path, toy_cluster: Callable[..., ClusterEntry]
) -> None:
    cluster = tmp_path / "cluster.yaml"
    entry = toy_cluster(8, device=DEVICE, name="lab")
    cluster.write_text(yaml.safe_dump(entry.model_dump(mode="json")), "utf-8")
    target = tmp_path / "overlay.yaml"
    answer(calibrated(collectives(tmp_path / "nccl.txt", share=1.0), "--cluster", cluster, "-o", target, "--json"))
    laid = yaml.safe_load(target.read_text("utf-8"))
    assert set(laid["clusters"]) == {"lab"}
    assert "node" in laid["clusters"]["lab"]["tiers"]
    assert read_overlay(target, own_clusters=[entry]).clusters["lab"].tiers["node"].given


@dataclass
class HalfBench:
    """A machine that does half of the peak and moves half of the memory's bandwidth, with 10 us a launch."""

    device: Device
    memory_bytes: int = 80 * 2**30
    devices: int = 1

    def product_s(self, product: LayerProduct) -> float:
        return product.flop / (0.5 * self.device.peak(product.precision)) + 10e-6

    def attention_s(self, shape: AttentionShape) -> tuple[float, float]:
        forward_s = shape.flop / (0.3 * self.device.peak(shape.precision)) + 10e-6
        return forward_s, 3 * forward_s

    def copy_s(self, copied_bytes: int) -> float:
        return 2 * copied_bytes / (0.5 * self.device.memory_bandwidth_bytes_per_s) + 10e-6

    def collectives_s(self, sizes: tuple[tuple[Collective, int], ...], *, ranks: int) -> tuple[float, ...]:
        raise AssertionError(f"one device has no group of {ranks} for {sizes}")


def test_a_machine_measures_itself(calibrated: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_bench, "open_bench", lambda name: HalfBench(device_of(device_named(name))))
    found = answer(calibrated("--measure", "--json"))
    (source,) = found["sources"]
    assert source["source"] == "this machine"
    assert source["after"] < 0.7 * source["before"]
    after = {each["constant"]: each["after"] for each in found["moved"]}
    assert after[f"{DEVICE}.streaming"] == pytest.approx(0.5, rel=0.05)
    assert after[f"{DEVICE}.kernel_latency"] == pytest.approx(10e-6, rel=0.05)
    # This machine's products know no waves, which the law makes the ceiling's business.
    assert after[f"{DEVICE}.matmul_ceiling"] == pytest.approx(0.5, rel=0.15)


def refused(outcome: tuple[int, str, str], *words: str, code: int = 2) -> None:
    found, out, err = outcome
    assert (found, out) == (code, ""), err
    assert err.count("error:") == 1
    for word in words:
        assert word in err


def test_what_is_refused(calibrated: Run, case_file: Callable[..., Path], tmp_path: Path) -> None:
    file, prose = case_file(), tmp_path / "notes.txt"
    prose.write_text("It took long.\n", "utf-8")
    before = file.read_bytes()
    refused(calibrated(file, device="a100"), "no device is called 'a100'", DEVICE)
    refused(calibrated(file, device="b200-sxm-180gb"), "nothing measured on b200-sxm-180gb", "4 cases left out")
    refused(calibrated(), "no file is given", "--measure")
    refused(calibrated(file, file), "is given twice")
    refused(calibrated(file, tmp_path / "." / "runs.yaml"), "is given twice")
    copy = tmp_path / "copy.yaml"
    copy.write_bytes(before)
    refused(calibrated(file, copy), f"{copy}: holds the same as {file}, and would count twice")
    binary = tmp_path / "binary.log"
    binary.write_bytes(bytes(range(256)))
    refused(calibrated(binary), "is not UTF-8 text")
    nccl = collectives(tmp_path / "nccl.txt", share=0.8)
    nccl.write_text(nccl.read_text("utf-8").replace("[0x07] A100", "[0x07] NVIDIA H100 80GB HBM3"), "utf-8")
    refused(
        calibrated(nccl),
        "line 2: the test ran on 'NVIDIA H100 80GB HBM3', not on a100-sxm-80gb",
        "--device h100-sxm-80gb",
    )
    bare = products(tmp_path / "gemm.csv", share=0.9)
    bare.write_text(bare.read_text("utf-8").replace(",bf16", "").replace(",precision", ""), "utf-8")
    refused(calibrated(bare), "there is no column 'precision'", "--precision bf16")
    refused(calibrated(prose), f"{prose}: is nothing that constants can be fitted to", "nccl-tests")
    refused(calibrated(tmp_path / "none.yaml"), "no such file")
    refused(calibrated(tmp_path), "is a directory")
    refused(calibrated(file, "-o", file), "is one of the files that are read, so nothing is written over it")
    refused(calibrated(file, "-o", tmp_path / "none" / "overlay.yaml"), "there is no folder")
    refused(calibrated(file, "--cluster", "dgx-h100"), "--cluster", "is a cluster of h100-sxm-80gb")
    refused(calibrated(file, "--case", file), "holds 4 cases, not the one job")
    assert file.read_bytes() == before


def test_what_no_file_needs_to_be_told_is_refused(
    calibrated: Run, case_file: Callable[..., Path], tmp_path: Path
) -> None:
    file = case_file()
    one = tmp_path / "one.yaml"
    one.write_text(yaml.safe_dump(yaml.safe_load(file.read_text("utf-8"))[:1]), "utf-8")
    for option, value, what in (
        ("--ranks", "8", "a log of collectives"),
        ("--nodes", "1", "a log of collectives"),
        ("--collective", "all_gather", "a log of collectives"),
        ("--precision", "fp8", "a table of products"),
        ("--case", str(one), "a training log"),
    ):
        refused(
            calibrated(file, option, value), f"{option}: tells of {what}, and no file is one", f"leave out {option}"
        )


def test_a_file_that_tells_nothing_is_said_to(calibrated: Run, tmp_path: Path) -> None:
    device = device_of(device_named(DEVICE))
    tiny = tmp_path / "gemm.csv"
    one = np.ones(1)
    seconds = matmul_time_s(device, Precision.FP32, Matmul(rows=one, columns=one, inner=one, count=one))[0]
    rate = 2 / seconds
    assert rate < device.peak(Precision.FP32)
    tiny.write_text(f"m,n,k,precision,time_s\n1,1,1,fp32,{1e5 * seconds}\n", "utf-8")
    refused(calibrated(tiny), "the files tell nothing of any constant")


def test_nothing_is_written_where_the_fit_is_refused(calibrated: Run, tmp_path: Path) -> None:
    target, prose = tmp_path / "overlay.yaml", tmp_path / "notes.txt"
    prose.write_text("It took long.\n", "utf-8")
    target.write_text("kept", "utf-8")
    refused(calibrated(prose, "-o", target))
    assert target.read_text("utf-8") == "kept"
