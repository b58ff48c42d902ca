"""The four words a claim can end in, and when each is said: by where its interval lies.

| word           | the 95 % interval lies wholly                                     |
|----------------|-------------------------------------------------------------------|
| reproduced     | where the claim says: on its side, or within its margin           |
| not reproduced | where there is no effect, if the claim is one of an effect        |
| refuted        | where the claim says that it does not lie                         |
| cannot tell    | in none of these, or there is no interval                         |

They are tried in this order. "No effect" is less than a margin that the claim's file states: the
numbers would have shown a larger one.
"""

import math

from normlab.apps.claims.claim import (
    Diverges,
    Exact,
    Level,
    Lower,
    Parity,
    Ratio,
    Sensitivity,
    Slope,
    Test,
    Value,
)
from normlab.apps.claims.verdicts import Range, Word

MEANING: dict[Word, str] = {
    "reproduced": "the 95 % interval lies where the claim says: on its side, or within its margin",
    "not reproduced": "the interval lies within the margin around no effect: one that large would "
    "have been seen",
    "refuted": "the interval lies wholly outside what the claim says, and is not that of no effect",
    "cannot tell": "anything else: the interval reaches over a border, or there is none, because "
    "of one seed, or because runs are missing, failed, or diverged where they had to be compared",
}


def word(low: float, high: float, claimed: Range, absent: Range | None) -> Word:
    """The word for an interval; NaN is no interval."""
    if math.isnan(low) or math.isnan(high):
        return "cannot tell"
    if claimed.holds(low, high):
        return "reproduced"
    if absent is not None and absent.holds(low, high):
        return "not reproduced"
    return "refuted" if claimed.misses(low, high) else "cannot tell"


def ranges(test: Test) -> tuple[Range, Range | None]:
    """Where the interval of a test lies if the claim holds, and if there is no effect."""
    match test:
        case Lower() | Sensitivity():
            return Range(high=-_LEAST), around(0.0, test.margin)
        case Diverges():
            return Range(low=_LEAST), around(0.0, test.margin)
        case Parity():
            return around(0.0, test.margin), None
        case Level() | Value():
            return Range(test.low, test.high), None
        case Slope():
            # A claim that there is no slope has none that could be absent.
            none = around(0.0, test.margin) if abs(test.value) > test.margin else None
            return around(test.value, test.margin), none
        case Ratio():
            return Range(test.low, test.high), around(1.0, test.margin)
        case Exact():
            return Range(high=test.tolerance), None


# The claimed side of zero does not hold zero itself.
_LEAST = 5e-324


def around(value: float, margin: float) -> Range:
    """From value − margin to value + margin."""
    return Range(value - margin, value + margin)
