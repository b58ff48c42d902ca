"""The exercises: name, task, lesson, file, hints. Knows no torch; `judges` measures solutions.

A skeleton with the task in its docstring lies in `skeletons/`; `start` copies it.
"""

from dataclasses import dataclass
from pathlib import Path

from normlab.errors import ConfigError
from normlab.text import excerpt, suggest_closest

_SKELETONS = Path(__file__).parent / "skeletons"


@dataclass(frozen=True)
class Exercise:
    """One exercise.

    Attributes:
        name: of the exercise, and of its file.
        title: the task in a few words.
        lesson: to which lesson it belongs, 1 to 6.
        hints: each says more than the one before.
        seconds: how long a check may take.
        suffix: of the file, `.py` or `.yaml`.
    """

    name: str
    title: str
    lesson: int
    hints: tuple[str, ...]
    seconds: float = 30.0
    suffix: str = ".py"

    @property
    def file_name(self) -> str:
        """As it is in the learner's folder."""
        return f"{self.name}{self.suffix}"

    @property
    def skeleton(self) -> Path:
        """The file that the learner begins with."""
        return _SKELETONS / self.file_name


EXERCISES: dict[str, Exercise] = {
    exercise.name: exercise
    for exercise in (
        Exercise(
            "rmsnorm",
            "RMSNorm from scratch",
            2,
            (
                "Three steps: the mean of x² over the features of a token; ε; the root.",
                "x.pow(2).mean(-1, keepdim=True) has shape (…, 1), so x can be divided by it.",
                "ε is added to the mean, then comes the root: torch.rsqrt(mean + eps).",
                "Half precision: x.float() first; .type_as(x) after the division; then multiply by "
                "self.gain.type_as(x), because an fp32 gain would make the output fp32.",
            ),
        ),
        Exercise(
            "layernorm",
            "LayerNorm from scratch",
            2,
            (
                "Subtract the mean of the token first; the variance is the mean of the squares of "
                "what is left.",
                "x.var(-1) divides by n − 1; LayerNorm divides by n: unbiased=False.",
                "gain · (x − mean) / √(var + ε) + bias, with two parameters of `width` numbers.",
            ),
        ),
        Exercise(
            "layernorm_backward",
            "the backward pass of LayerNorm",
            3,
            (
                "Write x̂ for the normalized x. Then y = gain · x̂ + bias: the gradients of gain and "
                "bias are sums over all tokens.",
                "With g = output_gradient · gain, x reaches x̂ in three ways: directly, through the "
                "mean, and through the variance.",
                "The gradient of x is (g − mean(g) − x̂ · mean(g · x̂)) / σ, means over the features "
                "of a token, σ = √(var + ε).",
            ),
        ),
        Exercise(
            "scalenorm",
            "ScaleNorm from scratch",
            3,
            (
                "The length of a token is the root of the SUM of squares, not of their mean.",
                "There is one gain for all features: nn.Parameter(torch.tensor(width ** 0.5)).",
                "ε is a lower limit: length.clamp(min=eps).",
            ),
        ),
        Exercise(
            "fold_gain",
            "fold a norm's gain and bias into the next matrix",
            3,
            (
                "F.linear(n, W) is W n: column j of W is multiplied by feature j of n.",
                "The gain multiplies feature j, so it can multiply column j of W: W * gain.",
                "W(gain · n + bias) = (W · gain) n + W bias: the new bias uses W before folding.",
            ),
        ),
        Exercise(
            "preln_block",
            "a stack of Pre-LN blocks",
            4,
            (
                "Each sublayer: x = x + f(norm(x)). The sum on the left has no norm in it.",
                "Two norms per block, each a separate module, and a final norm after the last "
                "block.",
                "Norms in a plain list are not trained; use nn.ModuleList.",
            ),
        ),
        Exercise(
            "postln_block",
            "a stack of Post-LN blocks",
            4,
            (
                "The norm stands after the addition: x = norm(x + f(x)).",
                "The last sublayer ends with a norm already, so there is no final norm.",
                "Two norms per block, each a separate module; keep them in an nn.ModuleList.",
            ),
        ),
        Exercise(
            "qk_norm",
            "QK-norm: attention weights with normalized queries and keys",
            4,
            (
                "Normalize q and k over the last dimension, the features of a head; then multiply "
                "each by its gain.",
                "The rest is as usual: q kᵀ / √D, the future masked with −∞, a softmax.",
                "torch.ones(T, T, dtype=torch.bool).triu(1) is True for the future.",
            ),
        ),
        Exercise(
            "deepnorm_init",
            "DeepNorm's constants and its initialization",
            4,
            (
                "For a decoder alone α = (2L)^(1/4) and β = (8L)^(−1/4), L the number of blocks.",
                "β multiplies the matrices value, out, up and down; query and key stay.",
                "Return a new dict; leave the tensors of the old one alone.",
            ),
        ),
        Exercise(
            "find_the_leak",
            "a test that finds a leak",
            5,
            (
                "Change one token of the input, call the function again, and compare the outputs "
                "of the tokens BEFORE it.",
                "Do it for every token: a function may leak from one token only.",
                "A maximum sees only large changes: make the token, say, −100 times as large.",
                "Compare within the same sequence: x[0] changes, and only y[0] is compared.",
            ),
        ),
        Exercise(
            "formula",
            "Gemma's RMSNorm as a formula in YAML",
            2,
            (
                "docs/adding_a_norm.md lists what a formula may contain: mean, sqrt, parameters, "
                "constants.",
                "The parameter starts at 0: parameters: {offset: {init: 0, per: feature}}.",
                "expression: (1 + offset) * x / sqrt(mean(x**2) + eps)",
            ),
            suffix=".yaml",
        ),
        Exercise(
            "beat_rmsnorm",
            "a norm that beats RMSNorm on the card",
            5,
            (
                "The square of 1000 is 10⁶, and it dominates the mean of squares. Which statistic "
                "of a token does one feature dominate less?",
                "The mean of |x| is dominated less; a median, almost not at all.",
                "N(cx) = N(x) must hold: divide by a statistic that grows as the input does.",
                "x * 0.8 / (x.abs().mean(-1, keepdim=True) + 1e-5) is enough. How far can you get?",
            ),
            seconds=60.0,
        ),
        Exercise(
            "nan_at_step_100",
            "16 blocks, NaN at step 100: fix the configuration",
            1,
            (
                "There are two faults. The first makes the run diverge: look for what is missing "
                "before you change numbers.",
                "norm: none lets the stream grow with every block. Take rmsnorm, check again, and "
                "compare the loss with that of a uniform guess, ln 8 = 2.08.",
                "A run that finishes may have learned nothing. placement says where the norms "
                "stand; post puts them on the residual path.",
                "Take norm: rmsnorm and placement: pre.",
            ),
            # The check trains the run: about 20 s on two cores.
            seconds=180.0,
            suffix=".yaml",
        ),
    )
}


def find_exercise(name: str) -> Exercise:
    """The exercise of this name.

    Raises:
        ConfigError: there is none.
    """
    exercise = EXERCISES.get(name)
    if exercise is None:
        raise ConfigError(
            f"{excerpt(name)} is not an exercise; {suggest_closest(name, EXERCISES)}there are "
            f"{', '.join(EXERCISES)}."
        )
    return exercise


def exercise_of_file(path: Path) -> Exercise:
    """The exercise whose name the file has.

    Raises:
        ConfigError: its name is that of no exercise.
    """
    exercise = EXERCISES.get(path.stem)
    if exercise is None:
        raise ConfigError(
            f"{excerpt(path)} is not named after an exercise; "
            f"{suggest_closest(path.stem, EXERCISES, '--exercise ')}give one with --exercise NAME: "
            f"{', '.join(EXERCISES)}."
        )
    return exercise
