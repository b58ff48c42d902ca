"""A run's model with a checkpoint's weights, continuing tokens."""

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
import yaml
from omegaconf.errors import OmegaConfBaseException

from normlab.archive.record import CONFIG_FILE
from normlab.config.schema import merged
from normlab.config.spec import typed
from normlab.config.trust import UntrustedError
from normlab.errors import ConfigError, NormlabError
from normlab.model.gpt import GPT
from normlab.training.build import build_model
from normlab.training.checkpoints import different_weights, load_weights


@dataclass(frozen=True)
class Draw:
    """How tokens are drawn: how many, how boldly, from how many, with which seed."""

    length: int
    temperature: float
    top_k: int | None
    seed: int


def continue_tokens(
    folder: Path, checkpoint: Path, vocabulary: int, prompt: list[int], draw: Draw
) -> list[int]:
    """The prompt and `draw.length` tokens more.

    Raises:
        NormlabError: the run's config or the checkpoint is damaged, or they do not fit.
    """
    model, context = _model(folder, vocabulary)
    _fill(model, checkpoint, folder)
    generator = torch.Generator().manual_seed(draw.seed)
    tokens = model.eval().generate(
        torch.tensor([prompt]), draw.length, context, draw.temperature, draw.top_k, generator
    )
    return cast(list[int], tokens[0].tolist())


def _model(folder: Path, vocabulary: int) -> tuple[GPT, int]:
    path = folder / CONFIG_FILE
    try:
        plain = yaml.safe_load(path.read_text(encoding="utf-8"))
        config = typed(merged(plain))
    except UntrustedError:
        raise  # another sentence: such a file is whole
    except (yaml.YAMLError, OmegaConfBaseException, ConfigError, TypeError, KeyError) as error:
        raise NormlabError(
            f"{path} is damaged or of another version; train the run again."
        ) from error
    return build_model(config, vocabulary), config.model.context


def _fill(model: GPT, path: Path, folder: Path) -> None:
    weights = load_weights(path)
    problem = different_weights(weights, model.state_dict())
    if problem:
        raise NormlabError(
            f"{path} belongs to another model than {folder}: {problem}; give a checkpoint of this "
            f"run."
        )
    model.load_state_dict(weights)
