"""The door of probes at initialisation: compose what is asked for, measure it, show and draw it.

From Python, `measure(["norm=rmsnorm,none", "model.depth=4,8", "seed=0,1,2"])` gives the same
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

from normlab.apps.probe.record import Measurement, Probing, measurement, write_probing
from normlab.apps.results import folder_name, print_files, save_results
from normlab.config.compose import composed_config
from normlab.config.gate import check_overrides
from normlab.config.run_spec import RunSpec
from normlab.errors import CommandParser, ConfigError, report_user_errors
from normlab.study.plan import Plan, compose_spec, expand_overrides
from normlab.study.progress import Countdown
from normlab.terminal import open_terminal

# More would take an hour, and no figure holds them.
MOST_MODELS = 2000
_PLACE = Path("outputs") / "probes"
# Where a model is not trained, nothing else of a configuration means anything.
_TAKES = ("norm", "placement", "model", "data", "seed", "experiment")
# What has a place of its own in a measurement.
_KNOWN_APART = ("norm", "placement", "model.depth", "seed")


@dataclass(frozen=True)
class Wanted:
    """One model to measure: its configuration, and what else varies between the models."""

    spec: RunSpec
    settings: tuple[str, ...]


def main(argv: Sequence[str] | None = None) -> None:
    """The command line of `scripts/probe.py`."""
    with report_user_errors():
        options = _parser().parse_intermixed_args(argv)
        probe(options)


def probe(options: argparse.Namespace) -> Probing:
    """Measure, print and write what the command line asks for.

    Raises:
        ConfigError: an override is wrong, or a norm cannot be built.
        NormlabError: the results cannot be written.
    """
    wanted = _compose(options.overrides, options.config_dir)
    folder = options.out or _PLACE / folder_name([_said(options.overrides)], "probe")
    terminal = open_terminal(110)
    with Countdown(terminal, "models", len(wanted)) as countdown:
        probing = _measured(wanted, countdown.begin)
    files, left_out = _write(probing, folder, options.overrides)
    from normlab.apps.probe.tables import show

    show(terminal, probing)
    print_files(terminal, files, left_out)
    return probing


def measure(overrides: Sequence[str], config_dir: Path | None = None) -> Probing:
    """Measure every combination of these overrides at initialisation, on its own first batch.

    Overrides are those of train.py, values separated by commas: groups, keys, `seed=0,1,2`.
    Combinations that are the same network are measured once.

    Raises:
        ConfigError: one of them cannot be composed or built.
        NormlabError: the data is not there.
    """
    return _measured(_compose(overrides, config_dir), lambda words: None)


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="probe.py",
        description="Signal and gradient through depth at initialisation, for any norm, placement, "
        "depth and init: a table, probe.json and a figure, in seconds and without training.",
        epilog="example: python scripts/probe.py norm=rmsnorm,none placement=pre,post "
        "model.depth=4,8,16 seed=0,1,2; with experiment=theory_init the model is that of Xiong et "
        "al.'s theory",
    )
    parser.add_argument("overrides", nargs="+", help="as for train.py: norm=a,b model.depth=4,8")
    parser.add_argument("--config-dir", type=Path, help="folder that holds norm/<name>.yaml")
    parser.add_argument("--out", type=Path, help=f"default: {_PLACE}/<what varies>")
    return parser


def _compose(overrides: Sequence[str], config_dir: Path | None) -> list[Wanted]:
    _check_keys(overrides)
    plan = Plan()
    found: dict[str, Wanted] = {}
    with composed_config([], config_dir) as (loader, master):
        check_overrides(overrides, [config_dir] if config_dir else [])
        every = list(expand_overrides(loader, overrides, plan))
        if len(every) > MOST_MODELS:
            raise ConfigError(
                f"These overrides make {len(every)} models, and at most {MOST_MODELS} are "
                f"measured at once; give fewer values."
            )
        for combination in every:
            spec = compose_spec(loader, master, combination)
            found.setdefault(spec.id, Wanted(spec, _settings(combination, plan)))
    return list(found.values())


def _check_keys(overrides: Sequence[str]) -> None:
    """Refuse what would change nothing, before it makes equal models look different."""
    for word in overrides:
        key = word.lstrip("+~").partition("=")[0]
        if key.partition(".")[0].partition("@")[0] not in _TAKES:
            raise ConfigError(
                f"{word} means nothing to a model that is not trained; give "
                f"{', '.join(f'{one}=…' for one in _TAKES[:-1])} or {_TAKES[-1]}=…."
            )


def _settings(combination: Sequence[str], plan: Plan) -> tuple[str, ...]:
    """What varies beside norm, placement, depth and seed, by its last name: `width=64`."""
    pairs = [word.lstrip("+").partition("=") for word in combination]
    return tuple(
        f"{key.split('.')[-1]}={value}"
        for key, _, value in pairs
        if key in plan.varied and key not in _KNOWN_APART
    )


def _said(overrides: Sequence[str]) -> str:
    return "-".join(word.replace("=", "_").replace(",", "-") for word in overrides)


def _measured(wanted: Sequence[Wanted], each: Callable[[str], None]) -> Probing:
    # A class in the folder one works in is found, as it is by train.py there.
    sys.path.append(os.getcwd())
    import torch

    from normlab.apps.probe.tables import slopes
    from normlab.training.build import check_networks

    threads = torch.get_num_threads()
    # Models this small are not faster on more, and sums on one are the same everywhere.
    torch.set_num_threads(1)
    try:
        check_networks([one.spec for one in wanted])
        sources: dict[str, Any] = {}
        found = []
        for one in wanted:
            each(one.spec.name)
            found.append(_one(one, sources))
    finally:
        torch.set_num_threads(threads)
    return Probing(tuple(found), slopes(found))


def _one(wanted: Wanted, sources: dict[str, Any]) -> Measurement:
    from normlab.data import build_source
    from normlab.training.build import build_model
    from normlab.training.module import to_tensors
    from normlab.training.probes import probe_initialization

    spec, config_ = wanted.spec, wanted.spec.config
    key = json.dumps([spec.plain["data"], config_.model.context])
    if key not in sources:
        sources[key] = build_source(spec.plain["data"], config_.model.context)
    source = sources[key]
    model = build_model(config_, source.vocabulary)
    found = probe_initialization(model, to_tensors(source.batch(config_.seed, 0)))
    arm = spec.choices["norm"], spec.choices["placement"], wanted.settings
    return measurement(arm, config_.model.depth, config_.seed, found)


def _write(
    probing: Probing, folder: Path, overrides: Sequence[str]
) -> tuple[dict[str, Path], list[str]]:
    """The files by what they are, and a sentence where the figure could not be drawn."""
    import torch

    about = {"overrides": list(overrides), "versions": {"torch": str(torch.__version__)}}

    def draw_figure() -> Path:
        from normlab.apps.probe.figure import draw

        return draw(probing, folder)[0]

    return save_results(folder, lambda: write_probing(folder, probing, about), draw_figure)
