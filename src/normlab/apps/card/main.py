"""The command card.py: compose the norms of the command line, measure, print and draw them.

Torch is imported when the request is known to be in order.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from normlab.apps.card.record import write_cards
from normlab.apps.card.table import print_cards
from normlab.apps.results import folder_name, print_files, save_results
from normlab.config.compose import composed_config
from normlab.config.gate import check_overrides
from normlab.config.run_spec import RunSpec
from normlab.config.validation import MAX_THREADS
from normlab.errors import CommandParser, ConfigError, report_user_errors
from normlab.study.composition import RunComposer
from normlab.study.plan import check_repeated_keys, expand_overrides
from normlab.terminal import open_terminal
from normlab.text import excerpt

# Wider, a single token's Jacobian would not tell more, and the timing takes gigabytes.
MOST_WIDTH = 8192
_THREADS, _SECONDS = 1, 0.8  # of the timing
_RESULTS = Path("outputs") / "cards"


def main(argv: Sequence[str] | None = None) -> None:
    """The command line of `scripts/card.py`."""
    with report_user_errors():
        options = _build_parser().parse_intermixed_args(argv)
        if options.against is None:
            write_norm_cards(options)
        else:
            compare_norms(options)


def write_norm_cards(options: argparse.Namespace) -> None:
    """Measure, print and write the norms of the command line.

    Raises:
        ConfigError: a norm does not exist, cannot be built, or is not one; an override is wrong.
        NormlabError: the results cannot be written.
    """
    _check_width(options.width)
    # The parser has no defaults for these: with --against a flag that was given is refused.
    threads = _THREADS if options.threads is None else options.threads
    seconds = _SECONDS if options.seconds is None else options.seconds
    if not 1 <= threads <= MAX_THREADS:
        raise ConfigError(
            f"--threads {threads} is not allowed; it must be from 1 to {MAX_THREADS}."
        )
    if not 0 <= seconds < float("inf"):
        raise ConfigError(f"--seconds {seconds} is not allowed; it must be 0 or more, and finite.")
    specs = _compose_norms(options.overrides, options.config_dir)
    folder = options.out or _RESULTS / folder_name(list(specs), "card")
    # A class in the current folder is imported, as it is by train.py there.
    sys.path.append(os.getcwd())
    import torch

    from normlab.apps.card.measure import measure_card
    from normlab.norms import norm_factory

    torch.set_num_threads(threads)
    cards = []
    for name, spec in specs.items():
        config = spec.plain["norm"]
        card = measure_card(
            norm_factory(config),
            options.width,
            name=name,
            config=config,
            threads=threads,
            seconds=seconds,
        )
        cards.append(card)

    def draw_figure() -> Path:
        from normlab.apps.card.figure import draw_cards

        return draw_cards(cards, folder)[0]

    versions = {"torch": str(torch.__version__)}
    results = save_results(folder, lambda: write_cards(folder, cards, versions), draw_figure)
    terminal = open_terminal(100)
    print_cards(terminal, cards)
    print_files(terminal, *results)


def compare_norms(options: argparse.Namespace) -> None:
    """Print whether each norm of the command line is the same function as `--against`.

    Raises:
        ConfigError: as `write_norm_cards`; or a flag of the cards is given, which changes nothing.
    """
    for flag in ("out", "threads", "seconds"):
        if getattr(options, flag) is not None:
            raise ConfigError(f"--{flag} has no effect with --against; leave it out.")
    _check_width(options.width)
    specs = _compose_norms(options.overrides, options.config_dir)
    references = _compose_norms([f"norm={options.against}"], options.config_dir)
    if len(references) > 1:
        raise ConfigError(f"--against {excerpt(options.against)} names several norms; give one.")
    ((reference_name, reference),) = references.items()
    sys.path.append(os.getcwd())
    from normlab.apps.card.measure import check_norm
    from normlab.apps.card.same_function import compare_functions, print_comparison
    from normlab.norms import norm_factory

    terminal = open_terminal(100)
    other = norm_factory(reference.plain["norm"])(options.width)
    check_norm(other, reference_name, options.width)
    for name, spec in specs.items():
        norm = norm_factory(spec.plain["norm"])(options.width)
        check_norm(norm, name, options.width)
        names = name, reference_name
        print_comparison(terminal, compare_functions(norm, other, options.width, names))


def _check_width(width: int) -> None:
    if not 2 <= width <= MOST_WIDTH:
        raise ConfigError(f"--width {width} is not allowed; it must be from 2 to {MOST_WIDTH}.")


def _build_parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="card.py",
        keys=("norm",),
        description="A norm's identity card, in seconds and before it is trained: parameters, "
        "invariances, Jacobian, extreme inputs, half precision, speed.",
        epilog="example: python scripts/card.py norm=rmsnorm,layernorm norm.eps=1e-6 --width 512",
    )
    parser.add_argument("overrides", nargs="+", help="norm=a,b as for train.py, and norm.key=value")
    parser.add_argument("--width", type=int, default=512, help="features (default: %(default)s)")
    parser.add_argument("--config-dir", type=Path, help="folder that holds norm/<name>.yaml")
    parser.add_argument("--threads", type=int, help=f"for the timing (default: {_THREADS})")
    parser.add_argument(
        "--seconds", type=float, help=f"seconds of timing per norm (default: {_SECONDS})"
    )
    parser.add_argument(
        "--against",
        metavar="NORM",
        help="print instead whether each is the same function as this norm, and where it differs",
    )
    parser.add_argument("--out", type=Path, help=f"default: {_RESULTS}/<names>")
    return parser


def _compose_norms(overrides: Sequence[str], config_dir: Path | None) -> dict[str, RunSpec]:
    """The configurations of all norms by their name on the card, in the order of the overrides.

    The name is that of the norm's option, and of the arguments that were set.
    """
    for override in overrides:
        key = override.lstrip("+~").partition("=")[0]
        if key.partition(".")[0] != "norm":
            raise ConfigError(
                f"{override} is not a setting of a norm; a card takes only norm=… and norm.key=…."
            )
    specs = {}
    with composed_config([], config_dir) as (loader, master):
        check_overrides(overrides, [config_dir] if config_dir else [])
        check_repeated_keys(overrides)
        composer = RunComposer(loader, master)
        for combination in expand_overrides(loader, overrides).combinations:
            spec = composer.compose(combination)
            arguments = [
                override.lstrip("+").replace("norm.", "", 1)
                for override in combination
                if override.lstrip("+~").startswith("norm.")
            ]
            specs[" ".join([spec.choices["norm"], *arguments])] = spec
    return specs
