"""The figure of `experiment=prenorm_vs_postnorm`: a panel for every depth and warm-up."""

from matplotlib.figure import Figure

from normlab.analysis import page, panels
from normlab.analysis.style import Look
from normlab.apps.experiments.trials import Trial, best_arms, by, trials
from normlab.apps.experiments.u_curve import (
    crosses,
    dotted,
    draw_all,
    frame,
    limits,
    without_context,
)
from normlab.archive.study import Study

_PANEL = 2.1  # inches


def draw(study: Study) -> Figure:
    """Final loss against learning rate, without and with warm-up, a column for every depth."""
    found, hidden = best_arms(trials(study))
    look = Look.of([trial.arm for trial in found])
    depths = sorted(by(lambda trial: trial.depth, found))
    warmups = sorted(by(lambda trial: trial.warmup, found))
    rates, limited = list(by(lambda trial: trial.rate, found)), limits(found)
    shown = [some[0].arm for some in by(lambda trial: trial.name, found).values()]
    legend = panels.legend_entries(shown, look, endings=False)
    figure, body = page.sheet(
        f"Pre-LN or Post-LN, by depth: {study.name}",
        _note(found) + hidden,
        legend,
        _PANEL * len(warmups),
    )
    grid = body.subplots(len(warmups), len(depths), sharex=True, sharey=True, squeeze=False)
    for row, warmup in enumerate(warmups):
        for column, depth in enumerate(depths):
            axes = grid[row, column]
            axes.set_title(f"{depth} blocks")
            frame(axes, rates, limited)
            axes.set_ylabel(f"{_warm(warmup)}\n{panels.LOSS_LABEL}")
            there = [trial for trial in found if (trial.depth, trial.warmup) == (depth, warmup)]
            without_context(axes, there)
            draw_all(axes, there, look)
    page.label_outer(body)
    return figure


def _warm(share: float) -> str:
    return f"warm-up, {100 * share:.3g} % of the run" if share else "no warm-up"


def _note(found: list[Trial]) -> str:
    seeds = max(len(trial.losses) for trial in found)
    spread = "Every seed a small dot, the line their mean." if seeds > 1 else "One seed."
    return f"{crosses(found)}\n{spread}{dotted(found)}"
