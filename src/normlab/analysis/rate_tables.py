"""The numbers of a learning-rate study: every arm at its best rate, and at every rate."""

from collections.abc import Sequence

from normlab.analysis.arms import group
from normlab.analysis.cells import Cell, Column, Table, interval, number
from normlab.analysis.learning_rates import LearningRates, Point, RatedArm
from normlab.analysis.statistics import mean_interval
from normlab.analysis.style import Look
from normlab.archive.record import short_number
from normlab.archive.study import Study


def rate_tables(study: Study, rates: LearningRates) -> tuple[Table, Table]:
    """The arms at their best rates, lowest loss first, and their losses at every rate."""
    look = Look.of(group(study.runs))
    arms = sorted(rates.arms, key=lambda one: one.tuned_mean)
    names = [Cell(one.name, colour=look.colour(one.arm)) for one in arms]
    return _tuned(rates, names, arms), _by_rate(names, arms)


def _tuned(rates: LearningRates, names: Sequence[Cell], arms: Sequence[RatedArm]) -> Table:
    headings = ("best lr", "tuned loss", "LR sensitivity", "stable up to", "diverged")
    rows = [
        (
            name,
            _rate(one.best_rate),
            interval(mean_interval(list(one.tuned.values()))),
            interval(mean_interval(list(one.sensitivity.values()))),
            _rate(one.largest_stable),
            Cell(f"{one.diverged} of {len(one.arm.runs)}", one.diverged),
        )
        for name, one in zip(names, arms, strict=True)
    ]
    caption = (
        f"Over the {len(rates.grid)} learning rates that all arms share: final validation loss at "
        "the best of them; LR sensitivity (arXiv 2309.14322); stable up to: no run diverged there "
        "or below."
    )
    columns = (Column("arm"), *(Column(heading, numeric=True) for heading in headings))
    return Table(caption, columns, tuple(rows))


def _by_rate(names: Sequence[Cell], arms: Sequence[RatedArm]) -> Table:
    every = sorted({point.rate for one in arms for point in one.points})
    at = [{point.rate: point for point in one.points} for one in arms]
    rows = [
        (name, *(_point(points.get(rate)) for rate in every))
        for name, points in zip(names, at, strict=True)
    ]
    columns = (
        Column("arm"),
        *(Column(f"lr={short_number(rate)}", numeric=True) for rate in every),
    )
    caption = "Final validation loss of the finished runs by learning rate, and what diverged."
    return Table(caption, columns, tuple(rows))


def _point(point: Point | None) -> Cell:
    if point is None:
        return number(None)
    found = interval(mean_interval(list(point.losses.values())))
    if not point.diverged:
        return found
    lost = f"{point.diverged} of {len(point.arm.runs)} diverged"
    return Cell(f"{found.text}, {lost}" if point.losses else lost, found.value)


def _rate(rate: float | None) -> Cell:
    return number(None) if rate is None else Cell(short_number(rate), rate)
