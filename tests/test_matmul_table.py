"""Tables of timed matrix products, read for a device of 100 TFLOP/s in 16 bits and 200 in 8."""

from collections.abc import Callable

import pytest

from meshwright.catalog.errors import InputError
from meshwright.catalog.precision import Precision
from meshwright.hardware.cluster import Cluster
from meshwright.planner.calibration.matmul_table import (
    looks_like_matmul_table,
    parse_matmul_table,
)
from meshwright.planner.calibration.timing import MatmulTiming

HEADER = "m,n,k,precision,time_us\n"


@pytest.fixture
def parsed(round_cluster: Callable[..., Cluster]) -> Callable[..., tuple[MatmulTiming, ...]]:
    device = round_cluster().device

    def parse(text: str, precision: Precision | None = None) -> tuple[MatmulTiming, ...]:
        return parse_matmul_table(text, file="gemm.csv", device=device, precision=precision)

    return parse


def complaint(parsed: Callable[..., object], text: str) -> InputError:
    with pytest.raises(InputError) as caught:
        parsed(text)
    assert caught.value.file == "gemm.csv"
    return caught.value


def test_a_row_is_a_product(parsed: Callable[..., tuple[MatmulTiming, ...]]) -> None:
    (timing,) = parsed(HEADER + "4096,1024,2048,bf16,312.5\n")
    assert timing == MatmulTiming(
        rows=4096,
        columns=1024,
        inner=2048,
        precision=Precision.BF16,
        time_s=pytest.approx(312.5e-6),
        place="gemm.csv: line 2",
    )


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("time_us", "1000"),
        ("latency_us", "1e3"),
        ("kernel_time_ms", "1.0"),
        ("median_latency_s", "0.001"),
        ("duration_ns", "1000000"),
        ("Time_us", '"1,000"'),
        # 2 x 1,000^3 operations in a millisecond: 2 TFLOP/s.
        ("tflops", "2"),
        ("GFLOPS", "2000"),
    ],
)
def test_units_are_those_of_the_name(parsed: Callable[..., tuple[MatmulTiming, ...]], column: str, value: str) -> None:
    (timing,) = parsed(f"m,n,k,precision,{column}\n1000,1000,1000,bf16,{value}\n")
    assert timing.time_s == pytest.approx(1e-3)


def test_columns_come_in_any_order_and_others_are_ignored(parsed: Callable[..., tuple[MatmulTiming, ...]]) -> None:
    text = "kernel,K,dtype,M,N,batch,tflops,latency_ms\ntn_256,30,torch.bfloat16,10,20,4,0.1,5\n"
    (timing,) = parsed(text)
    assert (timing.rows, timing.columns, timing.inner, timing.count) == (10, 20, 30, 4)
    assert timing.precision is Precision.BF16
    assert timing.time_s == pytest.approx(5e-3)  # a time is exacter than the rate beside it
    assert timing.flop == 2 * 4 * 10 * 20 * 30


@pytest.mark.parametrize("mangle", [str, lambda text: text.replace(",", ";"), lambda text: text.replace(",", "\t")])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_delimiters_line_ends_comments_and_blanks(
    parsed: Callable[..., tuple[MatmulTiming, ...]], mangle: Callable[[str], str], end: str
) -> None:
    text = mangle("# made by hand\n\n m , n,k,precision,time_us\n\n4,5,6, bf16 ,7\n# half\n8,9,10,fp16,11\n\n")
    first, second = parsed(text.replace("\n", end))
    assert (first.rows, first.columns, first.inner, first.place) == (4, 5, 6, "gemm.csv: line 5")
    assert (second.precision, second.place) == (Precision.FP16, "gemm.csv: line 7")


def test_precision_may_be_told_beside_the_table(parsed: Callable[..., tuple[MatmulTiming, ...]]) -> None:
    (timing,) = parsed("m,n,k,time_us\n4,5,6,7\n", Precision.FP8)
    assert timing.precision is Precision.FP8
    (timing,) = parsed("m,n,k,dtype,time_us\n4,5,6,e4m3fnuz,7\n", Precision.FP8)
    assert timing.precision is Precision.FP8
    # What a row tells isn't overruled.
    with pytest.raises(InputError, match="line 2: the row tells of bf16, and --precision says fp8"):
        parsed("m,n,k,dtype,time_us\n4,5,6,bfloat16,7\n", Precision.FP8)
    assert parsed("m,n,k,dtype,time_us\n4,5,6,bfloat16,7\n", Precision.BF16)


def test_rows_of_other_devices_are_left_out(parsed: Callable[..., tuple[MatmulTiming, ...]]) -> None:
    text = "device,m,n,k,dtype,latency_us\nother,1,2,3,bfloat16,4\nRound,5,6,7,bfloat16,8\n"
    assert [timing.rows for timing in parsed(text)] == [5]
    assert "has no rows of round" in complaint(parsed, text.replace("Round", "square")).message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        (HEADER, "has no rows of round under its header"),
        ("4096,1024,2048,bf16,312.5\n", "line 1: there is no column 'm'"),
        ("m,n,precision,time_us\n1,2,bf16,3\n", "line 1: there is no column 'k'"),
        ("m,n,k,time_us\n1,2,3,4\n", "line 1: there is no column 'precision'"),
        ("m,n,k,precision\n1,2,3,bf16\n", "line 1: no column is a time"),
        ("m,n,k,precision,time\n1,2,3,bf16,4\n", "line 1: the column 'time' has no unit"),
        ("m,n,k,precision,latency_min\n1,2,3,bf16,4\n", "line 1: the column 'latency_min' has no unit"),
        ("m,n,k,precision,time_us,time_ms\n", "line 1: both 'time_us' and 'time_ms' could be the time"),
        ("m,n,k,m,precision,time_us\n", "line 1: the column 'm' is given twice"),
        (HEADER + "4096,1024,2048,bf16\n", "line 2: has 4 fields, where the header names 5"),
        (HEADER + "1,1,1,bf16,1\n4096,1024,20", "line 3: has 3 fields, where the header names 5"),
        (HEADER + "1.5,1,1,bf16,1\n", "line 2: m '1.5' is not a whole number"),
        (HEADER + "1,-4,1,bf16,1\n", "line 2: n '-4' is not a whole number"),
        (HEADER + "1,1,0,bf16,1\n", "line 2: k '0' is not a whole number"),
        (HEADER + "1,1," + "9" * 5000 + ",bf16,1\n", "line 2: k '9999"),
        (HEADER + "1,1,1,int4,1\n", "line 2: 'int4' is not a known precision"),
        (HEADER + "1,1,1,bf16,nan\n", "line 2: time_us 'nan' is not a number"),
        (HEADER + "1,1,1,bf16,inf\n", "line 2: time_us 'inf' is not a number"),
        (HEADER + "1,1,1,bf16,-3\n", "line 2: time_us '-3' is not a number"),
        (HEADER + "1,1,1,bf16,0\n", "line 2: time_us '0' is not a number"),
        (HEADER + "1,1,1,bf16,1e300\n", "line 2: time_us '1e300' is not a number"),
        (HEADER + "1,1,1,bf16,12 us\n", "line 2: time_us '12 us' is not a number"),
        (HEADER + '1,1,1,"bf16,1\n', "is not valid CSV"),
        # 2 x 4,096^3 operations in a microsecond: what was meant is a millisecond.
        (HEADER + "4096,4096,4096,bf16,1.5\n", "line 2: 91,626 TFLOP/s is more than round can do in bf16, 100"),
    ],
)
def test_a_bad_table_is_one_error(parsed: Callable[..., object], text: str, message: str) -> None:
    assert message in complaint(parsed, text).message


def test_tables_are_known_by_their_header() -> None:
    assert looks_like_matmul_table("# gemm\n" + HEADER)
    assert looks_like_matmul_table('device;"M";N;K\n')
    assert not looks_like_matmul_table("")
    assert not looks_like_matmul_table("#  size count type\n 8 2 float\n")
    assert not looks_like_matmul_table("m,n,k " * 10**5)
