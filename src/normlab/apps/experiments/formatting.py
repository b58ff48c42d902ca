"""Numbers, lists and tables as the figures, paragraphs and pages of experiments write them."""

import math
from collections.abc import Sequence
from typing import Any

from normlab.analysis.report_tables import Cell, Column, Table
from normlab.archive.versioned_json import none_to_nan


def format_short(value: float) -> str:
    """Three figures or two; what is far from 1 by its power of ten."""
    if math.isnan(value):
        return "not finite"
    size = abs(value)
    if size == 0 or 0.1 <= size < 10:
        return f"{value:.2f}"
    if 0.001 <= size < 0.1:
        return f"{value:#.3g}"
    if 10 <= size < 10_000:
        return f"{value:,.0f}"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def format_factor(factor: float) -> str:
    """`×3.82`."""
    return format_short(factor) if math.isnan(factor) else f"×{format_short(factor)}"


def format_percent(share: float) -> str:
    """A share as a percentage: 0.4 %, 12 %."""
    return f"{100 * share:.1f} %" if abs(share) < 0.1 else f"{100 * share:.0f} %"


def build_table(
    caption: str, texts: Sequence[str], numeric: Sequence[str], rows: Sequence[Sequence[Any]]
) -> Table:
    """A table with columns of texts, then of numbers; what is no Cell is formatted by its type."""

    def build_cell(value: Any) -> Cell:
        if isinstance(value, Cell):
            return value
        if isinstance(value, str):
            return Cell(value)
        if isinstance(value, int):
            return Cell(str(value), value)
        return Cell(format_short(none_to_nan(value)), none_to_nan(value))

    columns = (*map(Column, texts), *(Column(name, numeric=True) for name in numeric))
    return Table(caption, columns, tuple(tuple(map(build_cell, row)) for row in rows))
