"""The page on missed bars says of each row why, or that no reason was found; and no reason is of rows that are gone."""

from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
import yaml
from missed_bars_page import NO_REASON, Reasons, missed_bars_page

from meshwright.planner.accuracy import Accuracy, Estimate, accuracy

FILE = Path(__file__).parent.parent / "docs" / "missed-bars.yaml"


@pytest.fixture(scope="module")
def reasons() -> Reasons:
    return Reasons.model_validate(yaml.safe_load(FILE.read_text("utf-8")))


def test_every_reason_is_of_rows_that_there_are(shipped: Accuracy, reasons: Reasons) -> None:
    ids = {row.case.id for row in shipped.rows} | {verdict.case.id for verdict in shipped.out_of_memory}
    for each in reasons.reasons:
        for pattern in each.rows:
            assert any(fnmatchcase(name, pattern) for name in ids), pattern
    assert set(reasons.bars) <= {bar.name for bar in shipped.bars}


def test_a_row_has_its_reason_or_is_said_to_have_none(make_estimate: Callable[..., Estimate]) -> None:
    result = accuracy(
        [
            make_estimate({"step_time_s": 4.0}, id="known-1", trust="high"),
            make_estimate({"step_time_s": 1.0}, id="other", trust="high", unknown=["vocab"]),
            make_estimate({"step_time_s": 1.98}, id="near", trust="high"),
            make_estimate({"step_time_s": 1.9}, id="off-1", trust="high"),
            make_estimate({"step_time_s": 2.13}, id="off-2", trust="high"),
            make_estimate({"out_of_memory": True}, id="small"),
        ]
    )
    told = Reasons.model_validate(
        {
            "bars": {"time 16-bit, high": "The machine was odd."},
            "reasons": [
                {"of": "memory", "rows": ["known-*"], "reason": "not of its time"},
                {"of": "time", "rows": ["known-*"], "reason": "the first that fits counts"},
                {"of": "time", "rows": ["*-1"], "reason": "the second doesn't"},
            ],
        }
    )
    page = missed_bars_page(result, told)
    section = page.split("## Time 16-bit, high")[1].split("##")[0]
    assert "**Rows within 10 %** (5 rows): 60.0 %, held to 85.0 %." in section
    assert "The machine was odd." in section
    lines = [line for line in section.splitlines() if line.startswith("| `")]
    assert lines == [
        f"| `other` | a, high | 1.00 s | 2.00 s | +100.0 % | vocab | {NO_REASON} |",
        "| `known-1` | a, high | 4.00 s | 2.00 s | -50.0 % |  | the first that fits counts |",
    ]
    # Those that are less far off stand together, by source and reason.
    assert "2 more rows are off by 5 to 10 %:" in section
    assert "| a | the second doesn't | 1 | `off-1` +5.3 % |" in section
    assert f"| a | {NO_REASON} | 1 | `off-2` -6.1 % |" in section
    assert f"| `small` | a, None | 12.0 GiB | 80.0 GiB | {NO_REASON} |" in page
    assert "## Ranking" not in page
