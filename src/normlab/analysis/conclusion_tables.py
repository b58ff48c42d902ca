"""The numbers behind a report's verdict: the arms, and the best of them against the others."""

import math
from collections.abc import Sequence

from normlab.analysis.arms import group
from normlab.analysis.cells import Cell, Column, Table, interval, number
from normlab.analysis.comparison import Comparison
from normlab.analysis.readings import arm_cells
from normlab.analysis.sentences import measured
from normlab.analysis.speed import NOTE, speed_cell
from normlab.analysis.style import Look
from normlab.analysis.table import ArmSummary
from normlab.archive.study import Study


def arms_table(study: Study, summaries: Sequence[ArmSummary]) -> Table:
    """A row an arm, in the order of the summaries, which is that of the terminal's table."""
    arms = group(study.runs)
    names = {cell.text: cell for cell in arm_cells(arms)}
    gap = any(not math.isnan(one.gap) for one in summaries)
    columns = [
        Column("arm"),
        Column("seeds finished", numeric=True),
        Column("best val loss", numeric=True),
        Column("final val loss", numeric=True),
        *([Column("best over floor", numeric=True)] if gap else []),
        Column("diverged", numeric=True),
        Column("tokens/s", numeric=True),
        Column("parameters", numeric=True),
    ]
    rows = [
        (
            names[one.label],
            Cell(f"{one.finished} of {one.runs}", one.finished),
            interval(one.best_val),
            interval(one.final_val),
            *([number(one.gap)] if gap else []),
            Cell(str(one.diverged), one.diverged),
            speed_cell(one.tokens_per_second, one.speed_comparable),
            number(one.parameters, ",d"),
        )
        for one in summaries
    ]
    caption = (
        "Losses in nats per token: mean of the finished runs ± half the 95 % t-interval over "
        f"seeds. {NOTE}"
    )
    return Table(caption, tuple(columns), tuple(rows))


def comparisons_table(study: Study, comparisons: Sequence[Comparison]) -> Table | None:
    """A row a comparison: the lowest arm of a facet against another; None where there is none."""
    if not comparisons:
        return None
    look = Look.of(group(study.runs))
    at = any(one.facet for one in comparisons)
    columns = [
        Column("lowest mean"),
        Column("against"),
        *([Column("at")] if at else []),
        Column("lower by", numeric=True),
        Column("p, corrected", numeric=True),
        Column("seeds paired", numeric=True),
        Column("so it ends"),
        Column("pairs it would take", numeric=True),
    ]
    rows = [
        (
            Cell(one.best.name, colour=look.colour(one.best)),
            Cell(one.other.name, colour=look.colour(one.other)),
            *([Cell(one.facet)] if at else []),
            _difference(-one.difference.mean, one.difference.half),
            _probability(one.p),
            Cell(str(one.difference.pairs), one.difference.pairs),
            Cell(one.outcome),
            number(one.needed if one.outcome == "cannot tell" else None, ",d"),
        )
        for one in comparisons
    ]
    pairs = "1 pair" if comparisons[0].family == 1 else f"{comparisons[0].family} pairs"
    caption = (
        f"Final validation loss in nats per token, over equal seeds, with 95 % t-interval; p by "
        f"Holm over {pairs}. No seeds paired: Welch's test over unequal ones."
    )
    return Table(caption, tuple(columns), tuple(rows))


def _difference(mean: float, half: float) -> Cell:
    return number(mean) if math.isnan(mean) else Cell(measured(mean, half), mean)


def _probability(p: float) -> Cell:
    return Cell("< 0.001", p) if p < 0.001 else number(p, ".3f")
