"""The documentation: its worked examples come out as printed, its links lead somewhere, its figures are the code's."""

import re
from pathlib import Path

import pytest
from pocket_calculator import work_out
from worked_examples import EXAMPLES

from meshwright.catalog.device_entry import CalibrationEntry

ROOT = Path(__file__).parents[1]
DOCS, COSTMODELS = ROOT / "docs", ROOT / "costmodels"
PAGES = sorted(DOCS.glob("*.md"))
LINK = re.compile(r"\]\(([^)\s]+)\)")
FENCE = re.compile(r"```.*?```", re.DOTALL)
WORKED = re.compile(r"<!-- worked -->\n```text\n(.*?)```\n<!-- /worked -->", re.DOTALL)
LINE = re.compile(r"^.+?\s{2,}(?P<arithmetic>\S.*?) += (?P<result>\S+(?: [\w%/]+)?)(?:\s{2,}(?P<by>\w+))?$")
PERCENTAGE = re.compile(r"\d+(?:\.\d+)?(?: to \d+(?:\.\d+)?)? %")
ROUNDING = 2e-3


def by_name(page: Path) -> str:
    return page.name


def lines(name: str) -> list[re.Match[str]]:
    """Every line of arithmetic of a page's worked example."""
    (block,) = WORKED.findall((DOCS / name).read_text("utf-8"))
    found = [LINE.match(line) for line in block.splitlines() if "  = " in line]
    assert found
    assert None not in found
    return [line for line in found if line is not None]


def source(folder: Path) -> str:
    return "\n".join(path.read_text("utf-8") for path in sorted(folder.rglob("*.py")))


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text("utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_worked_example_comes_out_as_printed(name: str) -> None:
    for line in lines(name):
        assert work_out(line["arithmetic"]) == pytest.approx(work_out(line["result"]), rel=ROUNDING), line[0]


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_worked_example_ends_in_what_the_cost_model_says(name: str) -> None:
    code = source(COSTMODELS)
    named = {line["by"] for line in lines(name) if line["by"]}
    assert named
    assert [function for function in named if f"def {function}(" not in code] == []


def test_every_page_has_its_example() -> None:
    marked = {page.name for page in PAGES if "<!-- worked -->" in page.read_text("utf-8")}
    assert marked == set(EXAMPLES)


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md"], ids=by_name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(FENCE.sub("", page.read_text("utf-8"))):
        if link.startswith("http"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name} links to {link}"
        assert not anchor or anchor in anchors(target), f"{page.name} links to {link}"


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_figures_of_how_well_a_law_holds_are_those_of_its_module(page: Path) -> None:
    text = page.read_text("utf-8")
    section = re.search(r"^## How well it holds\n(.*?)(?=^## )", text, re.MULTILINE | re.DOTALL)
    if section is None:
        return
    modules = {(page.parent / link).resolve() for link in LINK.findall(text) if link.endswith(".py")}
    told = " ".join(" ".join(module.read_text("utf-8") for module in modules).split())
    for figure in PERCENTAGE.findall(" ".join(section[1].split())):
        assert figure in told, f"{page.name} says {figure}"


# Values that pass between the laws, and what only gathers them.
PLUMBING = {
    "__init__.py",
    "codes.py",
    "job.py",
    "laws.py",
    "layout.py",
    "prediction.py",
    "stage_table.py",
    "stage_times.py",
    "transformer.py",
}


def test_every_law_has_its_page() -> None:
    linked = {(page.parent / link).resolve() for page in PAGES for link in LINK.findall(page.read_text("utf-8"))}
    laws = {path for path in COSTMODELS.rglob("*.py") if path.name not in PLUMBING}
    assert {path.name for path in laws if path.resolve() not in linked} == set()


def test_the_map_leads_to_every_page() -> None:
    linked = set(LINK.findall((DOCS / "README.md").read_text("utf-8")))
    assert {page.name for page in PAGES} - {"README.md"} <= linked


def test_the_page_on_calibration_names_every_constant_of_a_device() -> None:
    text = (DOCS / "calibration.md").read_text("utf-8")
    assert [name for name in CalibrationEntry.model_fields if name != "source" and f"`{name}`" not in text] == []
