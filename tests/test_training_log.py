"""Training logs: the forms that Megatron-LM, TorchTitan and others print, with made-up figures."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshwright.catalog.document import validate
from meshwright.catalog.errors import InputError
from meshwright.catalog.precision import Precision
from meshwright.planner.accuracy import estimate
from meshwright.planner.accuracy.case import Case, MemoryKind
from meshwright.planner.calibration.megatron_arguments import Arguments
from meshwright.planner.calibration.megatron_job import (
    framework_of,
    layout_of,
    model_of,
    precision_of,
    zero_stage_of,
)
from meshwright.planner.calibration.training_log import parse_training_log
from meshwright.planner.calibration.training_steps import looks_like_training_log

ARGUMENTS: dict[str, object] = {
    "accumulate_allreduce_grads_in_fp32": True,
    "attention_backend": "AttnBackend.auto",
    "attention_dropout": 0.0,
    "bf16": True,
    "context_parallel_size": 1,
    "cp_comm_type": "['p2p']",
    "cross_entropy_loss_fusion": True,
    "data_parallel_size": 2,
    "expert_model_parallel_size": 1,
    "ffn_hidden_size": 14336,
    "fp8": None,
    "global_batch_size": 128,
    "gradient_accumulation_fusion": True,
    "group_query_attention": True,
    "hidden_dropout": 0.0,
    "hidden_size": 4096,
    "kv_channels": 128,
    "micro_batch_size": 1,
    "mtp_num_layers": None,
    "num_attention_heads": 32,
    "num_experts": None,
    "num_layers": 32,
    "num_query_groups": 8,
    "optimizer": "adam",
    "overlap_grad_reduce": True,
    "overlap_param_gather": False,
    "padded_vocab_size": None,
    "pipeline_model_parallel_size": 2,
    "recompute_granularity": None,
    "seq_length": 8192,
    "sequence_parallel": True,
    "swiglu": True,
    "tensor_model_parallel_size": 4,
    "transformer_impl": "transformer_engine",
    "untie_embeddings_and_output_weights": True,
    "use_distributed_optimizer": True,
    "virtual_pipeline_model_parallel_size": None,
    "world_size": 16,
}
TIMES_MS = (60_000.0, 7_000.0, 5_010.0, 5_000.0, 5_030.0, 5_020.0, 9_000.0, 5_015.0, 5_025.0)


def block(**changes: object) -> str:
    lines = (f"  {name} {'.' * max(48 - len(name), 3)} {value}\n" for name, value in (ARGUMENTS | changes).items())
    return (
        "using world size: 16\n------------------------ arguments ------------------------\n"
        + "".join(lines)
        + "-------------------- end of arguments ---------------------\n"
        + " > padded vocab (size: 128256) with 0 dummy tokens (new size: 128256)\n"
    )


def iteration(number: int, time_ms: object, *, batch: int = 128) -> str:
    return (
        f" [2025-01-01 00:00:00] iteration {number:8d}/     100 | consumed samples: {number * batch:12d} | "
        f"elapsed time per iteration (ms): {time_ms} | throughput per GPU (TFLOP/s/GPU): 400.1 | "
        f"global batch size: {batch:5d} | lm loss: 2.0E+00 | loss scale: 1.0 | grad norm: 6.895 |\n"
    )


def steps(*times_ms: object) -> str:
    return "".join(iteration(number, time) for number, time in enumerate(times_ms or TIMES_MS, start=1))


MEMORY = (
    "[Rank 0] (after 1 iterations) memory (MB) | allocated: 100.0 | max allocated: 200.5 | reserved: 400.0 |"
    " max reserved: 400.0\n"
    "[Rank 8] (after 1 iterations) memory (MB) | allocated: 100.0 | max allocated: 300.25 | reserved: 400.0 |"
    " max reserved: 900.0\n"
)


def read(text: str, case: Case | None = None, *, file: str = "run.log") -> Case:
    return parse_training_log(text, file=file, device="h100-sxm-80gb", case=case)


def complaint(text: str, case: Case | None = None) -> InputError:
    with pytest.raises(InputError) as caught:
        read(text, case)
    assert caught.value.file == "run.log"
    return caught.value


def printed(**values: object) -> Arguments:
    return Arguments({name: str(value) for name, value in (ARGUMENTS | values).items()}, file="run.log")


@pytest.fixture
def job(case_document: Callable[..., dict[str, Any]]) -> Case:
    # 64 sequences of 1,024 tokens on 16 devices.
    document = case_document(cluster={"device": "h100-sxm-80gb"})
    return validate(Case, document, file="case.yaml")


def test_megatron_prints_a_whole_case() -> None:
    case = read(block() + steps() + MEMORY)
    assert case.measured is not None
    # The first third, three of nine steps, warms up; of 5,000, 5,030, 5,020, 9,000, 5,015, 5,025 ms the middle is this.
    assert case.measured.step_time_s == pytest.approx((5.020 + 5.025) / 2)
    assert case.measured.peak_memory_bytes == round(300.25 * 2**20)
    assert case.measured.peak_memory_kind is MemoryKind.ALLOCATED
    assert case.measured.peak_memory_rank == "rank 8"
    model, layout = case.model, case.layout
    assert (model.layers, model.hidden, model.heads, model.kv_heads, model.head_dim) == (32, 4096, 32, 8, 128)
    assert (model.ffn_hidden, model.gated_mlp, model.vocab, model.tied_embeddings) == (14336, True, 128256, False)
    assert (layout.tensor_parallel, layout.pipeline_parallel, layout.data_parallel) == (4, 2, 2)
    assert (layout.sequence_parallel, layout.zero_stage, layout.recompute) == (True, 1, "none")
    assert (layout.overlap_grad_reduce, layout.overlap_param_gather) == (True, False)
    assert (case.batch.global_batch, case.batch.micro_batch) == (128, 1)
    assert (case.cluster.devices, case.cluster.devices_per_node) == (16, 8)
    assert (case.framework, case.precision) == ("Megatron-Core", Precision.BF16)
    assert case.source == "run.log: median of 6 steps from line 46 on"


def test_the_case_of_a_log_can_be_predicted() -> None:
    (found,) = estimate([read(block() + steps())])
    assert found.error is None
    assert found.predicted is not None
    assert 1.0 < found.predicted.step_time_s < 30.0  # 8 B parameters, 2^20 tokens, 16 devices


@pytest.mark.parametrize("prefix", ["0: ", "[default0]:", "[1,0]<stdout>:", "[rank0]: ", "worker-0 | "])
def test_prefixes_colours_and_line_ends_change_nothing(prefix: str) -> None:
    plain = block() + steps() + MEMORY
    lines = [prefix + line.replace("elapsed", "\x1b[32melapsed\x1b[0m") for line in plain.splitlines()]
    assert read("\r\n".join(lines)) == read(plain)


def test_a_batch_that_grows_is_left_out_until_it_has_grown() -> None:
    growing = "".join(iteration(number, 100, batch=64) for number in range(1, 50))
    grown = "".join(iteration(number, 2_000, batch=256) for number in range(50, 56))
    case = read(block(global_batch_size=512) + growing + grown)
    assert case.batch.global_batch == 256
    assert case.measured is not None
    assert case.measured.step_time_s == pytest.approx(2.0)


def test_torchtitan_prints_tokens_a_second_and_device(job: Case) -> None:
    lines = "".join(
        f"[rank{rank}]:[titan] 2025-06-16 22:31:0{number},338 - root - INFO - \x1b[31mstep: {number:2d}  "
        f"\x1b[32mloss:  6.1384  \x1b[33mmemory: {40 + number / 2}GiB(52.28%)  \x1b[34mtps: {tps}  "
        f"\x1b[36mtflops: 339.16  \x1b[35mmfu: 34.29%\x1b[39m\n"
        for number, tps in enumerate(("100", "4,000", "4,096", "4,196"), start=1)
        for rank in range(2)
    )
    measured = read(lines, job).measured
    assert measured is not None
    # Steps 3 and 4 are steady: 4,146 tokens a device and second; 64 x 1,024 tokens over 16 devices are 4,096 each.
    assert measured.step_time_s == pytest.approx(4096 / 4146)
    assert measured.peak_memory_bytes == 42 * 2**30
    assert measured.peak_memory_kind is MemoryKind.RESERVED


@pytest.mark.parametrize(
    "line",
    [
        "step {n}: step time: 1.25 s, loss 3",
        "Step: {n}/625, Loss: 0.28958, Grad norm: 0.6, Iteration time: 1.25s, lr: 1e-7",
        "global_step={n} train_step_timing in s: 1.25",
        "iter {n} | step_time_ms: 1250.0",
        "epoch 0 step {n} batch_time (ms) = 1250",
        "iteration time (sec): 1.25 iteration {n}",
    ],
)
def test_other_logs_tell_a_time_with_its_unit(line: str, job: Case) -> None:
    text = "".join(line.format(n=number) + "\n" for number in range(1, 7))
    measured = read(text, job).measured
    assert measured is not None
    assert measured.step_time_s == pytest.approx(1.25)
    assert measured.peak_memory_bytes is None


def test_memory_in_bytes_counts_too(job: Case) -> None:
    text = steps(1000, 1000, 1000).replace(" 128 |", "  64 |") + "mem-max-allocated-bytes: 58188109552\n"
    measured = read(text, job).measured
    assert measured is not None
    assert (measured.peak_memory_bytes, measured.peak_memory_kind) == (58188109552, MemoryKind.ALLOCATED)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no step that tells its time"),
        ("\x1b[2J\n#\n" * 50, "holds no step that tells its time"),
        (block(), "holds no step that tells its time"),
        (steps(), "doesn't print the job that it trains"),
        (block() + steps(5000, 5000), "holds 2 steps of its last batch size, and at least 3 are needed"),
        (block() + steps(5000, "nan", 5000), "line 44: the time in ms 'nan' is not a number"),
        (block() + steps(5000, "inf", 5000), "line 44: the time in ms 'inf' is not a number"),
        (block() + steps(5000, "-1", 5000), "line 44: the time in ms '-1' is not a number"),
        (block() + steps(5000, "0.0", 5000), "line 44: the time in ms '0.0' is not a number"),
        (block() + steps(5000, "1e300", 5000), "line 44: the time in ms '1e300' is not a number"),
        (block() + steps(5000, "", 5000), "line 44: the time in ms"),
        (block(num_layers="many") + steps(), "the argument num_layers is 'many', not a whole number"),
        (block(num_layers=None) + steps(), "the printed arguments don't tell num_layers"),
        (block(hidden_size=-4096) + steps(), "model.hidden"),
        (block(num_layers="9" * 400) + steps(), "the argument num_layers is '999"),
        (block(num_query_groups=5) + steps(), "model.kv_heads: heads 32 must be a multiple of kv_heads 5"),
        (block()[:1000] + "\n" + steps(), "the printed arguments don't tell"),
        (block() + steps() + MEMORY.replace("300.25", "nan"), "the memory 'nan' is not a number"),
        ("step time: 12.5\n" * 9, "line 1: the time of the step has no unit"),
        ("step: 1 tps: nan\n" * 9, "line 1: tps 'nan' is not a number"),
    ],
)
def test_a_bad_log_is_one_error(text: str, message: str) -> None:
    assert message in str(complaint(text))


def test_a_step_of_ages_is_told_with_the_range(case_document: Callable[..., dict[str, Any]]) -> None:
    """A billion sequences of a billion tokens on 16 devices, at 0.001 tokens a second on each, take 6e19 s."""
    vast = case_document(model={"sequence_length": 10**9}, batch={"global_batch": 10**9})
    on = vast["cluster"] | {"device": "h100-sxm-80gb"}
    log = "".join(f"step: {number} tps: 0.001\n" for number in range(1, 10))
    told = complaint(log, validate(Case, vast | {"cluster": on}, file="case"))
    assert str(told).startswith("run.log: step_time_s: must be from 1e-06 to 1e+09 seconds")


def test_a_case_stands_in_for_what_the_log_does_not_tell(job: Case) -> None:
    text = steps().replace("128 |", " 64 |")
    case = read(text, job)
    assert (case.id, case.model, case.layout, case.batch) == (job.id, job.model, job.layout, job.batch)
    assert case.measured is not None
    assert case.measured.step_time_s == pytest.approx(5.0225)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (steps(), "batch.global_batch is 128 in the log and 64 in the case"),
        (block(world_size=8) + steps().replace("128 |", " 64 |"), "cluster.devices is 8 in the log and 16 in the case"),
        (
            block(num_layers=8, hidden_size=None) + steps().replace("128 |", " 64 |"),
            "layout.tensor_parallel is 4 in the log and 2 in the case",
        ),
    ],
)
def test_a_case_of_another_job_is_refused(text: str, message: str, job: Case) -> None:
    assert message in complaint(text, job).message


def test_a_case_of_another_device_is_refused(job: Case) -> None:
    with pytest.raises(InputError, match="the case is of h100-sxm-80gb, and b200-sxm-180gb is to be calibrated"):
        parse_training_log(steps(), file="run.log", device="b200-sxm-180gb", case=job)


@pytest.mark.parametrize(
    ("changes", "precision"),
    [
        ({}, Precision.BF16),
        ({"bf16": False, "fp16": True}, Precision.FP16),
        ({"bf16": False}, Precision.FP32),
        ({"fp8": "hybrid", "fp8_recipe": "delayed"}, Precision.FP8),
        ({"fp8": "e4m3", "fp8_recipe": "mxfp8"}, Precision.MXFP8),
        ({"fp4": "e2m1"}, Precision.NVFP4),
    ],
)
def test_precision_is_that_of_the_products(changes: dict[str, object], precision: Precision) -> None:
    assert precision_of(printed(**changes)) is precision


@pytest.mark.parametrize(
    ("changes", "framework"),
    [
        ({}, "Megatron-Core"),
        ({"cross_entropy_loss_fusion": False}, "Megatron-LM (main)"),
        ({"transformer_impl": None}, "Megatron-LM (2021)"),
        ({"deepspeed": True}, "Megatron-DeepSpeed"),
        ({"reuse_fp32_param": False}, "MindSpeed-LLM"),
    ],
)
def test_frameworks_are_told_by_their_own_arguments(changes: dict[str, object], framework: str) -> None:
    assert framework_of(printed(**changes)) == framework


@pytest.mark.parametrize(
    ("changes", "stage"),
    [
        ({}, 1),
        ({"use_distributed_optimizer": False}, 0),
        ({"use_torch_fsdp2": True}, 3),
        ({"use_megatron_fsdp": True, "data_parallel_sharding_strategy": "optim_grads"}, 2),
        ({"deepspeed": True, "zero_stage": 2}, 2),
    ],
)
def test_zero_stages(changes: dict[str, object], stage: int) -> None:
    assert zero_stage_of(printed(**changes)) == stage


def test_layout_switches() -> None:
    layout = layout_of(
        printed(
            recompute_granularity="full",
            recompute_method="block",
            recompute_num_layers=5,
            context_parallel_size=2,
            data_parallel_size=8,
            num_distributed_optimizer_instances=4,
            attention_backend="AttnBackend.unfused",
            gradient_accumulation_fusion=False,
            hidden_dropout=0.1,
            virtual_pipeline_model_parallel_size=4,
        )
    )
    assert (layout["recompute"], layout["recompute_detail"]) == ("full", "full (method block, num-layers 5)")
    assert (layout["context_parallel"], layout["context_parallel_method"]) == (2, "p2p")
    assert layout["zero_shard_devices"] == 8 * 2 // 4
    assert (layout["flash_attention"], layout["dropout"], layout["virtual_pipeline"]) == (False, 0.1, 4)
    assert layout["no_accumulation_fusion"] is True
    selective = layout_of(printed(recompute_granularity="selective", recompute_modules="['core_attn']"))
    assert selective["recompute_detail"] == "selective (attention core)"
    assert "flash_attention" not in layout_of(printed())
    assert layout_of(printed(use_tp_pp_dp_mapping=True))["axis_order"] == "tp-cp-pp-dp"
    assert "axis_order" not in layout_of(printed(use_tp_pp_dp_mapping=False))


def test_mixtures_and_latent_attention() -> None:
    frequency = "[0, 0, 0, 1, 1, 1, 1, 1]"
    model = model_of(
        printed(
            num_layers=8,
            num_experts=64,
            moe_router_topk=6,
            moe_router_num_groups=8,
            moe_router_group_topk=3,
            moe_ffn_hidden_size=1408,
            moe_shared_expert_intermediate_size=2816,
            moe_layer_freq=frequency,
            multi_latent_attention=True,
            q_lora_rank=None,
            kv_lora_rank=512,
            qk_head_dim=128,
            qk_pos_emb_head_dim=64,
            v_head_dim=128,
        )
    )
    assert model["moe"]["moe_layer_freq"] == "[0]*3+[1]*5"
    assert (model["moe"]["experts"], model["moe"]["top_k"], model["moe"]["expert_ffn_hidden"]) == (64, 6, 1408)
    assert (model["moe"]["n_group"], model["moe"]["topk_group"]) == (8, 3)
    assert model["moe"]["shared_expert_ffn"] == 2816
    assert model["mla"] == {
        "q_lora_rank": None,
        "kv_lora_rank": 512,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
    }
    assert "moe" not in model_of(printed(num_experts="[1]"))


def test_heads_without_groups_have_their_own_keys() -> None:
    # Megatron-LM prints num_query_groups 1, its default, where attention isn't grouped.
    assert model_of(printed(group_query_attention=False, num_query_groups=1))["kv_heads"] == 32


def test_training_logs_are_known_by_their_steps() -> None:
    assert looks_like_training_log(steps())
    assert looks_like_training_log("[rank0]: step: 1 loss: 3 tps: 100\n")
    assert not looks_like_training_log(block())
    assert not looks_like_training_log("m,n,k,precision,time_us\n1,1,1,bf16,1\n")


def outcome(text: str) -> Case | InputError:
    try:
        return read(text)
    except InputError as error:
        return error


@given(st.integers(0, 10**6), st.integers(0, 60), st.text(max_size=20))
def test_a_damaged_log_is_read_or_refused(start: int, length: int, insert: str) -> None:
    whole = block() + steps() + MEMORY
    start %= len(whole)
    found = outcome(whole[:start] + insert + whole[start + length :])
    if isinstance(found, InputError):
        assert str(found).startswith("run.log: ")
        assert "\n" not in str(found)
    else:
        assert found.measured is not None
        assert found.measured.step_time_s is not None
