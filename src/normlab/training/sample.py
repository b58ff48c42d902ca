"""`scripts/sample.py RUN`: what a trained run writes."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from normlab.config.schema import DataConfig, TrainConfig
from normlab.data import Tokenizer, tokenizer_from_json
from normlab.errors import ConfigError, NormlabError, in_words
from normlab.model.gpt import GPT
from normlab.training.build import build_model
from normlab.training.checkpoints import BEST, FOLDER, LAST, load_weights
from normlab.training.run import CONFIG_FILE, VOCABULARY_FILE


def main(argv: Sequence[str] | None = None) -> None:
    """The command line of `scripts/sample.py`."""
    options = _parser().parse_args(argv)
    with in_words():
        sys.stdout.write(sample(options) + "\n")


def sample(options: argparse.Namespace) -> str:
    """The prompt and its continuation.

    Raises:
        NormlabError: the folder is not a run, or the checkpoint is not one of this model.
        ConfigError: a number is out of range, or the prompt has unknown characters.
    """
    _check(options)
    folder = Path(options.run)
    tokenizer = _tokenizer(folder)
    prompt = tokenizer.encode(options.prompt) if options.prompt else [0]
    model, context = _model(folder, tokenizer)
    path = Path(options.checkpoint) if options.checkpoint else _default_checkpoint(folder)
    _fill(model, path, folder)
    generator = torch.Generator().manual_seed(options.seed)
    tokens = model.eval().generate(
        torch.tensor([prompt]),
        options.length,
        context,
        options.temperature,
        options.top_k,
        generator,
    )
    drawn = tokens[0].tolist()
    return tokenizer.decode(drawn if options.prompt else drawn[1:])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sample.py", description="Print text from a run's checkpoint."
    )
    parser.add_argument("run", help="folder of a run: outputs/<study>/<run>")
    parser.add_argument("--checkpoint", help="another checkpoint of this run's model")
    parser.add_argument("--prompt", default="", help="text to continue (default: none)")
    parser.add_argument("--length", type=int, default=500, help="tokens to write (default: 500)")
    parser.add_argument("--temperature", type=float, default=0.8, help="default: 0.8")
    parser.add_argument("--top-k", type=int, help="draw from the k likeliest tokens only")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    return parser


def _check(options: argparse.Namespace) -> None:
    for name, value, least in (
        ("--length", options.length, 1),
        ("--top-k", options.top_k, 1),
        ("--seed", options.seed, 0),
    ):
        if value is not None and value < least:
            raise ConfigError(f"{name} {value} is not allowed; it must be {least} or more.")
    if not options.temperature > 0:
        given = f"--temperature {options.temperature}"
        raise ConfigError(f"{given} is not allowed; it must be above 0.")


def _tokenizer(folder: Path) -> Tokenizer:
    path = folder / VOCABULARY_FILE
    if not (folder / CONFIG_FILE).is_file() or not path.is_file():
        raise NormlabError(
            f"{folder} is not the folder of a run, which holds {CONFIG_FILE} and "
            f"{VOCABULARY_FILE}; give one like outputs/<study>/<run>."
        )
    try:
        return tokenizer_from_json(path.read_text(encoding="utf-8"))
    except (NormlabError, ValueError) as error:
        raise NormlabError(f"{path} is damaged; train the run again.") from error


def _model(folder: Path, tokenizer: Tokenizer) -> tuple[GPT, int]:
    path = folder / CONFIG_FILE
    try:
        plain = yaml.safe_load(path.read_text(encoding="utf-8"))
        # The data's own keys are of no concern here, and their schema depends on the kind.
        plain["data"] = {"kind": plain["data"]["kind"], "batch_size": plain["data"]["batch_size"]}
        merged = OmegaConf.merge(OmegaConf.structured(TrainConfig(data=DataConfig())), plain)
        config = cast(TrainConfig, OmegaConf.to_object(merged))
    except (yaml.YAMLError, OmegaConfBaseException, TypeError, KeyError) as error:
        raise NormlabError(
            f"{path} is damaged or of another version; train the run again."
        ) from error
    return build_model(config, tokenizer.vocabulary), config.model.context


def _default_checkpoint(folder: Path) -> Path:
    best = folder / FOLDER / BEST
    return best if best.is_file() else folder / FOLDER / LAST


def _fill(model: GPT, path: Path, folder: Path) -> None:
    weights = load_weights(path)
    own = model.state_dict()
    differing = sorted(
        name
        for name in weights.keys() | own.keys()
        if name not in weights or name not in own or weights[name].shape != own[name].shape
    )
    if differing:
        raise NormlabError(
            f"{path} belongs to another model than {folder}: {len(differing)} of its tensors "
            f"differ, the first is {differing[0]}; give a checkpoint of this run."
        )
    model.load_state_dict(weights)
