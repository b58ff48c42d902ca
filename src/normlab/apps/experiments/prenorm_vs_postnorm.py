"""`prenorm_vs_postnorm`: both placements by depth, each at its best rate and warm-up."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from normlab.analysis.arms import format_value
from normlab.analysis.formatting import format_interval
from normlab.analysis.result import StudyResult
from normlab.apps.experiments.trials import (
    NO_CONTEXT,
    SINGLE_SEED,
    Trial,
    TrialPair,
    best_trial,
    best_trial_of_arms,
    compare_pairs,
    format_rate,
    format_steps,
    group_trials,
    has_single_seed,
    read_trials,
)
from normlab.text import join_words

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PANEL_HEIGHT = 2.1  # inches


def draw_figure(result: StudyResult) -> "Figure":
    """Final loss against learning rate, without and with warm-up, a column for every depth."""
    # Matplotlib, which the sentences do not need.
    from normlab.analysis import panels, sheet
    from normlab.analysis.style import Look
    from normlab.apps.experiments import trial_panels

    trials, hidden_note = trial_panels.lowest_arms(read_trials(result.arms))
    look = Look.of([trial.arm for trial in trials])
    depths, warmups = (sorted(group_trials(trials, key)) for key in ("depth", "warmup"))
    arms = [arm[0].arm for arm in group_trials(trials, "name").values()]
    legend = panels.legend_entries(arms, look, endings=False)
    spread = "Every seed a small dot, the line their mean."
    note = trial_panels.write_note(trials, spread, "One seed.", best_rates=False) + hidden_note
    title = f"Pre-LN or Post-LN, by depth: {result.study.name}"
    figure, body = sheet.create_sheet(title, note, legend, _PANEL_HEIGHT * len(warmups))
    grid = body.subplots(len(warmups), len(depths), sharex=True, sharey=True, squeeze=False)
    for row, warmup in zip(grid, warmups, strict=True):
        share = f"warm-up, {100 * warmup:.3g} % of the run" if warmup else "no warm-up"
        for axes, depth in zip(row, depths, strict=True):
            axes.set_title(f"{depth} blocks")
            panel = [t for t in trials if (t.depth, t.warmup) == (depth, warmup)]
            trial_panels.draw_losses_by_rate(axes, panel, trials, look)
            axes.set_ylabel(f"{share}\n{panels.LOSS_LABEL}")
    sheet.label_outer_panels(body.axes)
    return figure


def write_sentences(result: StudyResult) -> list[str]:
    """At every depth the placements at their best settings, what warm-up does, and what fails."""
    trials = read_trials(result.arms)
    arms = group_trials(trials, "name")
    tuned = {
        depth: best_trial_of_arms(same_depth)
        for depth, same_depth in sorted(group_trials(trials, "depth").items())
    }
    placements = [
        pair
        for best in tuned.values()
        for pair in compare_pairs([(best[0], other) for other in best[1:]], len(tuned))
    ]
    warmup_pairs = [pair for arm in arms.values() for pair in _warmup_pairs(arm)]
    # Pairs of different arms and depths are no family: each has its part of the level (Bonferroni).
    warmups = [
        compared for pair in warmup_pairs for compared in compare_pairs([pair], len(warmup_pairs))
    ]
    sentences: list[str] = []
    for depth, best in tuned.items():
        pairs = [pair for pair in placements if pair.a.depth == depth]
        sentences += _describe_depth(depth, best, pairs)
    for name in arms:
        changes = [_describe_warmup(pair) for pair in warmups if pair.a.name == name]
        if changes:
            changed = f"Warm-up changes the best final loss of {name} by {join_words(changes)}."
            sentences.append(changed)
    sentences += [_describe_failures(name, arm) for name, arm in arms.items()]
    if has_single_seed(trials):
        return [*sentences, SINGLE_SEED]
    families = ["the placements at all depths"] if placements else []
    families += [f"the {len(warmups)} comparisons of warm-up"] if warmups else []
    if families:
        sentences.append(f"The intervals hold together for {', and for '.join(families)}.")
    return sentences


def _warmup_pairs(arm: Sequence[Trial]) -> Iterator[tuple[Trial, Trial]]:
    """An arm with warm-up and without, each at its best rate, by depth."""
    for _, trials in sorted(group_trials(arm, "depth").items()):
        with_warmup = best_trial(trial for trial in trials if trial.warmup > 0)
        without = best_trial(trial for trial in trials if trial.warmup == 0)
        if with_warmup and without:
            yield with_warmup, without


def _describe_depth(depth: int, arms: Sequence[Trial], pairs: Sequence[TrialPair]) -> Iterator[str]:
    if len(arms) < 2:
        yield f"At depth {depth} fewer than two arms finish."
        return
    losses = [
        f"{trial.name} {trial.loss} ({format_rate(trial.rate)}, "
        f"warm-up {format_value(trial.warmup)})"
        for trial in arms
    ]
    yield (
        f"At depth {depth}, after {format_steps(arms)}, each at its best{arms[0].windows}: "
        f"{join_words(losses)}."
    )
    for pair in pairs:
        # One pair of seeds has no interval.
        if pair.difference.pairs < 2:
            continue
        if pair.outcome == "cannot tell":
            yield f"Cannot tell {pair.a.name} from {pair.b.name} at depth {depth} ({pair.doubt})."
        else:
            yield f"{pair.a.name} ends lower than {pair.b.name} by {pair.gap} at depth {depth}."


def _describe_warmup(pair: TrialPair) -> str:
    """What warm-up changes for an arm at a depth, each at its best rate."""
    change = format_interval(pair.difference.mean, pair.difference.half)
    untested = pair.difference.pairs < 2
    doubt = " (cannot tell)" if pair.outcome == "cannot tell" and not untested else ""
    return f"{change} at depth {pair.a.depth}{doubt}"


def _describe_failures(name: str, arm: Sequence[Trial]) -> str:
    diverged = sum(bool(trial.diverged) for trial in arm)
    stuck = [trial for trial in arm if trial.ignores_context]
    depths = [
        f"{len(trials)} at depth {depth}"
        for depth, trials in sorted(group_trials(stuck, "depth").items())
    ]
    return (
        f"Of {len(arm)} settings of {name} {diverged} diverge and {len(stuck)} end above, or less "
        f"than {NO_CONTEXT:g} below, the loss of token frequencies alone"
        f"{f' ({join_words(depths)})' if depths else ''}."
    )
