"""`norm_comparison`: norms at a shared learning rate, and each at its own best rate."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from normlab.analysis.result import StudyResult
from normlab.apps.experiments.trials import (
    SINGLE_SEED,
    Trial,
    best_shared_rate,
    best_trial_of_arms,
    compare_pairs,
    describe_divergence,
    describe_ignored_context,
    format_rate,
    format_steps,
    group_trials,
    has_single_seed,
    read_trials,
)
from normlab.text import join_words

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_figure(result: StudyResult) -> "Figure":
    """Training at a shared rate, final loss at every rate, and each arm at its own best."""
    # Matplotlib, which the sentences do not need.
    from normlab.analysis import panels
    from normlab.analysis.style import Look
    from normlab.apps.experiments import trial_panels

    trials, hidden_note = trial_panels.lowest_arms(read_trials(result.arms))
    arms = group_trials(trials, "name")
    look = Look.of([trial.arm for trial in trials])
    handles, _ = panels.legend_entries([arm[0].arm for arm in arms.values()], look)
    spread = (
        "Every seed a small dot; on the left the band from the lowest to the highest seed; below "
        "the 95 % t-interval."
    )
    note = trial_panels.write_note(trials, spread, "One seed: no interval.") + hidden_note
    title = f"Does it need a norm? {result.study.name}"
    legend = (handles, list(arms))
    figure, curves, losses = trial_panels.create_sheet(title, note, legend, arms, look)
    trial_panels.draw_shared_rate(curves, trials, look)
    losses.set_title("Final loss at every rate")
    trial_panels.draw_losses_by_rate(losses, trials, trials, look)
    return figure


def write_sentences(result: StudyResult) -> list[str]:
    """Where runs diverged, every arm at a shared rate and at its own best, and what differs."""
    trials = read_trials(result.arms)
    return [
        *describe_divergence(trials),
        _describe_shared_rate(trials),
        *_describe_best_rates(best_trial_of_arms(trials)),
        *describe_ignored_context(trials),
    ]


def _describe_shared_rate(trials: Sequence[Trial]) -> str:
    rate = best_shared_rate(trials)
    if rate is None:
        return "There is no rate at which every arm finishes, so none is compared at a shared one."
    ordered = sorted((t for t in trials if t.rate == rate), key=lambda trial: trial.mean)
    losses = join_words([f"{trial.name} at {trial.loss}" for trial in ordered])
    return (
        f"At one shared rate, {format_rate(rate)}, the losses after {format_steps(ordered)} are "
        f"{losses} nats per token."
    )


def _describe_best_rates(tuned: Sequence[Trial]) -> Iterator[str]:
    if len(tuned) < 2:
        yield "Fewer than two arms finish at any rate, so there is nothing to compare."
        return
    losses = [f"{trial.name} {trial.loss} ({format_rate(trial.rate)})" for trial in tuned]
    yield (
        f"After {format_steps(tuned)}, each at its own best rate of the grid{tuned[0].windows}: "
        f"{join_words(losses)}."
    )
    if has_single_seed(tuned):
        yield SINGLE_SEED
        return
    # The first is the lowest of all, and every pair that it was chosen from counts; see
    # `analysis.family`.
    with_lowest = compare_pairs([(tuned[0], other) for other in tuned[1:]])
    lower = [f"{p.b.name} by {p.gap}" for p in with_lowest if p.outcome == "lower"]
    undecided = [f"{p.b.name} ({p.doubt})" for p in with_lowest if p.outcome != "lower"]
    if lower:
        yield f"So {tuned[0].name} ends lower than {join_words(lower)}."
    if undecided:
        yield f"Cannot tell {tuned[0].name} from {join_words(undecided)}."
    yield "The intervals hold for all pairs of arms together (docs/statistics.md)."
