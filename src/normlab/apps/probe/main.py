"""The command of probes at initialization: compose models, measure them, print and draw.

From Python, `probe_models(["norm=rmsnorm,none", "model.depth=4,8", "seed=0,1,2"])` gives the same
numbers and slopes. Torch is imported when the request is known to be in order.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from normlab.apps.probe.record import ProbedModel, ProbeResult, write_probe_result
from normlab.apps.probe.slopes import fit_slopes
from normlab.apps.probe.table import print_result
from normlab.apps.results import folder_name, print_files, save_results
from normlab.archive.versioned_json import FiniteNumber, finite_or_none
from normlab.config.compose import composed_config
from normlab.config.gate import check_overrides
from normlab.config.run_spec import RunSpec
from normlab.errors import CommandParser, ConfigError, report_user_errors
from normlab.study.composition import RunComposer
from normlab.study.plan import check_repeated_keys, expand_overrides
from normlab.study.progress import Countdown
from normlab.terminal import open_terminal

# More would take an hour, and no figure holds them.
MOST_MODELS = 2000
_FOLDER = Path("outputs") / "probes"
# Where a model is not trained, nothing else of a configuration means anything.
_GROUPS = ("norm", "placement", "model", "data", "seed", "experiment")
# What has a field of its own in a record.
_RECORD_KEYS = ("norm", "placement", "model.depth", "seed")


@dataclass(frozen=True)
class ModelSpec:
    """One model to measure: its configuration, and what else varies between the models."""

    spec: RunSpec
    settings: tuple[str, ...]


def main(argv: Sequence[str] | None = None) -> None:
    """The command line of `scripts/probe.py`."""
    with report_user_errors():
        _run_command(_build_parser().parse_intermixed_args(argv))


def probe_models(overrides: Sequence[str], config_dir: Path | None = None) -> ProbeResult:
    """Measure every combination of these overrides at initialization, on its own first batch.

    Overrides are those of train.py, values separated by commas: groups, keys, `seed=0,1,2`.
    Combinations that are the same network are measured once.

    Raises:
        ConfigError: one of them cannot be composed or built.
        NormlabError: the data is not there.
    """
    return _measure_models(_compose_models(overrides, config_dir), lambda name: None)


def _build_parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="probe.py",
        keys=_GROUPS,
        description="Signal and gradient through depth at initialization, for any norm, placement, "
        "depth and init: a table, probe.json and a figure, in seconds and without training.",
        epilog="example: python scripts/probe.py norm=rmsnorm,none placement=pre,post "
        "model.depth=4,8,16 seed=0,1,2; with experiment=theory_init the model is that of Xiong et "
        "al.'s theory",
    )
    parser.add_argument("overrides", nargs="+", help="as for train.py: norm=a,b model.depth=4,8")
    parser.add_argument("--config-dir", type=Path, help="folder that holds norm/<name>.yaml")
    parser.add_argument("--out", type=Path, help=f"default: {_FOLDER}/<what varies>")
    return parser


def _run_command(options: argparse.Namespace) -> None:
    models = _compose_models(options.overrides, options.config_dir)
    name = "-".join(word.replace("=", "_").replace(",", "-") for word in options.overrides)
    folder = options.out or _FOLDER / folder_name([name], "probe")
    terminal = open_terminal(110)
    with Countdown(terminal, "models", len(models)) as countdown:
        result = _measure_models(models, countdown.begin)
    import torch

    origin = {"overrides": options.overrides, "versions": {"torch": str(torch.__version__)}}

    def draw_figure() -> Path:
        from normlab.apps.probe.figure import draw_probes

        return draw_probes(result, folder)[0]

    files, notes = save_results(
        folder, lambda: write_probe_result(folder, result, origin), draw_figure
    )
    print_result(terminal, result)
    print_files(terminal, files, notes)


def _compose_models(overrides: Sequence[str], config_dir: Path | None) -> list[ModelSpec]:
    """The models of all combinations, each network once, without torch."""
    for word in overrides:
        # What changes nothing would make equal models look different.
        key = word.lstrip("+~").partition("=")[0]
        # Of Hydra's `group.key=` and `group@package=` the group is what counts.
        if key.partition(".")[0].partition("@")[0] not in _GROUPS:
            raise ConfigError(
                f"{word} means nothing to a model that is not trained; give "
                f"{', '.join(f'{group}=…' for group in _GROUPS[:-1])} or {_GROUPS[-1]}=…."
            )
    models: dict[str, ModelSpec] = {}
    with composed_config([], config_dir) as (loader, master):
        check_overrides(overrides, [config_dir] if config_dir else [])
        check_repeated_keys(overrides)
        expanded = expand_overrides(loader, overrides)
        if len(expanded.combinations) > MOST_MODELS:
            raise ConfigError(
                f"These overrides make {len(expanded.combinations)} models, and at most "
                f"{MOST_MODELS} are measured at once; give fewer values."
            )
        composer = RunComposer(loader, master)
        for combination in expanded.combinations:
            pairs = [word.partition("=") for word in combination]
            settings = tuple(
                f"{key.lstrip('+').split('.')[-1]}={value}"
                for key, _, value in pairs
                if key in expanded.varied and key.lstrip("+") not in _RECORD_KEYS
            )
            spec = composer.compose(combination)
            # Without norms every placement is one network, with one id.
            models.setdefault(spec.id, ModelSpec(spec, settings))
    return list(models.values())


def _measure_models(models: Sequence[ModelSpec], report: Callable[[str], None]) -> ProbeResult:
    # A class in the folder one works in is importable, as it is by train.py there.
    sys.path.append(os.getcwd())

    from normlab.training.build import check_networks
    from normlab.training.hardware import single_thread

    # Models this small are not faster on more threads, and sums on one are the same everywhere.
    with single_thread():
        check_networks([model.spec for model in models])
        sources: dict[str, Any] = {}
        records = []
        for model in models:
            report(model.spec.name)
            records.append(_measure_model(model, sources))
    return ProbeResult(tuple(records), fit_slopes(records))


def _measure_model(model: ModelSpec, sources: dict[str, Any]) -> ProbedModel:
    """The record of one model; `sources` are those of earlier models, by their settings."""
    from normlab.data import build_source
    from normlab.training.build import build_model
    from normlab.training.module import to_tensors
    from normlab.training.probes import probe_initialization

    spec, config = model.spec, model.spec.config
    key = json.dumps([spec.plain["data"], config.model.context])
    if key not in sources:
        sources[key] = build_source(spec.plain["data"], config.model.context)
    source = sources[key]
    network = build_model(config, source.vocabulary)
    # The first batch that a training run with this seed would take.
    batch = to_tensors(source.batch(config.seed, 0))
    values: dict[str, dict[str, FiniteNumber]] = {}
    for (quantity, site), value in probe_initialization(network, batch).items():
        values.setdefault(quantity, {})[site] = finite_or_none(value)
    return ProbedModel(
        norm=spec.choices["norm"],
        placement=spec.choices["placement"],
        settings=model.settings,
        depth=config.model.depth,
        seed=config.seed,
        loss=values.pop("loss")["model"],
        values=values,
    )
