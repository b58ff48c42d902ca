"""Simulate studies without and with differences, and write how often the statistics report one.

    python scripts/bench/simulate_studies.py [--studies 10000] [--seed 0] [--page FILE]

Every cell of the tables is that many studies of so many arms and seeds. A loss is the arm's mean
plus the seed's effect plus the run's noise; the noise is what the tables differ in. A study counts
where any difference between the arm with the lowest mean and another is reported: in the studies of
equal means each such report is false. The decision is that of `normlab.analysis.family`, taken with
its functions, over arrays of studies.
"""

import datetime
import platform
import time
from collections.abc import Callable
from functools import cache
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator
from scipy.special import stdtr
from scipy.stats import studentized_range

from normlab.analysis.family import (
    FEWEST_SEEDS_ALONE,
    OWN_LEVEL,
    Variances,
    moderate_variances,
    pool_variances,
)
from normlab.analysis.statistics import LEVEL
from normlab.archive.files import write_text
from normlab.errors import CommandParser, report_user_errors
from report import split_page

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
# Standard normal (studies, arms, seeds) → noise.
Noise = Callable[[np.random.Generator, Array], Array]

ARMS, SEEDS = range(2, 9), range(3, 11)
START, END = "<!-- simulation -->", "<!-- end of simulation -->"


def leave_equal(random: np.random.Generator, normal: Array) -> Array:
    """All arms have the same noise."""
    return normal


def scale_arms(share: float, factor: float) -> Noise:
    """The first `share` of the arms, at least one, has `factor` times the others' noise."""

    def scale(random: np.random.Generator, normal: Array) -> Array:
        count = max(1, int(share * normal.shape[1]))
        scales = np.where(np.arange(normal.shape[1]) < count, factor, 1.0)
        return normal * scales[:, None]

    return scale


def add_second_group(random: np.random.Generator, normal: Array) -> Array:
    """Three of ten runs of every arm end 20 standard deviations higher."""
    return normal + 20 * (random.random(normal.shape) < 0.3)


def choose_rates(random: np.random.Generator, normal: Array) -> Array:
    """The losses at each arm's best of five rates, where the first arm's U-curve is flat.

    The rate with the lowest mean over the seeds is chosen by one half of the validation windows,
    the loss comes from the other half; a half adds as much noise as the run itself.
    """
    studies, arms, seeds = normal.shape
    curves = np.tile(5.0 * np.array([4, 1, 0, 1, 4]), (arms, 1))
    # On a flat curve any of five rates is chosen, so the luckiest is; on the others it is nearly
    # always the middle one.
    curves[0] = 0
    # (studies, arms, rates, seeds).
    losses = random.standard_normal((studies, arms, 5, seeds)) + curves[None, :, :, None]
    chosen = (losses + random.standard_normal(losses.shape)).mean(-1).argmin(-1)
    tested = losses + random.standard_normal(losses.shape)
    return np.take_along_axis(tested, chosen[:, :, None, None], 2)[:, :, 0]


WITHOUT_DIFFERENCE: dict[str, Noise] = {
    "equal noise": leave_equal,
    "one arm with 5 times the noise": scale_arms(0, 5),
    "one arm with a tenth of the noise": scale_arms(0, 0.1),
    "half of the arms with 3 times the noise": scale_arms(0.5, 3),
    "two groups of outcomes in every arm": add_second_group,
    "best of five rates, one U-curve flat": choose_rates,
}


def report_differences(losses: Array) -> tuple[Mask, Mask]:
    """Which pairs of arms are reported to differ, and which contain the lowest arm.

    Both of shape (studies, pairs), pairs in the order of `itertools.combinations`.
    """
    _, arms, seeds = losses.shape
    first, second = np.array(list(combinations(range(arms), 2))).T
    # (studies, pairs, seeds): the runs of a seed are compared with each other.
    differences = losses[:, first] - losses[:, second]
    means = np.abs(differences.mean(-1))
    own = Variances(differences.var(-1, ddof=1), np.array(seeds - 1.0))
    p = 2 * stdtr(seeds - 1, -means / np.sqrt(own.variance / seeds))
    # Of several intervals the widest counts, so each of them has to leave out 0. Two arms are one
    # pair, which has the paired t-test alone.
    reported: Mask = p < (OWN_LEVEL if arms > 2 else LEVEL)
    if arms > 2:
        pooled = pool_variances(own, arms)
        moderated = moderate_variances(own, pooled.freedom)
        for shared in [moderated] if seeds >= FEWEST_SEEDS_ALONE else [moderated, pooled]:
            # Moderated variances have degrees of freedom of their own in each study, and the exact
            # quantile takes about 0.1 s.
            quantiles = interpolate_quantiles(arms)(1 / shared.freedom)
            reported &= np.sqrt(2) * means / np.sqrt(shared.variance / seeds) > quantiles
    lowest = losses.mean(-1).argmin(-1)[:, None]
    return reported, (first == lowest) | (second == lowest)


@cache
def interpolate_quantiles(arms: int) -> PchipInterpolator:
    """The studentized range's 95 % quantile against 1 / degrees of freedom."""
    freedoms = np.array([1e4, 1e3, 100, 50, 30, 20, 14, 10, 8, 6, 5, 4, 3, 2.5, 2, 1.5, 1])
    values = [studentized_range.ppf(1 - LEVEL, arms, freedom) for freedom in freedoms]
    return PchipInterpolator(1 / freedoms, values)


def draw_losses(random: np.random.Generator, noise: Noise, shape: tuple[int, int, int]) -> Array:
    """Losses of studies whose arms have equal means: (studies, arms, seeds)."""
    # (studies, 1, seeds): the same for all arms, so it cancels in their differences.
    seeds = 2 * random.standard_normal((shape[0], 1, shape[2]))
    return noise(random, random.standard_normal(shape)) + seeds


def measure_errors(random: np.random.Generator, noise: Noise, studies: int) -> Array:
    """The share of studies with a false difference, (arms, seeds)."""
    table = np.zeros((len(ARMS), len(SEEDS)))
    for row, arms in enumerate(ARMS):
        for column, seeds in enumerate(SEEDS):
            losses = draw_losses(random, noise, (studies, arms, seeds))
            reported, lowest = report_differences(losses)
            table[row, column] = (reported & lowest).any(-1).mean()
    return table


def measure_power(
    random: np.random.Generator, noise: Noise, effect: float, noisy: int, studies: int
) -> Array:
    """How often the last arm, `effect` standard deviations lower, is reported against another.

    The first `noisy` arms are not among these others. NaN where that leaves none.
    """
    table = np.full((len(ARMS), len(SEEDS)), np.nan)
    for row, arms in enumerate(ARMS):
        pairs = list(combinations(range(arms), 2))
        counted = [at for at, (a, b) in enumerate(pairs) if a >= noisy and b == arms - 1]
        for column, seeds in enumerate(SEEDS):
            losses = draw_losses(random, noise, (studies, arms, seeds))
            losses[:, -1] -= effect
            if counted:
                table[row, column] = report_differences(losses)[0][:, counted].mean()
    return table


def format_table(table: Array) -> str:
    """Percent by arms (rows) and seeds (columns), as Markdown."""
    lines = ["| arms | " + " | ".join(f"{seeds} seeds" for seeds in SEEDS) + " |"]
    lines.append("|---:" * (len(SEEDS) + 1) + "|")
    for arms, row in zip(ARMS, table, strict=True):
        if np.isnan(row).all():
            continue
        lines.append(f"| {arms} | " + " | ".join(f"{100 * share:.1f}" for share in row) + " |")
    return "\n".join(lines)


def main() -> None:
    """The command line."""
    parser = CommandParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--studies", type=int, default=10_000, help="simulated studies a cell")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--page", type=Path, help="write the tables into this page, between marks")
    with report_user_errors():
        options = parser.parse_args()
        before = after = ""
        # Before the simulation, which takes minutes.
        if options.page is not None:
            before, _, after = split_page(options.page, START, END)
    random, start = np.random.default_rng(options.seed), time.perf_counter()
    parts = []
    for name, noise in WITHOUT_DIFFERENCE.items():
        table = measure_errors(random, noise, options.studies)
        parts.append(
            f"**No difference, {name}**: % of studies that report one; largest "
            f"{100 * table.max():.1f}.\n\n{format_table(table)}"
        )
    for effect, noise, noisy, beside in (
        (2, leave_equal, 0, ""),
        (4, leave_equal, 0, ""),
        (4, scale_arms(0, 20), 1, ", beside an arm with 20 times the noise"),
    ):
        table = measure_power(random, noise, effect, noisy, options.studies)
        others = " from the other arms" if noisy else ""
        parts.append(
            f"**One arm lower by {effect} standard deviations of the noise{beside}**: % of its "
            f"differences{others} that are reported.\n\n{format_table(table)}"
        )
    parts.append(
        f"{options.studies:,} studies a cell, seed {options.seed}, "
        f"{time.perf_counter() - start:.0f} s on {platform.machine()}, "
        f"{datetime.date.today()}: `python scripts/bench/simulate_studies.py --page "
        f"{options.page}`."
    )
    text = "\n\n".join(parts)
    if options.page is None:
        print(text)
        return
    write_text(options.page, f"{before}\n\n{text}\n\n{after}")


if __name__ == "__main__":
    main()
