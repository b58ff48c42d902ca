"""What the types cannot say: ranges, and keys that only make sense together.

Every failure is one sentence: the key, the value, what is allowed.
"""

import difflib
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from normlab.archive.record import check_output_dir, check_study_name
from normlab.config.check_placement import check_expression, check_norm, check_placement
from normlab.config.grammar import closest
from normlab.config.schema import InitConfig, ModelConfig, Positions, TrainConfig
from normlab.errors import ConfigError
from normlab.text import excerpt

PRECISIONS = ("auto", "32-true", "bf16-mixed")
COMPILE = (True, False, "auto", "graphs")
# Beyond it attention's cost, which grows with the square, makes no comparison possible.
MOST_CONTEXT = 16384
# DeepNet's (2203.00555), the deepest Transformer there is.
MOST_DEPTH = 1000
# Sequences of a batch, and batches of a step: the largest published batches have about as many.
MOST_BATCH = 65_536
MOST_THREADS = 1_024
MOST = 10**9  # of any other count
# Every run builds its model in the memory of the machine that plans it: larger ones end there.
MOST_WEIGHTS = 10**10


def check(config: TrainConfig) -> None:
    """Refuse a configuration that cannot be trained.

    Raises:
        ConfigError: the first thing that is wrong with it.
    """
    check_study_name(config.study)
    check_output_dir(config.output_dir)
    for key, value, allowed, ok in _ranges(config):
        if not ok:
            raise ConfigError(f"{key}={excerpt(value)} is not allowed; it must be {allowed}.")
    _check_shape(config.model)
    check_norm("norm", config.norm, config.model.width)
    check_placement(config.placement, config.model)
    check_expression("model.init.output", config.model.init.output, L=config.model.depth)


Rule = tuple[str, Any, str, bool]


def _ranges(config: TrainConfig) -> Iterator[Rule]:
    model, trainer, schedule = config.model, config.trainer, config.schedule
    for name in ("width", "heads", "hidden_multiple"):
        yield _count(f"model.{name}", getattr(model, name))
    yield _count("model.depth", model.depth, MOST_DEPTH)
    yield _count("model.context", model.context, MOST_CONTEXT)
    for name in ("max_steps", "val_every", "log_every"):
        yield _count(f"trainer.{name}", getattr(trainer, name))
    yield _count("trainer.accumulate", trainer.accumulate, MOST_BATCH)
    yield _count("data.batch_size", config.data.batch_size, MOST_BATCH)
    jobs = config.jobs
    yield "jobs", jobs, "auto or a whole number from 1", jobs == "auto" or _counts(jobs)
    yield "seed", config.seed, "a whole number from 0 to 2^32 - 1", 0 <= config.seed < 2**32
    yield "model.dropout", model.dropout, "from 0 to below 1", 0 <= model.dropout < 1
    yield from _positive("model.hidden_ratio", model.hidden_ratio)
    yield from _positive("model.rotary_base", model.rotary_base)
    yield from _init_ranges(model.init)
    yield from _optimizer_ranges(config)
    yield (
        "schedule.warmup",
        schedule.warmup,
        "a share of the run, 0 to 1",
        0 <= schedule.warmup <= 1,
    )
    share = schedule.decay_share
    yield "schedule.decay_share", share, "a share of the run, above 0 up to 1", 0 < share <= 1
    ratio = schedule.final_ratio
    yield "schedule.final_ratio", ratio, "from 0 to 1", 0 <= ratio <= 1
    clip = trainer.gradient_clip
    yield "trainer.gradient_clip", clip, "null or above 0", clip is None or _within(clip, 0, True)
    yield _count("trainer.threads", trainer.threads, MOST_THREADS, optional=True)
    precision = trainer.precision
    yield "trainer.precision", precision, f"one of {', '.join(PRECISIONS)}", precision in PRECISIONS
    compiled = trainer.compile
    yield "trainer.compile", compiled, "true, false, auto or graphs", compiled in COMPILE
    every = trainer.save_seconds
    yield "trainer.save_seconds", every, "a number from 0", _within(every, 0)
    yield _count("probes.every", config.probes.every, optional=True)
    flush = config.logger.flush_seconds
    yield "logger.flush_seconds", flush, f"a whole number from 0 to {MOST}", 0 <= flush <= MOST
    limit = trainer.divergence_limit
    yield "trainer.divergence_limit", limit, "above 1", limit > 1


def _init_ranges(init: InitConfig) -> Iterator[Rule]:
    yield "model.init.std", init.std, "a number from 0", _within(init.std, 0)
    own = init.embedding
    yield "model.init.embedding", own, "null or a number from 0", own is None or _within(own, 0)
    yield "model.init.query_key", init.query_key, "a number from 0", _within(init.query_key, 0)


def _optimizer_ranges(config: TrainConfig) -> Iterator[Rule]:
    optimizer = config.optimizer
    yield from _positive("optimizer.lr", optimizer.lr)
    yield from _positive("optimizer.eps", optimizer.eps)
    decay = optimizer.weight_decay
    yield "optimizer.weight_decay", decay, "a number from 0", _within(decay, 0)
    betas = optimizer.betas
    sound = len(betas) == 2 and all(isinstance(b, float) and 0 <= b < 1 for b in betas)
    yield "optimizer.betas", list(betas), "two numbers from 0 to below 1", sound


def _count(key: str, value: int | None, most: int = MOST, optional: bool = False) -> Rule:
    """A whole number from 1; without an upper bound a slip of the finger ends in an overflow."""
    allowed = f"{'null or ' if optional else ''}a whole number from 1 to {most}"
    return key, value, allowed, optional if value is None else 1 <= value <= most


def _positive(key: str, value: float) -> Iterator[Rule]:
    yield key, value, "a number above 0", _within(value, 0, True)


def _counts(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _within(value: float, least: float, strictly: bool = False) -> bool:
    return math.isfinite(value) and (value > least if strictly else value >= least)


def _check_shape(model: ModelConfig) -> None:
    hidden = model.width * model.hidden_ratio + model.hidden_multiple
    if model.width * (4 * model.width + 3 * hidden) * model.depth > MOST_WEIGHTS:
        raise ConfigError(
            f"model.width={model.width}, model.depth={model.depth} and "
            f"model.hidden_ratio={model.hidden_ratio} make a model of more than {MOST_WEIGHTS:.0e} "
            f"weights, which does not fit into memory; make one of them smaller."
        )
    if model.width % model.heads:
        divisors = [n for n in range(1, model.width + 1) if model.width % n == 0]
        raise ConfigError(
            f"model.heads={model.heads} does not divide model.width={model.width}; "
            f"take one of {', '.join(map(str, divisors))} heads, or another width."
        )
    if model.kv_heads is not None and (model.kv_heads < 1 or model.heads % model.kv_heads):
        raise ConfigError(
            f"model.kv_heads={model.kv_heads} does not divide model.heads={model.heads}; "
            f"each key and value head serves the same number of query heads."
        )
    if model.positions is Positions.rotary and model.width // model.heads % 2:
        raise ConfigError(
            f"model.positions=rotary turns pairs of features, but model.width={model.width} over "
            f"model.heads={model.heads} gives heads of {model.width // model.heads}; "
            f"choose them so that a head is even."
        )


def check_keys(composed: DictConfig, path: str = "") -> None:
    """Refuse a key that its dataclass does not have: Hydra lets `+key=value` add anything.

    Raises:
        ConfigError: naming the first such key and those that are there.
    """
    known = OmegaConf.get_type(composed)
    names = [f.name for f in fields(known)] if is_dataclass(known) else list(composed)
    for key in map(str, composed):
        if key not in names:
            raise unknown_key(path + key, map(str, names))
        if not OmegaConf.is_missing(composed, key) and isinstance(composed[key], DictConfig):
            check_keys(composed[key], f"{path}{key}.")


def check_like(key: str, given: Any, reference: Any) -> None:
    """Hold an open node to the file it came from: the same keys, values of the same types.

    Raises:
        ConfigError: naming the first key or value that does not fit.
    """
    if isinstance(reference, Mapping) and isinstance(given, Mapping):
        for name, value in given.items():
            if name not in reference:
                raise unknown_key(f"{key}.{name}", map(str, reference))
            check_like(f"{key}.{name}", value, reference[name])
        return
    if reference is None or given is None or isinstance(given, type(reference)):
        return
    if isinstance(reference, float) and isinstance(given, int) and not isinstance(given, bool):
        return
    kind = _KINDS.get(type(reference), type(reference).__name__)
    raise ConfigError(
        f"{key}={excerpt(given)} is not allowed; it must be {kind}, as {reference} is."
    )


_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


# What other programs call our keys.
_OTHER_NAMES = {
    **dict.fromkeys(("learning_rate", "max_lr"), "optimizer.lr"),
    **dict.fromkeys(("epochs", "iterations", "iters", "max_iters"), "trainer.max_steps"),
    **dict.fromkeys(("layers", "n_layer", "n_layers", "num_layers"), "model.depth"),
    **dict.fromkeys(("d_model", "dim", "n_embd", "hidden_size", "embed_dim"), "model.width"),
    **dict.fromkeys(("n_head", "n_heads", "num_heads"), "model.heads"),
    **dict.fromkeys(("block_size", "seq_len", "context_length"), "model.context"),
    **dict.fromkeys(("batch", "bs"), "data.batch_size"),
    **dict.fromkeys(("dataset", "dataset_path"), "data or data.path"),
}


def _hint_below(name: str) -> str:
    """Where the schema has such a key in one of its parts, as optimizer.lr for lr."""
    parts = {item.name: item.type for item in fields(TrainConfig) if is_dataclass(item.type)}
    paths: dict[str, list[str]] = {}
    for part, kind in parts.items():
        for item in fields(kind):
            paths.setdefault(item.name, []).append(f"{part}.{item.name}")
    # `max_steps` holds the word `steps`, which counts more than letters in common.
    exact = [key for key in paths if key == name]
    with_word = [key for key in paths if name in key.split("_")]
    close = exact or with_word or difflib.get_close_matches(name, paths, n=1, cutoff=0.75)
    if name in _OTHER_NAMES:
        return f"did you mean {_OTHER_NAMES[name]}? "
    # A run's own length is the trainer's key; the budget only gives it its value.
    named = [path for key in close for path in paths[key] if not path.startswith("budget.")]
    return f"did you mean {' or '.join(named)}? " if named else ""


def unknown_key(key: str, allowed: Iterable[str]) -> ConfigError:
    """The sentence about a key that does not exist."""
    names = sorted(name for name in allowed if name != "_target_")
    *parents, last = key.split(".")
    hint = closest(last, names, ".".join([*parents, ""]))
    if not hint and not parents:
        hint = _hint_below(last)
    where = ".".join(parents) or "the configuration"
    if last == "_target_":
        hint = "only norm and placement name a class; "
    return ConfigError(f"{key} is not a key; {hint}{where} has {', '.join(names) or 'no keys'}.")
