"""The door of the benches: what is asked, one suite after another, tables, JSON and figures."""

import argparse
import importlib
import importlib.util
import os
import platform
import shlex
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from normlab.analysis.style import without_figure
from normlab.bench.result import Machine, Report, Result, Settings
from normlab.errors import CommandParser, ConfigError, NormlabError, report_user_errors

if TYPE_CHECKING:
    from rich.console import Console

SUITES = ("step", "profile", "norms", "study", "read", "start", "scaling")
# Where a suite is, unless in the module of its name, which is then what it needs.
_ELSEWHERE = {"read": "reading"}
# What key=value and --shapes can change; the other suites measure what they measure.
_OVERRIDABLE = ("step", "profile", "scaling")
_SHAPED = ("step", "profile", "norms", "study", "scaling")
PLACE = Path("outputs") / "bench"
_MOST_ROUNDS = 1000
# What the suite `scaling` varies by itself.
_VARIED = ("model.depth", "model.width", "model.heads", "model.context", "data.vocabulary")
_QUIET_SECONDS = 10.0  # between two lines where there is no terminal


def main(argv: Sequence[str] | None = None) -> None:
    """The command line of `scripts/bench.py`."""
    with report_user_errors():
        options = _parser().parse_intermixed_args(argv)
        suites, settings = _asked(options)
        try:
            for suite in suites:
                measure(suite, settings, options.out / suite, _command(suite, settings))
        except KeyboardInterrupt:
            sys.stderr.write("stopped; the suites before are there, of this one nothing is\n")
            sys.exit(130)
        if options.docs:
            from normlab.bench.docs import refresh

            sys.stdout.write(f"written  {refresh(options.out)}\n")


def measure(suite: str, settings: Settings, folder: Path, command: str) -> Report:
    """Measure a suite, print it and write `<suite>.json`, `.png` and `.svg` into the folder.

    Raises:
        NormlabError: it cannot be measured, or its results cannot be written.
    """
    from normlab.bench.show import show
    from normlab.terminal import open_terminal

    console = open_terminal(150)
    _check_place(folder)
    load, began = os.getloadavg()[0], time.perf_counter()
    result = _run(suite, settings, console)
    seconds = time.perf_counter() - began
    machine = _machine(settings, (load, os.getloadavg()[0]))
    report = Report(command, seconds, machine, result, settings.quick)
    show(console, report)
    files, left_out = _write(report, folder)
    for word, text in [*files, *(("note", sentence) for sentence in left_out)]:
        console.print(f"{word:8} {text}", markup=False, soft_wrap=True)
    return report


def _command(suite: str, settings: Settings) -> str:
    """What measures this suite again, wherever its results go."""
    words = ["python", "scripts/bench.py", suite, *settings.overrides]
    if settings.shapes:
        words += ["--shapes", ",".join(settings.shapes)]
    for name in ("rounds", "threads"):
        if getattr(settings, name) is not None:
            words += [f"--{name}", str(getattr(settings, name))]
    return shlex.join([*words, *(["--quick"] if settings.quick else [])])


def _run(suite: str, settings: Settings, console: "Console") -> Result:
    module = importlib.import_module(f"normlab.bench.{_ELSEWHERE.get(suite, suite)}")
    from dataclasses import replace

    spoken = time.monotonic()

    def tell(said: str) -> None:
        nonlocal spoken
        status.update(f"{suite}: {said}")
        if not console.is_terminal and time.monotonic() - spoken > _QUIET_SECONDS:
            spoken = time.monotonic()
            sys.stderr.write(f"{suite}: {said}\n")

    with console.status(f"{suite} …") as status:
        result: Result = module.run(replace(settings, progress=tell))
    return result


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="bench.py",
        description="Measure normlab against what a user would pick instead, in turn, in one run.",
        epilog="example: python scripts/bench.py step norms --quick",
    )
    parser.add_argument(
        "suites",
        nargs="*",
        metavar="suite",
        help=f"{', '.join(SUITES)} or all; with key=value, of normlab's own runs "
        f"({', '.join(_OVERRIDABLE)})",
    )
    parser.add_argument("--rounds", type=int, help="how often each contender is measured")
    parser.add_argument("--quick", action="store_true", help="fewer rounds and sizes: for a look")
    parser.add_argument("--threads", type=int, help="of every contender (default: torch's)")
    parser.add_argument(
        "--shapes", default="", help=f"sizes to measure, a,b ({', '.join(_SHAPED)})"
    )
    parser.add_argument("--out", type=Path, default=PLACE, help=f"default: {PLACE}/<suite>")
    parser.add_argument(
        "--docs", action="store_true", help="write what --out holds into docs/performance.md"
    )
    return parser


def _asked(options: argparse.Namespace) -> tuple[list[str], Settings]:
    """The suites and the settings of a command line.

    Raises:
        ConfigError: it asks for what is not there.
    """
    overrides = [word for word in options.suites if "=" in word]
    names = [word for word in options.suites if "=" not in word]
    for name in names:
        if name not in (*SUITES, "all"):
            raise ConfigError(f"{name} is no suite; choose from {', '.join(SUITES)}, or all.")
        if name != "all" and not _is_there(name):
            raise ConfigError(f"{name} is not in this normlab; choose another suite.")
    if not names and not options.docs:
        raise ConfigError(f"no suite was given; choose from {', '.join(SUITES)}, or all.")
    if options.rounds is not None and not 1 <= options.rounds <= _MOST_ROUNDS:
        raise ConfigError(
            f"--rounds {options.rounds} is not allowed; it must be from 1 to {_MOST_ROUNDS}."
        )
    cores = os.cpu_count() or 1
    if options.threads is not None and not 1 <= options.threads <= cores:
        raise ConfigError(
            f"--threads {options.threads} is not allowed; it must be from 1 to {cores}, the cores "
            f"of this machine."
        )
    suites = [suite for suite in SUITES if suite in names or "all" in names]
    suites = [suite for suite in suites if _is_there(suite)]
    shapes = tuple(name for name in options.shapes.split(",") if name)
    _check_meant("--shapes", shapes, suites, _SHAPED)
    _check_meant("key=value", overrides, suites, _OVERRIDABLE)
    for word in overrides:
        if "scaling" in suites and word.partition("=")[0] in _VARIED:
            raise ConfigError(f"{word} is what scaling varies by itself; leave it out.")
    if overrides:
        from normlab.bench.compose import specified

        specified(overrides)
    return suites, Settings(
        options.quick, options.rounds, options.threads, shapes, tuple(overrides)
    )


def _check_meant(
    what: str, given: Sequence[str], suites: Sequence[str], able: Sequence[str]
) -> None:
    """Refuse to pass over something that was asked for."""
    others = [suite for suite in suites if suite not in able]
    if given and others:
        raise ConfigError(
            f"{what} means nothing to the suite {others[0]}; give it with {', '.join(able)} only."
        )


def _is_there(suite: str) -> bool:
    return importlib.util.find_spec(f"normlab.bench.{suite}") is not None


def _check_place(folder: Path) -> None:
    """A place that cannot be written is known before minutes are spent."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK | os.X_OK)
    except OSError:
        writable = False
    if not writable:
        raise ConfigError(f"{folder} cannot be written; give another place with --out DIR.")


def _machine(settings: Settings, load: tuple[float, ...]) -> Machine:
    from importlib.metadata import PackageNotFoundError, version

    import torch

    from normlab.training.hardware import package_versions

    found = package_versions()
    for name in ("transformers", "x-transformers"):
        try:
            found = found | {name: version(name)}
        except PackageNotFoundError:
            continue
    return Machine(
        date=datetime.now(UTC).date().isoformat(),
        cpu=_processor(),
        cores=os.cpu_count() or 1,
        memory_gib=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        threads=settings.threads or torch.get_num_threads(),
        system=platform.platform(),
        versions=found,
        load=load,
    )


def _processor() -> str:
    import torch

    name = torch.cpu.get_capabilities().get("cpu_name") or platform.processor() or "CPU"
    return str(name)


def _write(report: Report, folder: Path) -> tuple[list[tuple[str, Path]], list[str]]:
    """The files by what they are, and a sentence where the figure could not be drawn."""
    numbers = folder / f"{report.result.suite}.json"
    files, left_out = [("numbers", numbers)], list[str]()
    try:
        report.write(numbers)
        with without_figure("The figure", left_out):
            from normlab.bench.figure import draw

            files.insert(0, ("figure", draw(report, folder)[0]))
    except OSError as error:
        raise NormlabError(
            f"{folder} cannot be written ({error.strerror or error}); give another with --out DIR."
        ) from error
    return files, left_out
