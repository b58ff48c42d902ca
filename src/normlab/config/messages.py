"""The sentences about a configuration that cannot be used: the key, its value, what is allowed."""

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from typing import Any

from omegaconf.errors import ValidationError

from normlab.config.schema import DATA, TrainConfig
from normlab.errors import ConfigError, first_line
from normlab.text import excerpt, suggest_closest

# What other programs call our keys.
_SYNONYMS = {
    **dict.fromkeys(("learning_rate", "max_lr"), "optimizer.lr"),
    **dict.fromkeys(("epochs", "iterations", "iters", "max_iters"), "trainer.max_steps"),
    **dict.fromkeys(("layers", "n_layer", "n_layers", "num_layers"), "model.depth"),
    **dict.fromkeys(("d_model", "dim", "n_embd", "hidden_size", "embed_dim"), "model.width"),
    **dict.fromkeys(("n_head", "n_heads", "num_heads"), "model.heads"),
    **dict.fromkeys(("block_size", "seq_len", "context_length"), "model.context"),
    **dict.fromkeys(("batch", "bs"), "data.batch_size"),
    **dict.fromkeys(("dataset", "dataset_path"), "data or data.path"),
}


def _suggest_nested_key(name: str) -> str:
    """Where the schema has such a key in a group, as optimizer.lr for lr."""
    paths: dict[str, list[str]] = {}
    for group in fields(TrainConfig):
        # A run's length is the trainer's key; the budget only gives it its value.
        if is_dataclass(group.type) and group.name != "budget":
            for item in fields(group.type):
                paths.setdefault(item.name, []).append(f"{group.name}.{item.name}")
    # `max_steps` holds the word `steps`, which counts more than letters in common.
    exact = [key for key in paths if key == name]
    with_word = [key for key in paths if name in key.split("_")]
    close = exact or with_word or difflib.get_close_matches(name, paths, n=1, cutoff=0.75)
    candidates = [path for key in close for path in paths[key]]
    return f"did you mean {' or '.join(candidates)}? " if candidates else ""


def value_error(key: str, value: Any, allowed: str, names: Sequence[str] = ()) -> ConfigError:
    """The sentence about a value that its key cannot have; `names` are words that it can have."""
    hint = _suggest_value(str(value), names)
    return ConfigError(f"{key}={excerpt(value)} is not allowed; {hint}it must be {allowed}.")


@contextmanager
def errors_about(prefix: str) -> Iterator[None]:
    """Begin every ConfigError of the body with `prefix`, which names its key."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{prefix}{error}") from error


def validation_reason(cause: ValidationError) -> str:
    """What a key must be, from OmegaConf's refusal of its type."""
    line = first_line(cause)
    expected = re.search(r"expected one of \[(.*)\]", line)
    if expected:
        value = re.search(r"Invalid value '(.*?)'", line)
        names = expected[1].split(", ")
        hint = _suggest_value(value[1], names) if value else ""
        return f"{hint}it must be one of {expected[1]}"
    converted = re.search(r"Value '(.*)' of type '.*' could not be converted to (\w+)", line)
    if converted:
        kinds = {"Integer": "a whole number", "Float": "a number"}
        return f"it must be {kinds.get(converted[2], converted[2])}"
    if "is not a valid bool" in line:
        return "it must be true or false"
    if "is not a ListConfig" in line:
        return "it must be a list, as in [0.9,0.99]"
    return line[0].lower() + line[1:]


# What other programs call our values.
_VALUE_SYNONYMS = {
    "gpu": "cuda",
    **dict.fromkeys(("bf16", "bfloat16", "bf16-true"), "bf16-mixed"),
    **dict.fromkeys(("fp16", "half", "float16", "16-true"), "16-mixed"),
    **dict.fromkeys(("32", "fp32", "float", "float32", "32-mixed"), "32-true"),
}


def _suggest_value(value: str, names: Sequence[str]) -> str:
    synonym = _VALUE_SYNONYMS.get(value.lower())
    return f"did you mean {synonym}? " if synonym in names else suggest_closest(value, names)


def unknown_key_error(key: str, allowed: Iterable[str]) -> ConfigError:
    """The sentence about a key that does not exist."""
    names = sorted(name for name in allowed if name != "_target_")
    *parents, last = key.split(".")
    hint = suggest_closest(last, names, ".".join([*parents, ""]))
    if not parents and last in _SYNONYMS:
        hint = f"did you mean {_SYNONYMS[last]}? "
    elif not parents and not hint:
        hint = _suggest_nested_key(last)
    kinds = [name for name, kind in DATA.items() if last in (item.name for item in fields(kind))]
    if parents == ["data"] and kinds and not hint:
        hint = f"it is one of {' and '.join(f'data={kind}' for kind in kinds)}; "
    parent = ".".join(parents) or "the configuration"
    if last == "_target_":
        hint = "only norm and placement name a class; "
    return ConfigError(f"{key} is not a key; {hint}{parent} has {', '.join(names) or 'no keys'}.")
