"""The door of claims: run what is missing, judge by rule, print, draw, and write the page."""

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from normlab import config
from normlab.analysis.style import skip_failed_figure
from normlab.apps.claims.claim import Claim
from normlab.apps.claims.config import claims
from normlab.apps.claims.machine import machine
from normlab.apps.claims.measuring import check_measurement
from normlab.apps.claims.studies import Place, check_budget
from normlab.apps.claims.verdicts import Report
from normlab.errors import CommandParser, ConfigError, NormlabError, report_user_errors
from normlab.text import excerpt, suggest_closest

if TYPE_CHECKING:
    from rich.console import Console

    from normlab.apps.claims.evidence import Evidence

FOLDER = "claims"
_KEYS = ("claim=", "budget=", "output_dir=")


def main(argv: Sequence[str] | None = None) -> None:
    """The command line of `scripts/claims.py`."""
    from normlab.training import stopping

    stopping.raise_on_signals()
    with report_user_errors():
        options = _parser().parse_intermixed_args(argv)
        try:
            carry_out(_asked(options))
        except KeyboardInterrupt as stop:
            stopping.ignore_signals()
            sys.stderr.write("stopped; the same command goes on where it was\n")
            sys.exit(stopping.exit_code(stop))


@dataclass(frozen=True)
class Asked:
    """What a command line asks for."""

    claims: dict[str, Claim]
    place: Place
    docs: Path | None

    @property
    def folder(self) -> Path:
        """Where studies, measurements and verdicts are."""
        return self.place.output_dir

    @property
    def results(self) -> Path:
        """The verdicts of this budget, as JSON."""
        return self.folder / f"claims-{self.place.budget}.json"

    def command(self, name: str) -> str:
        """What does one claim again."""
        words = ["python", "scripts/claims.py", f"claim={name}", f"budget={self.place.budget}"]
        own = self.place.config_dir
        return shlex.join([*words, *([] if own is None else ["--config-dir", str(own)])])


def carry_out(asked: Asked) -> Report:
    """Train and measure what is missing, and judge.

    Raises:
        NormlabError: results cannot be written, or what was written is damaged.
    """
    from normlab.apps.claims.gathering import gathered
    from normlab.apps.claims.show import show
    from normlab.terminal import open_terminal

    _make(asked.folder)
    before = _before(asked.results)
    terminal = open_terminal()
    evidence = gathered(asked.claims, asked.place, asked.command, terminal)
    report = _judged(asked, evidence)
    whole = before | report if before else report
    try:
        whole.write(asked.results)
    except OSError as error:
        raise _unwritable(asked.results, error) from error
    show(terminal, report)
    _draw(asked, whole, terminal)
    return report


def _judged(asked: Asked, evidence: "dict[str, Evidence]") -> Report:
    from normlab.apps.claims.judge import judge

    day = datetime.now(UTC).date().isoformat()
    return Report(
        asked.place.budget,
        tuple(
            judge(name, claim, evidence[name], date=day, machine=machine())
            for name, claim in asked.claims.items()
        ),
    )


def _draw(asked: Asked, report: Report, terminal: "Console") -> None:
    from normlab.apps.claims.page import write

    left_out: list[str] = []
    try:
        with skip_failed_figure("The figure", left_out):
            from normlab.apps.claims.figure import draw

            png, _ = draw(report, asked.folder, f"claims-{asked.place.budget}")
            terminal.print(f"figure   {png}", markup=False)
        terminal.print(f"numbers  {asked.results}", markup=False)
        if asked.docs is not None:
            report = report.only(claims())  # not those of another folder, judged before
            with skip_failed_figure("The figure of the page", left_out):
                draw(report, asked.docs / "figures")
                (asked.docs / "figures" / "claims.svg").unlink()  # the page shows one of the two
            write(asked.docs / "claims.md", report)
            terminal.print(f"page     {asked.docs / 'claims.md'}", markup=False)
        for sentence in left_out:
            terminal.print(f"note: {sentence}", markup=False)
    except OSError as error:
        raise _unwritable(asked.docs or asked.folder, error) from error


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="claims.py",
        description="Put published claims to the test: train and measure what is missing, and say "
        "reproduced, not reproduced, refuted or cannot tell, by rule.",
        epilog="example: python scripts/claims.py claim=rmsnorm_parity,kaiming budget=quick",
    )
    parser.add_argument(
        "overrides", nargs="*", help="claim=a,b (default: all), budget=quick, output_dir=outputs"
    )
    parser.add_argument("--config-dir", type=Path, help="folder that holds claim/<name>.yaml")
    parser.add_argument(
        "--docs", action="store_true", help="write docs/claims.md and docs/figures/claims.png too"
    )
    return parser


def _asked(options: argparse.Namespace) -> Asked:
    given = {"budget": "quick", "output_dir": "outputs", "claim": ""}
    for word in options.overrides:
        key, sign, value = word.partition("=")
        if key + sign not in _KEYS or not value:
            raise ConfigError(
                f"{excerpt(word)} is not allowed; {suggest_closest(f'{key}=', _KEYS)}give "
                f"{', '.join(f'{one}…' for one in _KEYS)}."
            )
        given[key] = value
    check_budget(given["budget"])
    names = [name.strip() for name in given["claim"].split(",") if name.strip()]
    if given["claim"] and not names:
        raise ConfigError(f"claim={given['claim']} names no claim; leave it out for all.")
    docs = config.conf_folder().parent / "docs" if options.docs else None
    if docs is not None and options.config_dir is not None:
        raise ConfigError(
            f"--docs writes the page of the claims in {config.conf_folder() / 'claim'}; leave out "
            f"--config-dir {options.config_dir}, whose claims are in the terminal and the JSON."
        )
    found = claims(names, options.config_dir)
    for name, claim in found.items():
        if claim.measurement is not None:
            check_measurement(claim.measurement, name)
    if docs is not None and not docs.is_dir():
        raise ConfigError(f"--docs needs a checkout of normlab, and {docs} is not there.")
    place = Place(given["budget"], Path(given["output_dir"]) / FOLDER, options.config_dir)
    return Asked(found, place, docs)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise _unwritable(folder, PermissionError(13, os.strerror(13)))


def _before(results: Path) -> Report | None:
    """The verdicts that are there, so that those not asked for now stay; known before training."""
    try:
        return Report.read(results)
    except FileNotFoundError:
        return None


def _unwritable(path: Path, error: OSError) -> NormlabError:
    return NormlabError(
        f"{path} cannot be written ({error.strerror or error}); give another place with "
        f"output_dir=…"
    )
