"""The door of identity cards: compose the norms asked for, measure them, show and draw them.

Torch is imported when the request is known to be in order.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from normlab.apps.card.record import Card, write_cards
from normlab.apps.results import folder_name, print_files, save_results
from normlab.config.compose import composed_config
from normlab.config.gate import check_overrides
from normlab.config.run_spec import RunSpec
from normlab.errors import ConfigError, Parser, in_words
from normlab.study.plan import Plan, combinations, specified
from normlab.study.terminal import console

# Wider, a single token's Jacobian would not tell more, and the timing takes gigabytes.
MOST_WIDTH = 8192
_PLACE = Path("outputs") / "cards"


def main(argv: Sequence[str] | None = None) -> None:
    """The command line of `scripts/card.py`."""
    with in_words():
        options = _parser().parse_intermixed_args(argv)
        card(options)


def card(options: argparse.Namespace) -> list[Card]:
    """Measure, print and write what the command line asks for.

    Raises:
        ConfigError: a norm is not there, cannot be built, or is not one; an override is wrong.
        NormlabError: the results cannot be written.
    """
    _check(options)
    specs = _compose(options.overrides, options.config_dir)
    folder = options.out or _PLACE / folder_name(list(specs), "card")
    cards = _measure(specs, options.width, options.threads, options.seconds)
    files, left_out = _write(cards, folder)
    from normlab.apps.card.tables import show

    terminal = console(100)
    show(terminal, cards)
    print_files(terminal, files, left_out)
    return cards


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="card.py",
        description="A norm's identity card, in seconds and before it is trained: parameters, "
        "invariances, Jacobian, extreme inputs, half precision, speed.",
        epilog="example: python scripts/card.py norm=rmsnorm,layernorm norm.eps=1e-6 --width 512",
    )
    parser.add_argument("overrides", nargs="+", help="norm=a,b as for train.py, and norm.key=value")
    parser.add_argument("--width", type=int, default=512, help="features (default: 512)")
    parser.add_argument("--config-dir", type=Path, help="folder that holds norm/<name>.yaml")
    parser.add_argument("--threads", type=int, default=1, help="for the timing (default: 1)")
    parser.add_argument("--seconds", type=float, default=0.8, help="for it, a norm (default: 0.8)")
    parser.add_argument("--out", type=Path, help=f"default: {_PLACE}/<names>")
    return parser


def _check(options: argparse.Namespace) -> None:
    if not 2 <= options.width <= MOST_WIDTH:
        raise ConfigError(
            f"--width {options.width} is not allowed; it must be from 2 to {MOST_WIDTH}."
        )
    if options.threads < 1:
        raise ConfigError(f"--threads {options.threads} is not allowed; it must be 1 or more.")


def _compose(overrides: Sequence[str], config_dir: Path | None) -> dict[str, RunSpec]:
    """The norms asked for, by the name they have on the card, in order."""
    for override in overrides:
        key = override.lstrip("+~").partition("=")[0]
        if key.partition(".")[0] != "norm":
            raise ConfigError(
                f"{override} says nothing about a norm by itself; a card takes norm=… and norm.…=… "
                f"only."
            )
    specs = {}
    with composed_config([], config_dir) as (loader, master):
        check_overrides(overrides, [config_dir] if config_dir else [])
        for combination in combinations(loader, overrides, Plan()):
            spec = specified(loader, master, combination)
            specs[_label(spec, combination)] = spec
    return specs


def _label(spec: RunSpec, overrides: Sequence[str]) -> str:
    """The norm's option, and what was set beside it."""
    others = [one.lstrip("+") for one in overrides if one.lstrip("+~").startswith("norm.")]
    return " ".join([spec.choices["norm"], *(one.replace("norm.", "", 1) for one in others)])


def _measure(specs: dict[str, RunSpec], width: int, threads: int, seconds: float) -> list[Card]:
    # A class in the folder one works in is found, as it is by train.py there.
    sys.path.append(os.getcwd())
    import torch

    from normlab.apps.card.measure import measure
    from normlab.norms import norm_factory

    torch.set_num_threads(threads)
    timing: Any = {"threads": threads, "seconds": seconds}
    return [
        measure(norm_factory(norm := spec.plain["norm"]), width, name=name, config=norm, **timing)
        for name, spec in specs.items()
    ]


def _write(cards: list[Card], folder: Path) -> tuple[dict[str, Path], list[str]]:
    """The files by what they are, and a sentence where the figure could not be drawn."""
    import torch

    def draw_figure() -> Path:
        from normlab.apps.card.figure import draw

        return draw(cards, folder)[0]

    versions = {"torch": str(torch.__version__)}
    return save_results(folder, lambda: write_cards(folder, cards, versions), draw_figure)
