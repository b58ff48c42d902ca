"""What a question of the quiz rests on: a function per id that computes its answer.

@evidence("eps-inside")
def measure_eps_inside() -> Evidence:
    return Evidence(answer=..., numbers={"0.302": ...})
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Evidence:
    """What was computed for a question.

    Attributes:
        truth: for each choice in order, whether it is right.
        answer: of a numeric question.
        numbers: every number that the explanations state, as printed there, and its computed value.
    """

    truth: Sequence[bool] = ()
    answer: float | None = None
    numbers: Mapping[str, float] = field(default_factory=dict)


EVIDENCE: dict[str, Callable[[], Evidence]] = {}


def evidence(question: str) -> Callable[[Callable[[], Evidence]], Callable[[], Evidence]]:
    """Registers the function that computes the answer of this question."""

    def register(function: Callable[[], Evidence]) -> Callable[[], Evidence]:
        assert question not in EVIDENCE, question
        EVIDENCE[question] = function
        return function

    return register
