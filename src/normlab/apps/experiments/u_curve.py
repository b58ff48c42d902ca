"""Final loss against learning rate, on one Axes: a line an arm, a dot a seed, a × a divergence."""

from collections.abc import Iterable, Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, NullFormatter

from normlab.analysis.arms import format_value
from normlab.analysis.panels import LOSS_LABEL
from normlab.analysis.style import GREY, Look
from normlab.apps.experiments.trials import Trial, by

RATE_LABEL = "learning rate"

# Shares of the span of losses that are kept free: below, above, and for every row of crosses.
_BELOW, _ABOVE, _ROW = 0.06, 0.04, 0.07


def limits(found: Iterable[Trial]) -> tuple[float, float]:
    """Limits of the loss axis, in nats per token, with room at the top for what diverged."""
    trials = list(found)
    values = [loss for trial in trials for loss in trial.losses.values()]
    values += [trial.unigram for trial in trials if trial.unigram is not None]
    if not values:
        return 0.0, 1.0
    low, high = min(values), max(values)
    span = max(high - low, 0.02 * abs(high))
    rows = len({trial.name for trial in trials if trial.diverged})
    return low - _BELOW * span, high + (_ABOVE + _ROW * rows) * span


def draw_all(axes: Axes, found: Iterable[Trial], look: Look) -> None:
    """Every arm's curve; those that diverged have a row of crosses each, above all losses."""
    row = 0
    for some in by(lambda trial: trial.name, found).values():
        u_curve(axes, some, look, row)
        row += any(trial.diverged for trial in some)


def frame(axes: Axes, rates: Sequence[float], limited: tuple[float, float]) -> None:
    """A logarithmic axis with a tick at every rate of the grid, each named."""
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(sorted(rates)))
    axes.set_xticklabels([format_value(rate) for rate in sorted(rates)])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.minorticks_off()
    axes.margins(x=0.08)
    axes.set_xlim(min(rates) / 1.5, max(rates) * 1.5)
    axes.set_ylim(*limited)
    axes.set_xlabel(RATE_LABEL)
    axes.set_ylabel(f"final {LOSS_LABEL}")


def u_curve(axes: Axes, trials: Sequence[Trial], look: Look, row: int) -> None:
    """One arm's mean over the rates at which all runs finished; its crosses in a row from the top.

    Where some diverged, the mean of the others stands apart and hollow: it is that of survivors.
    """
    arm = trials[0].arm
    colour, marker = look.colour(arm), look.marker(arm)
    ordered = sorted(trials, key=lambda trial: trial.rate)
    done = [trial for trial in ordered if trial.losses]
    for trial in done:
        if len(trial.losses) > 1:
            seeds = list(trial.losses.values())
            at = [trial.rate] * len(seeds)
            axes.plot(at, seeds, marker, color=colour, ms=3, alpha=0.45, mew=0)
    line, apart = (_points(one for one in done if one.whole is whole) for whole in (True, False))
    axes.plot(*line, color=colour, ls=look.line(arm), marker=marker, ms=4.5, zorder=3)
    axes.plot(*apart, marker, color=colour, ms=5, mfc="white", mew=1.2, zorder=3)
    low, high = axes.get_ylim()
    top = high - (0.03 + 0.055 * row) * (high - low)
    lost = [trial.rate for trial in ordered if trial.diverged]
    axes.plot(lost, [top] * len(lost), "x", color=colour, ms=6.5, mew=1.7, zorder=5)


def _points(trials: Iterable[Trial]) -> tuple[list[float], list[float]]:
    some = list(trials)
    return [trial.rate for trial in some], [trial.mean for trial in some]


def without_context(axes: Axes, trials: Iterable[Trial]) -> None:
    """A dotted line at the loss of token frequencies alone, where the records tell it."""
    for unigram in _unigrams(trials):
        axes.axhline(unigram, color=GREY, lw=1.0, ls=(0, (1.0, 1.6)), zorder=1)


def dotted(trials: Iterable[Trial]) -> str:
    """What that line is, for the note below a figure; empty where there is none."""
    known = " or ".join(f"{unigram:.2f}" for unigram in _unigrams(trials))
    return f" Dotted: token frequencies alone, {known}." if known else ""


def crosses(trials: Iterable[Trial]) -> str:
    """What crosses are, and hollow points where there are some, for the note below a figure."""
    survivors = any(trial.diverged and trial.losses for trial in trials)
    hollow = " Hollow: the mean of those that did not, where others did." if survivors else ""
    return (
        f"× diverged: a gradient or loss that is not finite, or a loss far above a guess.{hollow}"
    )


def _unigrams(trials: Iterable[Trial]) -> list[float]:
    return sorted({trial.unigram for trial in trials if trial.unigram is not None})
