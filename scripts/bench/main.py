"""What normlab costs, against what a user would pick instead: python scripts/bench/main.py step.

| suite     | question                                                                  |
|-----------|---------------------------------------------------------------------------|
| `step`    | a training step against other packages, a bare loop, the matmuls alone    |
| `profile` | where the time of a step goes                                             |
| `norms`   | every norm of conf/norm, forward and backward, against torch's and a copy |
| `study`   | four runs as a study against one after the other                          |
| `read`    | reading results against tbparse                                           |
| `start`   | how long until a command answers, or trains                               |
| `scaling` | cost and memory against the model's size                                 |
"""

import argparse
import os
import platform
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

try:
    from harness import Settings
    from normlab.errors import CommandParser, ConfigError, NormlabError, report_user_errors
except ModuleNotFoundError as missing:
    sys.exit(
        f"normlab: {missing.name} is not installed for {sys.executable}; run `make demo` once, "
        "then this command with .venv/bin/python in place of python."
    )

# torch, Lightning and matplotlib are imported in functions: every worker process imports this
# file, and their memory is not that of a contender.

SUITES = {
    "step": "training_suites:measure_step",
    "profile": "training_suites:measure_profile",
    "norms": "norm_suite:measure_norms",
    "study": "command_suites:measure_study",
    "read": "read_suite:measure_read",
    "start": "command_suites:measure_start",
    "scaling": "training_suites:measure_scaling",
}
WITH_OVERRIDES = ("step", "profile", "scaling")
WITH_SHAPES = (*WITH_OVERRIDES, "norms", "study")
# What `scaling` varies itself.
VARIED = ("model.depth", "model.width", "model.heads", "model.context", "data.vocabulary")
OUTPUT = Path("outputs") / "bench"


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = CommandParser(
        prog="main.py",
        description="What normlab costs, against what a user would pick instead, in one run.",
        epilog="example: python scripts/bench/main.py step norms --quick",
    )
    parser.add_argument(
        "words",
        nargs="*",
        metavar="suite",
        help=f"{', '.join(SUITES)} or all; with key=value, of normlab's own runs",
    )
    parser.add_argument("--rounds", type=positive_integer, help="how often to time each contender")
    parser.add_argument("--quick", action="store_true", help="fewer rounds and sizes: for a look")
    parser.add_argument("--threads", type=positive_integer, help="of each contender")
    parser.add_argument("--shapes", default="", help="sizes to measure, a,b")
    parser.add_argument("--out", type=Path, default=OUTPUT, help=f"default: {OUTPUT}/<suite>")
    parser.add_argument(
        "--docs", action="store_true", help="write what --out holds into docs/performance.md"
    )
    with report_user_errors():
        # With parse_args a suite after an option, `step --quick norms`, would be unknown.
        options = parser.parse_intermixed_args(arguments)
        suites, settings = check_options(options)
        try:
            for suite in suites:
                run_suite(suite, settings, options.out / suite)
        except KeyboardInterrupt:
            sys.stderr.write("stopped; the results of this suite are lost\n")
            sys.exit(130)
        if options.docs:
            from report import refresh_page

            print(f"written  {refresh_page(options.out)}")


def positive_integer(text: str) -> int:
    """A number of rounds or threads."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 1")
    return int(text)


def check_options(options: argparse.Namespace) -> tuple[list[str], Settings]:
    """The suites and the settings, before anything is measured.

    Raises:
        ConfigError: an option is wrong, or would be ignored.
    """
    overrides = tuple(word for word in options.words if "=" in word)
    names = set(options.words).difference(overrides)
    if not names and not options.docs:
        raise ConfigError(f"no suite was given; choose from {', '.join(SUITES)}, or all.")
    for name in names.difference(SUITES, ["all"]):
        raise ConfigError(f"{name} is not a suite; choose from {', '.join(SUITES)}, or all.")
    suites = [suite for suite in SUITES if names & {suite, "all"}]
    shapes = tuple(name for name in options.shapes.split(",") if name)
    for option, used, able in (
        ("--shapes", shapes, WITH_SHAPES),
        ("key=value", overrides, WITH_OVERRIDES),
    ):
        for suite in set(suites).difference(able if used else SUITES):
            raise ConfigError(
                f"{option} means nothing to the suite {suite}; give it with {', '.join(able)} only."
            )
    for override in overrides:
        if "scaling" in suites and override.partition("=")[0] in VARIED:
            raise ConfigError(f"{override} is what scaling varies by itself; leave it out.")
    # Composed once now, so that a wrong key is told before minutes are spent.
    if overrides:
        from training_loops import compose_run

        compose_run(overrides)
    settings = Settings(options.quick, options.rounds, options.threads, shapes, overrides)
    return suites, settings


def run_suite(suite: str, settings: Settings, folder: Path) -> None:
    """Measure a suite, print it, and write `<suite>.json`, `.png` and `.svg` into the folder.

    Raises:
        NormlabError: it cannot be measured, or its results cannot be written.
    """
    try:
        # Before minutes are spent.
        folder.mkdir(parents=True, exist_ok=True)
        folder.joinpath(".writable").touch()
        folder.joinpath(".writable").unlink()
    except OSError as error:
        raise ConfigError(
            f"{folder} cannot be written ({error.strerror}); give another place with --out DIR."
        ) from error
    from rich.console import Console
    from rich.markdown import Markdown

    from normlab.analysis.style import skip_failed_figure
    from report import format_machine, format_markdown, write_report

    module, _, function = SUITES[suite].partition(":")
    # A load above 0.5 before the start says that the machine was not quiet: see
    # docs/performance.md.
    load, began = os.getloadavg()[0], time.perf_counter()
    with Console(stderr=True).status(f"{suite} …") as status:

        def show_progress(title: str) -> None:
            status.update(f"{suite}: {title}")
            if not sys.stderr.isatty():
                print(f"{suite}: {title}", file=sys.stderr)

        measure = getattr(import_module(module), function)
        result = measure(replace(settings, progress=show_progress))
    report = {
        "command": format_command(suite, settings),
        "seconds": time.perf_counter() - began,
        "machine": describe_machine(settings, [load, os.getloadavg()[0]]),
        "result": result,
        "quick": settings.quick,
    }
    Console().print(Markdown(format_markdown(report)))
    try:
        write_report(report, folder / f"{suite}.json")
        notes: list[str] = []
        with skip_failed_figure("The figure", notes):
            from figure import draw_report

            draw_report(result, format_machine(report["machine"]), folder)
    except OSError as error:
        raise NormlabError(
            f"{folder} cannot be written ({error.strerror or error}); give another with --out DIR."
        ) from error
    print(f"written  {folder}", *notes, sep="\n")


def format_command(suite: str, settings: Settings) -> str:
    """What measures this suite again, wherever its results go."""
    words = ["python", "scripts/bench/main.py", suite, *settings.overrides]
    if settings.shapes:
        words += ["--shapes", ",".join(settings.shapes)]
    for name in ("rounds", "threads"):
        if getattr(settings, name) is not None:
            words += [f"--{name}", str(getattr(settings, name))]
    return shlex.join([*words, *(["--quick"] if settings.quick else [])])


def describe_machine(settings: Settings, load: list[float]) -> dict[str, Any]:
    """The machine and the packages; `load` is the load average before and after."""
    import torch

    from normlab.training.hardware import package_versions, processor_name

    packages = {
        name: version(name)
        for name in ("transformers", "x-transformers", "tbparse")
        if find_spec(name.replace("-", "_"))
    }
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cpu": processor_name(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "threads": settings.threads or torch.get_num_threads(),
        "system": platform.platform(),
        "versions": package_versions() | packages,
        "load": load,
    }


if __name__ == "__main__":
    main()
