"""Exercises whose solution is a YAML file: a formula, and a run that diverges at step 100."""

import math
import tempfile
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from normlab.apps.learn.judges.mistake import (
    MistakeError,
    format_percent,
    is_same,
    normal_tensor,
    relative_difference,
)
from normlab.archive.record import RunRecord
from normlab.config.compose import composed_config
from normlab.config.formula import check_formula, is_formula
from normlab.config.run_spec import RunSpec
from normlab.config.safe_yaml import read_yaml
from normlab.errors import ConfigError, NormlabError
from normlab.norms import norm_factory
from normlab.norms.build import check_contract
from normlab.study.plan import compose_spec
from normlab.training.run import train

_WIDTH, _EPS = 8, 1e-6

# What of the run must stay as it is: with fewer blocks or another rate it is another problem.
FIXED_KEYS: dict[str, Any] = {
    "model.depth": 16,
    "model.width": 32,
    "trainer.max_steps": 240,
    "optimizer.lr": 0.02,
}
# What the file need not say: a small run that is the same with any number of threads. Its language
# repeats itself early, so that 240 steps are enough to learn something.
_BASE_SETTINGS = (
    "model.heads=2",
    "model.context=32",
    "model.tie=false",
    "model.init.embedding=1",
    "data.concentration=0.02",
    "data.batch_size=8",
    "data.validation_windows=32",
    "trainer.val_every=120",
    "trainer.precision=32-true",
    "trainer.device=cpu",
    "trainer.threads=1",
)
# The loss of a uniform guess of eight tokens is ln 8 = 2.079. With RMSNorm and Pre-LN the run ends
# at 1.68 to 1.78 (by warm-up and clipping).
MOST_LOSS = 1.95


def judge_formula(path: Path) -> None:
    """Gemma's RMSNorm as a formula: x / √(mean x² + ε) · (1 + w), w per feature from 0.

    Raises:
        MistakeError: the first mistake.
    """
    config = _read_file(path)
    if not is_formula(config):
        target = config.get("_target_") if isinstance(config, Mapping) else config
        raise MistakeError(
            "no-formula",
            f"_target_ is {target}; a formula has `_target_: normlab.norms.Formula` and an "
            f"expression.",
        )
    try:
        check_formula("formula", config, _WIDTH)
        norm = norm_factory(config, "formula")(_WIDTH)
        check_contract(norm_factory(config, "formula")(_WIDTH), _WIDTH, "the formula")
    except ConfigError as error:
        raise MistakeError("configuration", str(error)) from error
    parameters = dict(norm.named_parameters())
    if len(parameters) != 1:
        raise MistakeError(
            "parameters",
            f"the formula has {len(parameters)} parameters ({', '.join(parameters) or 'none'}); it "
            f"must have one, the offset w.",
        )
    (offset,) = parameters.values()
    if tuple(offset.shape) != (_WIDTH,):
        raise MistakeError(
            "parameter-shape",
            "the offset is one number for all features; it must be one per feature (per: feature).",
        )
    _check_start(norm, offset)
    _check_values(norm, offset)


def _check_start(norm: nn.Module, offset: Tensor) -> None:
    """Tell a gain that starts at 1 from an offset that starts at 0."""
    start = float(offset.detach().mean())
    if start != 0:
        size = float(norm(normal_tensor(4, 6, _WIDTH)).detach().square().mean().sqrt())
        raise MistakeError(
            "offset-start",
            f"the parameter starts at {start:g}, and the output has RMS {size:.3g} at the start; "
            f"Gemma's offset starts at 0 and is added to 1.",
        )


# By mistake: kind, sentence, and what it changes: (root, ε, factor) of one token's feature.
_FORMULA_MISTAKES: list[tuple[str, str, dict[str, Any]]] = [
    ("eps-outside", "ε stands outside the root; it must be inside", {"eps": "outside"}),
    ("eps-missing", "ε has no effect", {"eps": "missing"}),
    ("eps-value", "ε is 1e-5; Gemma's is 1e-6", {"number": 1e-5}),
    ("one-missing", "the factor is w; it must be 1 + w", {"one": 0.0}),
    ("mean-removed", "the mean is subtracted; RMSNorm does not subtract it", {"centred": True}),
    ("root-missing", "x is divided by the mean square; its root is missing", {"root": False}),
    (
        "sum-for-mean",
        "x is divided by the root of the sum of squares; the root of the mean is required",
        {"sum": True},
    ),
]


def _gemma_norm(
    x: Tensor,
    offset: Tensor,
    eps: str = "inside",
    number: float = _EPS,
    one: float = 1.0,
    centred: bool = False,
    root: bool = True,
    sum: bool = False,  # noqa: A002
) -> Tensor:
    """(…, width) → (…, width); with the default choices Gemma's RMSNorm (2403.08295)."""
    if centred:
        x = x - x.mean(-1, keepdim=True)
    square = x.square().mean(-1, keepdim=True) * (x.shape[-1] if sum else 1)
    inside = square + (number if eps == "inside" else 0.0)
    divisor = (inside.sqrt() if root else inside) + (number if eps == "outside" else 0.0)
    return x / divisor * (one + offset)


def _check_values(norm: nn.Module, offset: Tensor) -> None:
    norm = norm.double()
    values = 0.5 * normal_tensor(_WIDTH, seed=91)
    with torch.no_grad():
        offset = next(norm.parameters())
        offset.copy_(values)
        small = normal_tensor(4, 6, _WIDTH, seed=92)
        small = 1e-3 * small / small.square().mean(-1, keepdim=True).sqrt()
        inputs = [normal_tensor(4, 6, _WIDTH, seed=93) + 2, small]
        outputs = [norm(x) for x in inputs]
    references = [_gemma_norm(x, values) for x in inputs]
    if all(map(is_same, outputs, references)):
        return
    share = format_percent(max(map(relative_difference, outputs, references)))
    for count in (1, 2):
        for changes in combinations(_FORMULA_MISTAKES, count):
            options = {key: value for _, _, change in changes for key, value in change.items()}
            if all(
                is_same(y, _gemma_norm(x, values, **options))
                for x, y in zip(inputs, outputs, strict=True)
            ):
                raise MistakeError(
                    "+".join(kind for kind, _, _ in changes),
                    f"{'; and '.join(text for _, text, _ in changes)}. The output differs by "
                    f"{share}.",
                )
    raise MistakeError(
        "other-function",
        f"the output differs by {share} from Gemma's RMSNorm, x / √(mean x² + 1e-6) · (1 + w).",
    )


def judge_nan_at_step_100(path: Path) -> None:
    """Train the learner's configuration: it must not diverge, and must learn.

    Raises:
        MistakeError: it diverges, learns nothing, or is another problem than the one to solve.
    """
    with tempfile.TemporaryDirectory() as folder:
        judge_run(train(compose_run(path, Path(folder)), "", SilentDisplay()))


def compose_run(path: Path, folder: Path) -> RunSpec:
    """The run that a file of dotted keys asks for, in this folder.

    Raises:
        MistakeError: the file cannot be read or composed, or a fixed key has another value.
    """
    settings = _read_file(path)
    if not isinstance(settings, Mapping) or not settings:
        raise MistakeError(
            "no-settings",
            "the file holds no settings; each line is a key: value, as norm: rmsnorm.",
        )
    for key, value in FIXED_KEYS.items():
        if settings.get(key) != value:
            raise MistakeError(
                "other-problem",
                f"{key} is {settings.get(key, 'missing')}; it must stay {value}: the exercise is "
                f"to train this model at this rate.",
            )
    overrides = [*_BASE_SETTINGS, f"output_dir={folder}", "study=exercise"]
    overrides += [f"{key}={_override_value(value)}" for key, value in settings.items()]
    try:
        with composed_config([]) as (loader, master):
            return compose_spec(loader, master, overrides)
    except NormlabError as error:
        raise MistakeError("configuration", str(error)) from error


def judge_run(record: RunRecord) -> None:
    """Refuse a run that diverged, failed, or has learned nothing.

    Raises:
        MistakeError: with the step or the loss that was measured.
    """
    if record.state == "diverged":
        raise MistakeError(
            "diverged",
            f"the run diverges at step {record.diverged_step}: {record.reason}. Look in this "
            f"order: is there a norm at the input of every sublayer; is there a final norm; are "
            f"gradients clipped; how long is the warm-up.",
        )
    loss = record.final.val_loss
    if record.state != "finished" or loss is None or not math.isfinite(loss):
        raise MistakeError("failed", f"the run did not finish ({record.state}: {record.reason}).")
    if loss > MOST_LOSS:
        raise MistakeError(
            "nothing-learned",
            f"the run finishes and has learned nothing: its validation loss is {loss:.3f} nats, "
            f"that of a uniform guess is {math.log(8):.3f}, and below {MOST_LOSS} is required. "
            f"A run that does not diverge may still be useless.",
        )


class SilentDisplay:
    """A display that shows no progress."""

    def update(self, step: int, loss: float, tokens_per_second: float) -> None:
        """Nothing is shown."""

    def say(self, sentence: str) -> None:
        """Nothing is shown."""


def _read_file(path: Path) -> Any:
    try:
        return read_yaml(path)
    except ConfigError as error:
        raise MistakeError("configuration", str(error)) from error


def _override_value(value: Any) -> str:
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)
