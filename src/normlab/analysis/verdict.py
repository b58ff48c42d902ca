"""What a study's numbers show, each sentence computed from them, and what weakens them."""

from dataclasses import dataclass

from normlab.analysis.arms import facets, group
from normlab.analysis.caveats import caveats
from normlab.analysis.comparison import Comparison, compare
from normlab.analysis.sentences import compared, diverged, nothing_to_compare
from normlab.archive.folder import Study


@dataclass(frozen=True)
class Verdict:
    """What a study shows.

    Attributes:
        sentences: what the numbers show, what they tell before what they do not; what diverged.
        warnings: what weakens them: one seed, mixtures, runs that are missing or damaged.
        comparisons: the arm with the lowest mean of every facet against each other arm there.
    """

    sentences: tuple[str, ...]
    warnings: tuple[str, ...]
    comparisons: tuple[Comparison, ...]


def verdict(study: Study) -> Verdict:
    """Compare a study's arms by their final validation losses, within every facet."""
    arms = group(study.runs)
    every = facets(arms)
    comparisons = compare(every)
    words = compared(comparisons) if comparisons else [nothing_to_compare(arms)]
    warnings = caveats(study, every)
    return Verdict((*words, *diverged(arms)), tuple(warnings), tuple(comparisons))
