"""The bars and the rankings, as tables."""

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.text import Text

from meshwright.cli.render.tables import add_row, plain_table
from meshwright.cli.render.text import printable
from meshwright.cli.render.units import shown_figure, shown_seconds, shown_share
from meshwright.planner.accuracy.bars import AT_LEAST, RANKED, RATIOS, Bar, Measure, source_name
from meshwright.planner.accuracy.ranking import NEAR, Candidate, Group, Ranking

GROUPS_SHOWN = 5


def render_bars(console: Console, bars: Sequence[Bar]) -> None:
    """Print each bar with its figure and whether it is met."""
    if not bars:
        return
    table = plain_table("Bars", ["of", "measure"], ["rows", "value", "bar"])
    table.add_column("", no_wrap=True)
    for bar in bars:
        verdict = Text("met", style="green") if bar.holds else Text("NOT MET", style="bold red")
        add_row(
            table,
            bar.name,
            bar.measure,
            bar.count,
            _shown(bar, bar.value, digits=1),
            _limit(bar),
            verdict,
        )
    console.print(table)
    met = sum(bar.holds for bar in bars)
    console.print(f"{met} of {len(bars)} bars are met. Means are taken a source first, then over sources.\n")


def _limit(bar: Bar) -> str:
    if bar.measure is Measure.FORETOLD and bar.limit == 1:
        return "all"
    return f"{'>=' if bar.measure in AT_LEAST else '<='} {_shown(bar, bar.limit, digits=0)}"


def _shown(bar: Bar, value: float, *, digits: int) -> str:
    if bar.measure in RATIOS:
        return shown_figure(value, f".{2 + digits}f")
    return f"{shown_figure(value * 100, f'.{digits}f')} %"


def render_rankings(console: Console, rankings: Sequence[Ranking]) -> None:
    """Print how well the layouts of each job are ranked, by source, and the jobs where the pick costs the most."""
    if not rankings:
        return
    table = plain_table("Layouts of one job", ["file"], ["jobs", "over best", "at worst", "pairs in order"])
    for ranking in rankings:
        share = f"  {shown_share(ranking.ordered / ranking.pairs)}" if ranking.pairs else ""
        add_row(
            table,
            source_name(ranking.file),
            len(ranking.groups),
            shown_figure(ranking.mean_over_best, ".3f"),
            shown_figure(ranking.worst_over_best, ".3f"),
            f"{ranking.ordered} of {ranking.pairs}{share}",
        )
    console.print(table)
    held = [ranking for ranking in rankings if source_name(ranking.file) in RANKED] or rankings
    _render_groups(console, [group for ranking in held for group in ranking.groups if group.over_best > NEAR])


def _render_groups(console: Console, groups: Iterable[Group]) -> None:
    table = plain_table("Costliest picks", ["job, what is picked, and what is best"], ["over best", "pairs"])
    table.leading = 1
    for group in sorted(groups, key=lambda group: -group.over_best)[:GROUPS_SHOWN]:
        lines = (_job(group), *_lines("picked", group.picked), *_lines("best", group.best))
        text = Text("\n".join(printable(line) for line in lines))
        add_row(table, text, shown_figure(group.over_best, ".3f"), f"{group.ordered} of {group.pairs}")
    if table.row_count:
        console.print(table)


def _job(group: Group) -> str:
    case = group.best.repeats[0].case
    sequences = f"{case.batch.global_batch:,} x {case.model.sequence_length:,}"
    return f"{case.model.name} on {case.cluster.devices:,} x {case.cluster.device}, {sequences}"


def _lines(role: str, candidate: Candidate) -> tuple[str, str]:
    measured, predicted = shown_seconds(candidate.measured_s), shown_seconds(candidate.predicted_s)
    return f"{role}: {measured}, predicted {predicted}", candidate.name
