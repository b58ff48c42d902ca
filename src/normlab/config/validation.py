"""What the types of the schema cannot say: ranges, and keys that only make sense together.

Every failure is one sentence: the key, the value, what is allowed.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import reduce
from typing import Any, NamedTuple, cast, get_origin, get_type_hints

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import (
    ConfigKeyError,
    MissingMandatoryValue,
    OmegaConfBaseException,
    ValidationError,
)

from normlab.archive.record import check_output_dir, check_study_name
from normlab.config.expressions import evaluate_condition, evaluate_expression
from normlab.config.formula import check_formula, is_formula
from normlab.config.messages import errors_about, unknown_key_error, validation_reason, value_error
from normlab.config.placement import (
    END_SITES,
    SCALES,
    SITES,
    SUBLAYERS,
    BlockRule,
    PlacementConfig,
    SublayerConfig,
    resolve_placement,
)
from normlab.config.schema import DATA, ModelConfig, Positions, TrainConfig
from normlab.errors import ConfigError
from normlab.text import excerpt

PRECISIONS = ("auto", "32-true", "bf16-mixed", "16-mixed")
# Beyond it attention's cost, which grows with the square, makes no comparison possible.
MAX_CONTEXT = 16384
# DeepNet's (2203.00555), the deepest Transformer there is.
MAX_DEPTH = 1000
# Sequences of a batch, and batches of a step: the largest published batches have about as many.
MAX_BATCH = 65_536
MAX_THREADS = 1_024
# Of any other count: without an upper bound a slip of the finger ends in an overflow.
MAX_COUNT = 10**9
# Every run builds its model in the memory of the machine that plans it: larger ones end there.
MAX_WEIGHTS = 10**10


class Rule(NamedTuple):
    """Which values a key may have: in words, and as a test; and the words among them."""

    allowed: str
    accepts: Callable[[Any], bool]
    names: tuple[str, ...] = ()


def _count(most: int = MAX_COUNT) -> Rule:
    return Rule(f"a whole number from 1 to {most}", lambda value: 1 <= value <= most)


def _optional(rule: Rule) -> Rule:
    return Rule(f"null or {rule.allowed}", lambda value: value is None or rule.accepts(value))


_POSITIVE = Rule("a number above 0", lambda value: math.isfinite(value) and value > 0)
_AUTO_OR_COUNT = Rule(
    "auto or a whole number from 1",
    # Not isinstance: True is an int too.
    lambda value: value == "auto" or (type(value) is int and value >= 1),
    ("auto",),
)
# Beyond it every weight is infinite after a step, or none ever changes in float32.
_RATE = Rule("a number from 1e-30 to 1e30", lambda value: 1e-30 <= value <= 1e30)
_NOT_NEGATIVE = Rule("a number from 0", lambda value: math.isfinite(value) and value >= 0)

# Checked in this order; the first that fails is reported.
_RULES: dict[str, Rule] = {
    "model.width": _count(),
    "model.heads": _count(),
    "model.hidden_multiple": _count(),
    "model.depth": _count(MAX_DEPTH),
    "model.context": _count(MAX_CONTEXT),
    "trainer.max_steps": _count(),
    "trainer.val_every": _count(),
    "trainer.log_every": _count(),
    "trainer.accumulate": _count(MAX_BATCH),
    "jobs": _AUTO_OR_COUNT,
    "trainer.stack": _AUTO_OR_COUNT,
    "margin": _optional(_POSITIVE),
    "target": _optional(_POSITIVE),
    "seed": Rule("a whole number from 0 to 2^32 - 1", lambda value: 0 <= value < 2**32),
    "model.dropout": Rule("from 0 to below 1", lambda value: 0 <= value < 1),
    "model.hidden_ratio": _POSITIVE,
    "model.rotary_base": _POSITIVE,
    "model.init.std": _NOT_NEGATIVE,
    "model.init.embedding": _optional(_NOT_NEGATIVE),
    "model.init.query_key": _NOT_NEGATIVE,
    "model.init.embedding_scale": _optional(_POSITIVE),
    "optimizer.lr": _RATE,
    "optimizer.eps": _POSITIVE,
    "optimizer.weight_decay": _NOT_NEGATIVE,
    "optimizer.betas": Rule(
        "two numbers from 0 to below 1",
        lambda value: (
            # OmegaConf lets a list pass among the numbers of a list, and a list cannot be compared.
            len(value) == 2 and all(isinstance(beta, float) and 0 <= beta < 1 for beta in value)
        ),
    ),
    "schedule.warmup": Rule("a share of the run, 0 to 1", lambda value: 0 <= value <= 1),
    "schedule.decay_share": Rule(
        "a share of the run, above 0 up to 1", lambda value: 0 < value <= 1
    ),
    "schedule.final_ratio": Rule("from 0 to 1", lambda value: 0 <= value <= 1),
    "trainer.gradient_clip": _optional(Rule("above 0", _POSITIVE.accepts)),
    "trainer.threads": _optional(_count(MAX_THREADS)),
    "trainer.precision": Rule(
        f"one of {', '.join(PRECISIONS)}", lambda value: value in PRECISIONS, PRECISIONS
    ),
    "trainer.compile": Rule(
        "true, false, auto or graphs",
        lambda value: isinstance(value, bool) or value in ("auto", "graphs"),
        ("true", "false", "auto", "graphs"),
    ),
    "trainer.save_seconds": _NOT_NEGATIVE,
    "probes.every": _optional(_count()),
    "logger.flush_seconds": Rule(
        f"a whole number from 0 to {MAX_COUNT}", lambda value: 0 <= value <= MAX_COUNT
    ),
    "trainer.divergence_limit": Rule("above 1", lambda value: value > 1),
}

# Of the keys of data, which depend on its kind.
_DATA_RULES: dict[str, Rule] = {
    "kind": Rule(f"one of {', '.join(DATA)}", lambda value: value in DATA, tuple(DATA)),
    "batch_size": _count(MAX_BATCH),
    "vocabulary": Rule(
        f"a whole number from 2 to {MAX_COUNT}", lambda value: 2 <= value <= MAX_COUNT
    ),
    "order": _count(),
    "concentration": Rule("above 0 and below 1e6", lambda value: 0 < value < 1e6),
    "validation_fraction": Rule("above 0 and below 1", lambda value: 0 < value < 1),
    "validation_windows": _optional(_count()),
}


def check_config(config: TrainConfig) -> None:
    """Refuse a configuration that cannot be trained. Raises ConfigError."""
    check_study_name(config.study)
    check_output_dir(config.output_dir)
    of_data = {f"data.{key}": _DATA_RULES[key] for key in vars(config.data) if key in _DATA_RULES}
    for key, rule in {**_RULES, **of_data}.items():
        value = reduce(getattr, key.split("."), cast(Any, config))
        if not rule.accepts(value):
            raise value_error(key, value, rule.allowed, rule.names)
    _check_shape(config.model)
    _check_norm("norm", config.norm)
    _check_placement(config.placement, config.model.depth)
    _check_formulas(config)
    _check_expression("model.init.output", config.model.init.output, L=config.model.depth)


def _check_shape(model: ModelConfig) -> None:
    # An upper bound: attention's four matrices at full width, and SwiGLU's three.
    hidden = model.width * model.hidden_ratio + model.hidden_multiple
    if model.width * (4 * model.width + 3 * hidden) * model.depth > MAX_WEIGHTS:
        raise ConfigError(
            f"model.width={model.width}, model.depth={model.depth} and "
            f"model.hidden_ratio={model.hidden_ratio} make a model of more than {MAX_WEIGHTS:.0e} "
            f"weights, which does not fit into memory; make one of them smaller."
        )
    if model.width % model.heads:
        divisors = [n for n in range(1, model.width + 1) if model.width % n == 0]
        raise ConfigError(
            f"model.heads={model.heads} does not divide model.width={model.width}; "
            f"take one of {', '.join(map(str, divisors))} heads, or another width."
        )
    if model.kv_heads is not None and (model.kv_heads < 1 or model.heads % model.kv_heads):
        divisors = [n for n in range(1, model.heads + 1) if model.heads % n == 0]
        raise ConfigError(
            f"model.kv_heads={model.kv_heads} does not divide model.heads={model.heads}; each key "
            f"and value head serves the same number of query heads: take one of "
            f"{', '.join(map(str, divisors))}."
        )
    if model.positions is Positions.rotary and model.width // model.heads % 2:
        raise ConfigError(
            f"model.positions=rotary turns pairs of features, but model.width={model.width} over "
            f"model.heads={model.heads} gives heads of {model.width // model.heads}; "
            f"choose them so that a head is even."
        )


def _check_norm(key: str, value: Any) -> None:
    if not (isinstance(value, Mapping) and isinstance(value.get("_target_"), str)):
        raise ConfigError(
            f"{key}={value} is not a norm; a norm is a mapping with a _target_, the class that "
            f"takes the width, and its arguments beside it."
        )


def _check_formulas(config: TrainConfig) -> None:
    """Refuse a formula that cannot be built at the width of a site where it stands.

    One that stands nowhere, because a rule overrides it, may still be misspelt: it is checked at
    the model's width.
    """
    placement, model = config.placement, config.model
    norms = {"norm": config.norm}
    norms |= {f"placement.{end}": getattr(placement, end) for end in END_SITES}
    for key, layer in _placement_layers(placement):
        norms |= {f"{key}.{site}": getattr(layer, site, None) for site in ("norm", *SITES, "qk")}
    formulas = {key: norm for key, norm in norms.items() if is_formula(norm)}
    if formulas:
        network = resolve_placement(placement, config.norm, model.depth)
        sites = list(model.norm_sites(network))
        for key, formula in formulas.items():
            widths = dict.fromkeys(width for _, norm, width in sites if norm == formula)
            for width in widths or (model.width,):
                check_formula(key, formula, width)


def _check_placement(placement: PlacementConfig, depth: int) -> None:
    """Refuse a placement with a site, a scale or a condition that cannot be one.

    Also where no block takes the value: what a rule overrides may still be misspelt.
    """
    for end in END_SITES:
        _check_site(f"placement.{end}", getattr(placement, end))
    for name, value in vars(placement.init).items():
        if name != "output":
            _check_in_blocks(f"placement.init.{name}", value, depth)
    if (output := placement.init.output) is not None:
        # As model.init.output, which it replaces.
        key = "placement.init.output (one factor for all blocks; out and down may depend on l)"
        _check_expression(key, output, L=depth)
    for key, layer in _placement_layers(placement):
        if layer.norm is not None:
            _check_norm(f"{key}.norm", layer.norm)
        for site in (*SITES, "qk"):
            _check_site(f"{key}.{site}", getattr(layer, site, None))
        for name in SCALES:
            _check_scale(f"{key}.{name}", name, getattr(layer, name, None), depth)
    for name, rule in placement.blocks.items():
        with errors_about(f"placement.blocks.{name}.where: "):
            for block in range(1, depth + 1):
                evaluate_condition(rule.where, L=depth, l=block)


def _placement_layers(placement: PlacementConfig) -> Iterator[tuple[str, SublayerConfig]]:
    """Every part of a placement that sets something of sublayers, with its key."""
    layers = {"placement": placement}
    layers |= {f"placement.blocks.{name}": rule for name, rule in placement.blocks.items()}
    for key, layer in layers.items():
        yield key, layer
        yield from ((f"{key}.{name}", getattr(layer, name)) for name in SUBLAYERS)


def _check_site(key: str, value: Any) -> None:
    if isinstance(value, Mapping):
        _check_norm(key, value)
    elif value is not None and not isinstance(value, bool):
        allowed = "true (the run's norm), false (nothing) or the config of a norm"
        raise value_error(key, value, allowed, ("true", "false"))


def _check_scale(key: str, name: str, value: Any, depth: int) -> None:
    if isinstance(value, Mapping):
        per = ("scalar", "head") if name == "heads" else ("scalar", "feature")
        if set(value) <= {"init", "per"} and value.get("per", "scalar") not in per:
            raise value_error(f"{key}.per", value["per"], " or ".join(per), per)
        if not set(value) <= {"init", "per"}:
            raise ConfigError(
                f"{key}={dict(value)} is not a scale; a learnable one is "
                f"{{init: number or expression, per: {' or '.join(per)}}}."
            )
        value = value.get("init", 1.0)
    _check_in_blocks(key, value, depth)


def _check_in_blocks(key: str, value: Any, depth: int) -> None:
    if value is not None:
        for block in range(1, depth + 1):
            _check_expression(key, value, L=depth, l=block)


def _check_expression(key: str, value: Any, **names: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise value_error(key, value, "a number or an expression")
    with errors_about(f"{key}: "):
        evaluate_expression(value, **names)


def parse_block_rule(key: str, rule: Any) -> BlockRule:
    """A rule of `placement.blocks`, typed; `key` is where it stands.

    Hydra cannot put a mapping from the command line where a dictionary of typed rules is expected,
    so that `placement.blocks` is open in the schema and gets its types here.

    Raises:
        ConfigError: it has an unknown key, a value of the wrong type, or no condition.
    """
    if not isinstance(rule, Mapping):
        raise ConfigError(
            f"{key}={rule} is not a rule; a rule is a mapping with where (a condition on l and L, "
            f"as in l <= L/4) and what changes there, as in stream: true."
        )
    try:
        merged = OmegaConf.merge(OmegaConf.structured(BlockRule), rule)
        return cast(BlockRule, OmegaConf.to_object(merged))
    except MissingMandatoryValue as error:
        raise ConfigError(
            f"{key}.{error.full_key} has no value; give a condition on l and L, as in l <= L/4."
        ) from error
    except ConfigKeyError as error:
        parent = error.parent_node
        names = parent if parent is not None else [item.name for item in fields(BlockRule)]
        raise unknown_key_error(f"{key}.{error.full_key}", map(str, names)) from error
    except ValidationError as error:
        raise ConfigError(
            f"{key}.{error.full_key} is not allowed: {validation_reason(error)}."
        ) from error
    except OmegaConfBaseException as error:
        raise ConfigError(f"{key} cannot be read: {str(error).splitlines()[0]}.") from error


def check_keys(composed: DictConfig, path: str = "") -> None:
    """Refuse a key that its dataclass does not have: Hydra lets `+key=value` add anything.

    Raises:
        ConfigError: naming the first such key and those that exist.
    """
    schema = OmegaConf.get_type(composed)
    names = [f.name for f in fields(schema)] if is_dataclass(schema) else list(composed)
    for key in map(str, composed):
        if key not in names:
            raise unknown_key_error(path + key, map(str, names))
        if not OmegaConf.is_missing(composed, key) and isinstance(composed[key], DictConfig):
            check_keys(composed[key], f"{path}{key}.")


def check_against_file(key: str, value: Any, reference: Any) -> None:
    """Hold an open node to the file it came from: the same keys, values of the same types.

    Raises:
        ConfigError: naming the first key or value that does not fit.
    """
    if isinstance(reference, Mapping) and isinstance(value, Mapping):
        for name, item in value.items():
            if name not in reference:
                raise unknown_key_error(f"{key}.{name}", map(str, reference))
            check_against_file(f"{key}.{name}", item, reference[name])
        return
    if reference is None or value is None or isinstance(value, type(reference)):
        return
    if isinstance(reference, float) and isinstance(value, int) and not isinstance(value, bool):
        return
    kinds = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    kind = kinds.get(type(reference), type(reference).__name__)
    raise value_error(key, value, f"{kind}, as {reference} is")


def check_interpolated_sections(section: Any, path: str = "") -> None:
    """Refuse a section that an interpolation has replaced by something else.

    OmegaConf checks the type of every value except those that `${…}` gives.

    Raises:
        ConfigError: the first such section.
    """
    for name, hint in get_type_hints(type(section)).items():
        value = getattr(section, name)
        kind = get_origin(hint) or hint
        if (is_dataclass(hint) or kind in (dict, list)) and not isinstance(value, kind):
            expected = "a list" if kind is list else "a part with keys of its own"
            raise ConfigError(
                f"{path}{name} is {expected}, which an interpolation ${{…}} makes "
                f"{excerpt(value)}; write its values instead, or leave it out."
            )
        if is_dataclass(hint):
            check_interpolated_sections(value, f"{path}{name}.")
