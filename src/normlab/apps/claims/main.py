"""The command of claims: train and measure what is missing, judge by rule, print, draw, write."""

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from normlab.analysis.style import skip_failed_figure
from normlab.apps.claims.claim import Claim, load_claims
from normlab.apps.claims.judge import judge_claim
from normlab.apps.claims.measurements import check_measurement, machine_name
from normlab.apps.claims.page import print_verdicts, write_page
from normlab.apps.claims.record import ClaimsRecord, read_record, unwritable_error, write_record
from normlab.apps.claims.runs import StudyOptions, collect_claim_data
from normlab.config import conf_folder
from normlab.errors import CommandParser, ConfigError, report_user_errors
from normlab.terminal import open_terminal
from normlab.text import excerpt, suggest_closest
from normlab.training import stopping

if TYPE_CHECKING:
    from rich.console import Console

_KEYS = ("claim=", "budget=", "output_dir=")


@dataclass(frozen=True)
class ClaimsRequest:
    """What a command line asks for; `docs`, where it is not None, gets a page and its figure."""

    claims: dict[str, Claim]
    options: StudyOptions
    docs: Path | None

    @property
    def record_path(self) -> Path:
        """The verdicts of this budget, as JSON."""
        return self.options.output_dir / f"claims-{self.options.budget}.json"

    def command(self, name: str) -> str:
        """What does one claim again."""
        words = ["python", "scripts/claims.py", f"claim={name}", f"budget={self.options.budget}"]
        return shlex.join([*words, *self.options.flags])


def main(argv: Sequence[str] | None = None) -> None:
    """The command line of `scripts/claims.py`."""
    stopping.raise_on_signals()
    with report_user_errors():
        request = _parse_request(argv)
        try:
            judge_claims(request)
        except KeyboardInterrupt as stop:
            stopping.ignore_signals()
            sys.stderr.write("stopped; the same command goes on where it was\n")
            sys.exit(stopping.exit_code(stop))


def judge_claims(request: ClaimsRequest) -> ClaimsRecord:
    """Train and measure what is missing, judge, print and write.

    Raises:
        NormlabError: results cannot be written, or what was written is damaged.
    """
    options = request.options
    _make_writable(options.output_dir)
    # Verdicts of other claims stay; a damaged file must stop the command before it trains.
    try:
        earlier = read_record(request.record_path, ClaimsRecord)
    except FileNotFoundError:
        earlier = None
    terminal = open_terminal()
    data = collect_claim_data(request.claims, options, request.command, terminal)
    origin = {"date": datetime.now(UTC).date().isoformat(), "machine": machine_name()}
    verdicts = tuple(
        judge_claim(name, claim, data[name], **origin) for name, claim in request.claims.items()
    )
    record = ClaimsRecord(options.budget, verdicts)
    merged = earlier.update(record) if earlier else record
    write_record(request.record_path, merged)
    print_verdicts(terminal, record)
    try:
        _write_figures(request, merged, terminal)
    except OSError as error:
        raise unwritable_error(request.docs or options.output_dir, error) from error
    return record


def _write_figures(request: ClaimsRequest, record: ClaimsRecord, terminal: "Console") -> None:
    left_out: list[str] = []
    with skip_failed_figure("The figure", left_out):
        from normlab.apps.claims.figure import draw_claims

        png, _ = draw_claims(record, request.record_path.parent, request.record_path.stem)
        terminal.print(f"figure   {png}", markup=False)
    terminal.print(f"numbers  {request.record_path}", markup=False)
    if request.docs is not None:
        record = record.select(load_claims())  # not those of another folder, judged earlier
        with skip_failed_figure("The figure of the page", left_out):
            draw_claims(record, request.docs / "figures")
            (request.docs / "figures" / "claims.svg").unlink()  # the page shows one of the two
        write_page(request.docs / "claims.md", record)
        terminal.print(f"page     {request.docs / 'claims.md'}", markup=False)
    for sentence in left_out:
        terminal.print(f"note: {sentence}", markup=False)


def _parse_request(argv: Sequence[str] | None) -> ClaimsRequest:
    """The request of a command line, everything in it checked. Raises ConfigError."""
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
    arguments: argparse.Namespace = parser.parse_intermixed_args(argv)
    values = {"budget": "quick", "output_dir": "outputs", "claim": ""}
    for word in arguments.overrides:
        key, sign, value = word.partition("=")
        if key + sign not in _KEYS or not value:
            raise ConfigError(
                f"{excerpt(word)} is not allowed; {suggest_closest(f'{key}=', _KEYS)}give "
                f"{', '.join(f'{key}…' for key in _KEYS)}."
            )
        values[key] = value
    budgets = sorted(path.stem for path in (conf_folder() / "budget").glob("*.yaml"))
    if (budget := values["budget"]) not in budgets:
        raise ConfigError(
            f"budget={excerpt(budget)} is not an option; {suggest_closest(budget, budgets)}"
            f"budget has {', '.join(budgets)}."
        )
    names = [name.strip() for name in values["claim"].split(",") if name.strip()]
    if values["claim"] and not names:
        raise ConfigError(f"claim={values['claim']} names no claim; leave it out for all.")
    docs = conf_folder().parent / "docs" if arguments.docs else None
    if docs is not None and arguments.config_dir is not None:
        raise ConfigError(
            f"--docs writes the page of the claims in {conf_folder() / 'claim'}; leave out "
            f"--config-dir {arguments.config_dir}, whose claims are in the terminal and the JSON."
        )
    claims = load_claims(names, arguments.config_dir)
    for name, claim in claims.items():
        if claim.measurement is not None:
            check_measurement(claim.measurement, name)
    if docs is not None and not docs.is_dir():
        raise ConfigError(f"--docs needs a checkout of normlab, and {docs} is not there.")
    output_dir = Path(values["output_dir"]) / "claims"
    return ClaimsRequest(claims, StudyOptions(budget, output_dir, arguments.config_dir), docs)


def _make_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable_error(folder, error) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise unwritable_error(folder, PermissionError(13, os.strerror(13)))
