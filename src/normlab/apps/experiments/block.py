"""`block`: a Pre-LN block against the same block without one of its parts, or in another order."""

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from normlab.analysis.result import StudyResult
from normlab.analysis.style import Look
from normlab.apps.experiments.formatting import format_factor
from normlab.apps.experiments.trials import (
    SINGLE_SEED,
    Trial,
    TrialPair,
    best_trial,
    compare_pairs,
    describe_divergence,
    describe_ignored_context,
    format_rate,
    format_steps,
    group_trials,
    has_single_seed,
    read_trials,
)
from normlab.archive import tags
from normlab.text import join_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COMPLETE = "pre"  # the placement of the block with all its parts
_MOST_TICKS = 12


def draw_figure(result: StudyResult) -> "Figure":
    """Final loss at every rate, the gradient by depth at the start, each arm at its own best."""
    # Matplotlib, which the sentences do not need.
    from normlab.analysis import panels
    from normlab.apps.experiments import trial_panels

    trials, hidden_note = trial_panels.lowest_arms(read_trials(result.arms))
    arms = group_trials(trials, "name")
    look = Look.of([trial.arm for trial in trials])
    legend = panels.legend_entries([arm[0].arm for arm in arms.values()], look, endings=False)
    spread = "Every seed a small dot, the line their mean; below the 95 % t-interval."
    note = trial_panels.write_note(trials, spread, "One seed: no interval.") + hidden_note
    title = f"What each part of a block does: {result.study.name}"
    figure, losses, gradients = trial_panels.create_sheet(title, note, legend, arms, look)
    losses.set_title("Final loss at every rate")
    trial_panels.draw_losses_by_rate(losses, trials, trials, look)
    _draw_gradients(gradients, arms, look)
    return figure


def _draw_gradients(axes: "Axes", arms: dict[str, list[Trial]], look: Look) -> None:
    from normlab.analysis import sheet

    axes.set_title("Gradient at the start")
    gradients = {name: first_gradients(trials) for name, trials in arms.items()}
    if not any(gradient is not None for gradient in gradients.values()):
        axes.text(0.5, 0.5, "not measured: probes=on", transform=axes.transAxes, ha="center")
        axes.set_axis_off()
        return
    for name, gradient in gradients.items():
        if gradient is not None:
            arm = arms[name][0].arm
            blocks = range(1, len(gradient) + 1)
            axes.plot(
                blocks, gradient, color=look.colour(arm), ls=look.line(arm),
                marker=look.marker(arm), ms=4,
            )  # fmt: skip
    depth = max(len(gradient) for gradient in gradients.values() if gradient is not None)
    axes.set_xticks(range(1, depth + 1, math.ceil(depth / _MOST_TICKS)))
    sheet.set_log_scale(axes)
    axes.minorticks_off()
    axes.set_xlabel("block")
    axes.set_ylabel("gradient norm of its weights")


def first_gradients(trials: Sequence[Trial]) -> NDArray[np.float64] | None:
    """Length of the gradient of each block's weights at step 0, (blocks,), mean over the seeds.

    The weights at the start do not depend on the learning rate, so any of an arm's trials has it.
    None where no run was probed.
    """
    from normlab.analysis.probe_figures import probe_field

    fields = (probe_field(trial.arm, tags.PARAMETER_GRADIENT) for trial in trials)
    field = next((field for field in fields if field is not None and field.steps[0] == 0), None)
    if field is None:
        return None
    # (2 · blocks, steps) → (blocks, 2): attention and feed-forward of each block, at step 0.
    sublayers = field.values[:, 0].reshape(-1, 2)
    lengths: NDArray[np.float64] = np.sqrt(np.square(sublayers).sum(axis=1))
    return lengths


def write_sentences(result: StudyResult) -> list[str]:
    """What each part changes, what diverges, what learns nothing, and the gradient by depth."""
    trials = read_trials(result.arms)
    norms = group_trials(trials, "arm.norm")
    sentences: list[str] = []
    is_compared = False
    for same_norm in norms.values():
        complete = best_trial(trial for trial in same_norm if trial.arm.placement == COMPLETE)
        if complete is None:
            sentences.append(
                f"The complete block (placement={COMPLETE}) finishes at no rate, or was not "
                "trained: nothing is compared with it."
            )
            continue
        arms = group_trials(same_norm, "name").values()
        tuned = [best for arm in arms if (best := best_trial(arm))]
        others = [(complete, trial) for trial in tuned if trial.name != complete.name]
        pairs = compare_pairs(others, len(norms))
        sentences += _describe_variants(complete, pairs, has_single_seed(same_norm))
        is_compared |= bool(pairs)
    sentences += describe_divergence(trials)
    sentences += describe_ignored_context(trials)
    sentences += _describe_gradients(trials)
    if has_single_seed(trials):
        sentences.append(SINGLE_SEED)
    elif is_compared:
        sentences.append(
            "The intervals hold for all these comparisons together (docs/statistics.md)."
        )
    return sentences


def _describe_variants(
    complete: Trial, pairs: Sequence[TrialPair], is_single_seed: bool
) -> Iterator[str]:
    """What the complete block ends at, and the variants of its norm against it."""
    rate = format_rate(complete.rate)
    yield (
        f"After {format_steps([complete])}, {complete.name}, with all its parts, ends at "
        f"{complete.loss} ({rate}{complete.windows})."
    )
    if is_single_seed:
        losses = [f"{pair.b.name} {pair.gap} ({format_rate(pair.b.rate)})" for pair in pairs]
        if losses:
            yield f"Others, each at its own best rate, less that: {join_words(losses)}."
        return
    for outcome, words in (("lower", "End higher"), ("higher", "End lower")):
        gaps = [
            f"{pair.b.name} by {pair.gap.lstrip('-')} ({format_rate(pair.b.rate)})"
            for pair in pairs
            if pair.outcome == outcome  # of the complete block
        ]
        if gaps:
            yield f"{words}, each at its own best rate: {join_words(gaps)}."
    unclear = [f"{pair.b.name} ({pair.doubt})" for pair in pairs if pair.outcome == "cannot tell"]
    if unclear:
        yield f"Cannot tell {complete.name} from {join_words(unclear)}."


def _describe_gradients(trials: Sequence[Trial]) -> Iterator[str]:
    """Gradients at the start over those of the complete block, and how they change by depth."""
    arms = group_trials(trials, "name")
    measured = {name: first_gradients(arm) for name, arm in arms.items()}
    gradients = {name: gradient for name, gradient in measured.items() if gradient is not None}
    levels = {name: float(np.exp(np.log(g).mean())) for name, g in gradients.items()}
    for complete in [name for name in gradients if arms[name][0].arm.placement == COMPLETE]:
        ratios = [
            f"{format_factor(level / levels[complete])} ({name})"
            for name, level in levels.items()
            if name != complete and arms[name][0].arm.norm == arms[complete][0].arm.norm
        ]
        if ratios:
            yield (
                f"At the start the gradient of a block's weights is, over that of {complete}, the "
                f"geometric mean of the blocks, {join_words(ratios)}."
            )
    by_depth = [
        f"{format_factor(float(gradient[0] / gradient[-1]))} ({name})"
        for name, gradient in gradients.items()
        if len(gradient) > 1
    ]
    if by_depth:
        yield f"That of the first block over that of the last is {join_words(by_depth)}."
