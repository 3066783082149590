"""How an evaluation looks in a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from exp3rt_trt.evaluate.bootstrap import Estimate
    from exp3rt_trt.evaluate.explanations.measure import ExplanationTable, Judged
    from exp3rt_trt.evaluate.ranking import RankingTable
    from exp3rt_trt.evaluate.ratings import Errors, RatingTable
    from exp3rt_trt.evaluate.report import Report

SAMPLE = 5  # explanations that are printed


def tables(report: Report) -> list[Table]:
    """Lay out all that a report has."""
    found = []
    if report.ratings is not None:
        found.append(_ratings(report.ratings))
    if report.ranking is not None:
        found.append(_ranking(report.ranking))
    for name, table in report.explanations.items():
        found += [_explanations(table, name), _sample(table)]
    return found


def _ratings(table: RatingTable) -> Table:
    title = (
        f"Ratings: {table.rows} rows of {table.users} users; "
        f"cold: fewer than {table.cold_below} known ratings; Δ: minus {table.baseline}"
    )
    cold = 0 < table.cold_rows < table.rows
    heads = [
        "method",
        "RMSE",
        "MAE",
        *(["RMSE cold", "RMSE warm"] if cold else []),
        "failed",
        "Δ RMSE",
        "Δ MAE",
    ]
    out = _table(title, *heads)
    for each in table.methods:
        strata = [_stratum(each.cold), _stratum(each.warm)] if cold else []
        failed = ", ".join(f"{count} {status}" for status, count in each.failures.items()) or "0"
        difference = each.difference
        apart = ["", ""] if difference is None else [_signed(difference.rmse), _signed(difference.mae)]
        out.add_row(
            Text(each.name), _value(each.errors.rmse), _value(each.errors.mae), *strata, failed, *apart
        )
    return out


def _ranking(table: RankingTable) -> Table:
    title = (
        f"Rankings: {table.lists} lists of {table.candidates / table.lists:g} candidates; "
        f"they hold {table.positives_in_lists} of {table.positives} held-out items; Δ: minus {table.baseline}"
    )
    metrics = list(table.limit)
    out = _table(title, "method", *metrics, "unscored", *(f"Δ {metric}" for metric in metrics))
    for each in table.methods:
        apart = ["" if each.difference is None else _signed(each.difference[metric]) for metric in metrics]
        values = [_value(each.metrics[metric]) for metric in metrics]
        out.add_row(Text(each.name), *values, str(each.unscored), *apart)
    out.add_row("best possible order", *(_value(table.limit[metric]) for metric in metrics))
    return out


def _explanations(table: ExplanationTable, name: str) -> Table:
    title = f"Explanations, {name}: {table.explanations}; {table.claims} claims, {table.names} names"
    out = _table(title, "measure", "share", "with another prompt")
    for share, estimate in table.shares.items():
        out.add_row(share, _value(estimate), _value(table.chance[share]))
    out.add_row("rating agrees", _value(table.agreement))
    silent = table.verdicts["no verdict"]
    tau = "none" if table.kendall_tau is None else f"{table.kendall_tau:.3f}"
    out.caption = (
        f"contradicted claims: {table.contradicted}; without a verdict: {silent}; "
        f"Kendall's tau with the rating: {tau}"
    )
    return out


def _sample(table: ExplanationTable) -> Table:
    out = Table(title="Sample", title_justify="left", show_lines=True)
    out.add_column("item", ratio=2)
    out.add_column("rating", justify="right", no_wrap=True)
    out.add_column("reasoning", ratio=7)
    out.add_column("found", ratio=5)
    for each in table.judged[:SAMPLE]:
        item = each.explained.row.item
        rating = f"{each.explained.rating:.2f}\nreal {each.explained.row.rating:g}"
        out.add_row(
            Text(f"{item.title or item.item_id}"), rating, Text(each.explained.reasoning), Text(_found(each))
        )
    return out


def _found(judged: Judged) -> str:
    grounding, coverage = judged.grounding, judged.coverage
    lines = [
        f"claims {grounding.supported_claims}/{grounding.claims}",
        f"names {grounding.known_names}/{grounding.names}",
        *(f"unsupported: {claim}" for claim in grounding.unsupported),
        *(f"contradicted: {claim}" for claim in grounding.contradicted),
        *(f"unknown: {name}" for name in grounding.unknown_names),
        f"preference: {next(iter(coverage.preferences), 'none')}",
        f"trait: {next(iter(coverage.traits), 'none')}",
        f"rating: {judged.agreement.agrees}",
    ]
    return "\n".join(lines)


def _table(title: str, first: str, *others: str) -> Table:
    table = Table(title=Text(title), title_justify="left")
    table.add_column(first, no_wrap=True)
    for head in others:
        table.add_column(head, justify="right")
    return table


def _value(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.3f}"
    return f"{estimate.value:.3f}\n{estimate.low:.3f}..{estimate.high:.3f}"


def _signed(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:+.3f}"
    return f"{estimate.value:+.3f}\n{estimate.low:+.3f}..{estimate.high:+.3f}"


def _stratum(errors: Errors | None) -> str:
    return "-" if errors is None else f"{_value(errors.rmse)}\n{errors.rows} rows"
