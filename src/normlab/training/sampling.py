"""A run's model with a checkpoint's weights, continuing tokens."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch

from normlab.config.specify import GROUPS, read_run_spec
from normlab.errors import NormlabError
from normlab.training.build import build_model, check_networks
from normlab.training.checkpoints import different_weights, load_weights


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn: the number of tokens, the temperature, top-k and the seed."""

    length: int
    temperature: float
    top_k: int | None
    seed: int


def continue_tokens(
    folder: Path, checkpoint: Path, vocabulary: int, prompt: list[int], sampling: Sampling
) -> list[int]:
    """The prompt and `sampling.length` tokens more.

    Raises:
        NormlabError: the run's config or the checkpoint is damaged, or they do not fit.
        ConfigError: the config names code that is not trusted, or a norm that cannot be built.
    """
    spec = read_run_spec(folder, dict.fromkeys(GROUPS, "stored"))
    weights = load_weights(checkpoint)
    # Before anything of the size that the configuration asks for is made: such a model has at least
    # one matrix of each kind.
    shape = spec.config.model
    block = shape.width * (shape.width + shape.hidden_width)
    if vocabulary * shape.width + shape.depth * block > _stored_weights(weights):
        raise _other_model_error(checkpoint, folder, "it has too few weights")
    check_networks([spec])
    model = build_model(spec.config, vocabulary)
    problem = different_weights(weights, model.state_dict())
    if problem:
        raise _other_model_error(checkpoint, folder, problem)
    model.load_state_dict(weights)
    generator = torch.Generator().manual_seed(sampling.seed)
    try:
        tokens = model.eval().generate(
            torch.tensor([prompt]),
            sampling.length,
            spec.config.model.context,
            sampling.temperature,
            sampling.top_k,
            generator,
        )
    except RuntimeError as error:  # finite weights can be too large for finite logits
        raise NormlabError(
            f"{checkpoint} cannot be sampled: its weights give numbers that are not finite; give "
            f"another with --checkpoint."
        ) from error
    return cast(list[int], tokens[0].tolist())


def _stored_weights(weights: Mapping[str, Any]) -> int:
    """As many numbers as a checkpoint holds; what several tensors share counts once."""
    tensors = [value for value in weights.values() if isinstance(value, torch.Tensor)]
    storages = {value.untyped_storage().data_ptr(): value for value in tensors}
    return sum(
        value.untyped_storage().nbytes() // value.element_size() for value in storages.values()
    )


def _other_model_error(path: Path, folder: Path, problem: str) -> NormlabError:
    return NormlabError(
        f"{path} belongs to another model than {folder}: {problem}; give a checkpoint of this run."
    )
