"""The time of products in narrow formats: what is quantised for them, and what stays in 16 bits."""

from collections.abc import Callable

import numpy as np
import pytest

from meshwright.catalog.precision import Precision
from meshwright.costmodels.job import Job
from meshwright.costmodels.layer_time import products_time_s, weight_gradients_s
from meshwright.costmodels.layer_work import attention_products, mlp_products
from meshwright.costmodels.layout import Layout, LayoutTable
from meshwright.costmodels.matmul import Matmul, matmul_time_s
from meshwright.costmodels.vocabulary import head_s


def test_nvfp4_reads_what_it_quantises_twice(round_job: Callable[..., Job]) -> None:
    # 1000 x 3000 by 3000 x 2000, at 500 GB/s: mxfp8 reads 2 bytes a value and writes 2 x 33/32, nvfp4 reads 4 and
    # writes 2 x 9/16; of the input forward, of the output's gradient backward.
    peaks = {Precision.BF16: 1e14, Precision.MXFP8: 2e14, Precision.NVFP4: 2e14}
    sizes = {name: np.array([size]) for name, size in (("rows", 1e3), ("columns", 2e3), ("inner", 3e3))}
    product = Matmul(**sizes, count=np.ones(1))
    shapes = [product, Matmul(rows=sizes["rows"], columns=sizes["inner"], inner=sizes["columns"], count=np.ones(1))]
    shapes.append(Matmul(rows=sizes["inner"], columns=sizes["columns"], inner=sizes["rows"], count=np.ones(1)))
    for precision, value_bytes in ((Precision.MXFP8, 2 + 2 * 33 / 32), (Precision.NVFP4, 4 + 2 * 9 / 16)):
        cluster = {"device": {"peak_flop_per_s": peaks}}
        job = round_job(precision=precision, cluster=cluster, stack={"fused_accumulation": False})
        alone = [float(matmul_time_s(job.cluster.device, precision, shape)[0]) for shape in shapes]
        forward_s, backward_s = products_time_s(job, (product,))
        assert forward_s[0] - alone[0] == pytest.approx(value_bytes * 3e6 / 500e9)
        assert backward_s[0] - alone[1] - alone[2] == pytest.approx(value_bytes * 2e6 / 500e9)


def test_dynamic_scaling_reads_what_it_quantises_to_8_bits_once_more(round_job: Callable[..., Job]) -> None:
    # 1000 x 3000 by 3000 x 2000: 2 bytes more at 500 GB/s, of the input forward, of the output's gradient backward.
    sizes = {name: np.array([size]) for name, size in (("rows", 1e3), ("columns", 2e3), ("inner", 3e3))}
    product = Matmul(**sizes, count=np.ones(1))
    peaks = {Precision.BF16: 1e14, Precision.FP8: 2e14, Precision.MXFP8: 2e14}
    for precision, more_bytes in ((Precision.FP8, 2), (Precision.MXFP8, 0), (Precision.BF16, 0)):
        delayed, dynamic = (
            products_time_s(
                round_job(
                    precision=precision,
                    stack={"dynamic_scaling": scaling},
                    cluster={"device": {"peak_flop_per_s": peaks}},
                ),
                (product,),
            )
            for scaling in (False, True)
        )
        assert dynamic[0] - delayed[0] == pytest.approx(more_bytes * 3e6 / 500e9, abs=1e-15)
        assert dynamic[1] - delayed[1] == pytest.approx(more_bytes * 2e6 / 500e9, abs=1e-15)


def test_wide_products_run_in_16_bits_and_quantise_nothing(round_job: Callable[..., Job]) -> None:
    # 10,000 x 900 by 900 x 10,000 in an 8-bit job. Wide: 4.02 ms at 50 TFLOP/s and 0.472 ms of memory, as in bf16.
    # Narrow: 2 x 10^8 x 1,000 x 1.005 / (0.4 x 200 TFLOP/s) = 2.5125 ms; (1.8 x 10^7 + 2 x 10^8) B / 500 GB/s =
    # 0.436 ms; the input's 9 x 10^6 values quantised in (2 + 2) B each / 500 GB/s = 0.072 ms.
    sizes = {name: np.array([size]) for name, size in (("rows", 1e4), ("columns", 1e4), ("inner", 900.0))}
    narrow, wide = (Matmul(**sizes, count=np.ones(1), wide=wide) for wide in (False, True))
    job = round_job(precision=Precision.FP8)
    assert products_time_s(job, (narrow,))[0] == pytest.approx(np.hypot(2.5125e-3, 0.436e-3) + 1e-5 + 0.072e-3)
    assert products_time_s(job, (wide,))[0] == pytest.approx(np.hypot(4.02e-3, 0.472e-3) + 1e-5)
    assert products_time_s(job, (wide,)) == products_time_s(round_job(), (narrow,))
    assert weight_gradients_s(job, (wide,)) == weight_gradients_s(round_job(), (narrow,))
    both_s = products_time_s(job, (narrow, wide))
    assert both_s[1] == pytest.approx(products_time_s(job, (narrow,))[1] + products_time_s(job, (wide,))[1])


def test_head_and_router_stay_in_16_bits(round_job: Callable[..., Job]) -> None:
    experts = {"experts": 8, "top_k": 2, "ffn_hidden": 512, "shared_ffn_hidden": 512}
    job = round_job(model={"experts": experts}, precision=Precision.FP8)
    layouts, layer = LayoutTable.of([Layout()]), job.model.layer_kinds[0]
    assert [product.wide for product in mlp_products(job, layer.mlp, layouts)] == [True] + 4 * [False]
    assert not any(product.wide for product in attention_products(job, layer.attention, layouts))
    assert head_s(job, layouts) == head_s(round_job(), layouts)
