"""The command of claims: train and measure what is missing, judge by rule, print, draw, write."""

import argparse
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from normlab.analysis.style import skip_failed_figure
from normlab.apps.claims.claim import GROUP, Claim, load_claims
from normlab.apps.claims.judge import judge_claim
from normlab.apps.claims.measurements import (
    check_measurement,
    define_measurement,
    machine_name,
    today,
)
from normlab.apps.claims.page import print_verdicts, write_pages
from normlab.apps.claims.record import (
    DOCS_REMEDY,
    EXPORT_REMEDY,
    OUTPUT_REMEDY,
    ClaimsRecord,
    combine_budgets,
    merge_records,
    read_record,
    unwritable_error,
    write_record,
)
from normlab.apps.claims.regime import check_attainable
from normlab.apps.claims.registry import (
    Register,
    Registration,
    hash_claim,
    mark_registration,
    read_register,
    write_register,
)
from normlab.apps.claims.runs import (
    PlannedStudy,
    StudyOptions,
    check_arms,
    collect_claim_data,
    export_claim_data,
    plan_study,
    read_claim_data,
)
from normlab.archive.files import suggest_closest_path
from normlab.archive.record import GitState
from normlab.config import conf_folder
from normlab.errors import CommandParser, ConfigError, report_user_errors
from normlab.study.plan import check_repeated_keys
from normlab.terminal import open_terminal
from normlab.text import excerpt, suggest_closest
from normlab.training import stopping

if TYPE_CHECKING:
    from rich.console import Console

_KEYS = ("claim=", "budget=", "output_dir=")
BUDGETS = ("quick", "standard", "full")  # by size


@dataclass(frozen=True)
class ClaimsRequest:
    """What a command line asks for; `docs`, where it is not None, gets a page and its figure."""

    claims: dict[str, Claim]
    options: StudyOptions
    docs: Path | None
    register: bool = False
    export: Path | None = None

    @property
    def docs_record_path(self) -> Path | None:
        """The verdicts of the pages, beside them: they outlive the machine and its outputs."""
        return self._find_docs_record(self.options.budget)

    def _find_docs_record(self, budget: str) -> Path | None:
        return self.docs and self.docs / "claims" / f"verdicts-{budget}.json"

    def read_page_verdicts(self) -> ClaimsRecord:
        """What the pages show: the stored verdicts of all budgets, of each claim the largest's.

        Raises:
            NormlabError: a file is damaged.
        """
        paths = [path for budget in BUDGETS if (path := self._find_docs_record(budget))]
        records = [read_record(path, ClaimsRecord) for path in paths if path.is_file()]
        return combine_budgets(records)

    def read_earlier_verdicts(self) -> ClaimsRecord | None:
        """The latest verdicts of this budget, from the pages and the outputs; None without any.

        Raises:
            NormlabError: a file is damaged.
        """
        paths = [path for path in (self.docs_record_path, self.record_path) if path is not None]
        return merge_records([read_record(path, ClaimsRecord) for path in paths if path.is_file()])

    @property
    def claims_folder(self) -> Path:
        """The folder of the claims' files, where they are registered."""
        return (self.options.config_dir or conf_folder()) / GROUP

    @property
    def record_path(self) -> Path:
        """The verdicts of this budget, as JSON."""
        return self.options.output_dir / f"claims-{self.options.budget}.json"

    def command(self, name: str) -> str:
        """What does one claim again, trained and measured anew."""
        words = ["python", "scripts/claims.py", f"claim={name}", f"budget={self.options.budget}"]
        return shlex.join([*words, *self.options.flags])

    def read_register(self) -> Register:
        """The registrations of normlab's claims, and of those of the user's own folder."""
        folders = dict.fromkeys([conf_folder() / GROUP, self.claims_folder])
        return Register(
            {
                name: registrations
                for folder in folders
                for name, registrations in read_register(folder).claims.items()
            }
        )


def main(argv: Sequence[str] | None = None) -> None:
    """The command line of `scripts/claims.py`."""
    stopping.raise_on_signals()
    with report_user_errors():
        request = _parse_request(argv)
        try:
            if request.register:
                register_claims(request)
            else:
                judge_claims(request)
        except KeyboardInterrupt as stop:
            # A second signal would only interrupt this sentence.
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
    request.read_earlier_verdicts()  # a damaged file must stop the command before it trains
    register = request.read_register()
    terminal = open_terminal()
    claims = request.claims
    if options.source is None:
        data = collect_claim_data(claims, options, request.command, terminal)
    else:
        data = read_claim_data(claims, options, options.source, request.command)
    origin = {"date": today(), "machine": machine_name()}
    verdicts = tuple(
        mark_registration(
            judge_claim(name, claim, data[name], **origin),
            claim,
            data[name].definitions,
            register,
            options.budget,
        )
        for name, claim in claims.items()
    )
    record = ClaimsRecord(options.budget, verdicts)
    # Verdicts of other claims stay; another command may have written some since the first reading.
    earlier = request.read_earlier_verdicts()
    merged = earlier.update(record) if earlier else record
    write_record(request.record_path, merged)
    print_verdicts(terminal, record)
    stored = {verdict.name: verdict for verdict in merged.verdicts}
    for verdict in record.verdicts:
        if verdict.lacks_data and not (earlier_verdict := stored[verdict.name]).lacks_data:
            terminal.print(
                f"note: {verdict.name}: the verdict of {earlier_verdict.date} stays "
                f"({earlier_verdict.label}), for its data are not complete here "
                f"({verdict.reason})",
                markup=False,
            )
    if request.export is not None:
        remedy = EXPORT_REMEDY if request.docs is None else DOCS_REMEDY
        paths, left_out = export_claim_data(claims, data, options, request.export, remedy)
        for path in paths:
            terminal.print(f"export   {path}", markup=False)
        for experiment in left_out:
            terminal.print(
                f"note: {experiment}: its runs are not exported, for some have no result yet",
                markup=False,
            )
    try:
        _write_figures(request, merged, terminal)
    except OSError as error:
        remedy = OUTPUT_REMEDY if request.docs is None else DOCS_REMEDY
        raise unwritable_error(request.docs or options.output_dir, error, remedy) from error
    return record


def register_claims(request: ClaimsRequest) -> Register:
    """Write the hashes of the claims into the register beside their files; nothing is trained.

    Raises:
        ConfigError: an experiment cannot be composed, has no run of an arm that a claim names, or
            reaches its regime or its margin nowhere.
        NormlabError: the register is damaged, or cannot be written.
    """
    from normlab.training.hardware import git_state

    state = git_state() or GitState(commit="")
    register = earlier = read_register(request.claims_folder)
    experiments = dict.fromkeys(claim.experiment for claim in request.claims.values())
    studies = {name: _plan_registration(name, request.options) for name in experiments if name}
    for name, claim in request.claims.items():
        if claim.experiment is None:
            definitions: Mapping[str, object] = define_measurement(str(claim.measurement))
        else:
            study = studies[claim.experiment]
            if study.problem:
                raise ConfigError(f"claim={name} cannot be registered: {study.problem}.")
            check_arms(name, claim, study, request.options.budget)
            check_attainable(name, claim, study.reach, study.losses)
            definitions = study.definitions
        hashes = hash_claim(claim, definitions)
        register = register.add(name, Registration(hashes, today(), state.commit, state.dirty))
    changed = [
        name for name in register.claims if register.claims[name] != earlier.claims.get(name)
    ]
    path = write_register(request.claims_folder, register)
    terminal = open_terminal()
    for name in changed:
        terminal.print(f"registered  {name}", markup=False)
    same = len(request.claims) - len(changed)
    terminal.print(f"{path}: {len(changed)} registered, {same} as before; commit it", markup=False)
    return register


def _plan_registration(experiment: str, options: StudyOptions) -> PlannedStudy:
    """The study as it is composed, with its data where they are here: a test needs none."""
    study = plan_study(experiment, options)
    return plan_study(experiment, options, with_data=False) if study.problem else study


def _write_figures(request: ClaimsRequest, record: ClaimsRecord, terminal: "Console") -> None:
    left_out: list[str] = []
    with skip_failed_figure("The figure", left_out):
        from normlab.apps.claims.figure import draw_claims
        from normlab.apps.claims.lengths_figure import draw_lengths

        folder, name = request.record_path.parent, request.record_path.stem
        figure_paths = draw_claims(record, folder, name)
        figure_paths += draw_lengths(record, folder, f"{name}-lengths")
        for path in figure_paths:
            if path.suffix == ".png":
                terminal.print(f"figure   {path}", markup=False)
    terminal.print(f"numbers  {request.record_path}", markup=False)
    if request.docs is not None and request.docs_record_path is not None:
        record = record.select(load_claims())  # not those of another folder, judged earlier
        write_record(request.docs_record_path, record, DOCS_REMEDY)
        record = request.read_page_verdicts()
        figures = request.docs / "figures"
        with skip_failed_figure("The figures of the page", left_out):
            claims, _ = record.split_roles()
            figure_paths = [*draw_claims(claims, figures), *draw_lengths(claims, figures)]
            for path in figure_paths:
                if path.suffix == ".svg":  # the page shows one of the two
                    path.unlink()
        for path in write_pages(request.docs, record):
            terminal.print(f"page     {path}", markup=False)
    for sentence in left_out:
        terminal.print(f"note: {sentence}", markup=False)


def _parse_request(argv: Sequence[str] | None) -> ClaimsRequest:
    """The request of a command line, everything in it checked. Raises ConfigError."""
    parser = CommandParser(
        prog="claims.py",
        keys=[key.rstrip("=") for key in _KEYS],
        description="Put published claims to the test: train and measure what is missing, and say "
        "reproduced, not reproduced, refuted or cannot tell, by rule.",
        epilog="example: python scripts/claims.py claim=rmsnorm_parity,kaiming budget=quick",
    )
    parser.add_argument(
        "overrides", nargs="*", help="claim=a,b (default: all), budget=quick, output_dir=outputs"
    )
    parser.add_argument("--config-dir", type=Path, help="folder that holds claim/<name>.yaml")
    parser.add_argument(
        "--docs",
        action="store_true",
        help="also write docs/claims.md, docs/checks.md, their figures and the runs",
    )
    parser.add_argument(
        "--register",
        action="store_true",
        help="write the hashes of the claims into registered.json beside them, and train nothing",
    )
    parser.add_argument(
        "--export",
        type=Path,
        metavar="DIR",
        help="write the runs and measurements that the verdicts rest on, without checkpoints",
    )
    parser.add_argument(
        "--from",
        dest="source",
        type=Path,
        metavar="DIR",
        help="judge what --export has written, and train nothing",
    )
    arguments: argparse.Namespace = parser.parse_intermixed_args(argv)
    budget, names, folder = _read_values(arguments.overrides)
    docs = _find_docs(arguments)
    claims = load_claims(names, arguments.config_dir)
    for name, claim in claims.items():
        if claim.measurement is not None:
            check_measurement(claim.measurement, name)
    _check_flags(arguments)
    options = StudyOptions(budget, folder / "claims", arguments.config_dir, arguments.source)
    export = arguments.export
    if docs is not None and arguments.source is None and export is None:
        export = docs / "claims" / "runs"  # the page's verdicts can be recomputed from there
    request = ClaimsRequest(claims, options, docs, arguments.register, export)
    if arguments.register:
        request = replace(request, claims=_select_own_claims(request, names))
    return request


def _read_values(overrides: Sequence[str]) -> tuple[str, list[str], Path]:
    """The budget, the names of claims (none: all) and the output folder. Raises ConfigError."""
    check_repeated_keys(overrides, single=("budget", "output_dir"))
    values = {"budget": "quick", "output_dir": "outputs", "claim": ""}
    for word in overrides:
        key, sign, value = word.partition("=")
        if key + sign not in _KEYS or not value:
            raise ConfigError(
                f"{excerpt(word)} is not allowed; {suggest_closest(f'{key}=', _KEYS)}give "
                f"{', '.join(f'{key}…' for key in _KEYS)}."
            )
        values[key] = value
    if (budget := values["budget"]) not in BUDGETS:
        raise ConfigError(
            f"budget={excerpt(budget)} is not an option; {suggest_closest(budget, BUDGETS)}"
            f"budget has {', '.join(BUDGETS)}."
        )
    names = [name.strip() for name in values["claim"].split(",") if name.strip()]
    if values["claim"] and not names:
        raise ConfigError(f"claim={values['claim']} names no claim; leave it out for all.")
    return budget, names, Path(values["output_dir"])


def _find_docs(arguments: argparse.Namespace) -> Path | None:
    """The folder of the pages that --docs writes; None without it. Raises ConfigError."""
    if not arguments.docs:
        return None
    docs = conf_folder().parent / "docs"
    if arguments.config_dir is not None:
        raise ConfigError(
            f"--docs writes the page of the claims in {conf_folder() / 'claim'}; leave out "
            f"--config-dir {arguments.config_dir}, whose claims are in the terminal and the JSON."
        )
    if not docs.is_dir():
        raise ConfigError(f"--docs needs a checkout of normlab, and {docs} does not exist.")
    return docs


def _select_own_claims(request: ClaimsRequest, names: Sequence[str]) -> dict[str, Claim]:
    """Those whose files are where they are registered. Raises ConfigError: a named one is not."""
    folder = request.claims_folder
    own = {
        name: claim for name, claim in request.claims.items() if (folder / f"{name}.yaml").is_file()
    }
    if missing := [name for name in names if name not in own] or ([] if own else ["*"]):
        raise ConfigError(
            f"{folder / f'{missing[0]}.yaml'} does not exist, and --register writes the claims of "
            f"that folder alone; leave out --config-dir for normlab's own."
        )
    return own


def _check_flags(arguments: argparse.Namespace) -> None:
    """Refuse flags that contradict each other. Raises ConfigError."""
    others = [
        flag
        for flag, value in (
            ("--docs", arguments.docs),
            ("--export", arguments.export),
            ("--from", arguments.source),
        )
        if value
    ]
    if arguments.register and others:
        raise ConfigError(
            f"--register judges nothing, so it cannot go with {' and '.join(others)}; give it "
            f"alone, before the runs."
        )
    if arguments.source is not None and arguments.export is not None:
        raise ConfigError("--from and --export are a folder to read and one to write; give one.")
    if arguments.source is not None and not arguments.source.is_dir():
        raise ConfigError(
            f"--from {arguments.source} is not a folder; {suggest_closest_path(arguments.source)}"
            f"give one that --export has written, as docs/claims/runs."
        )


def _make_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable_error(folder, error) from error
    # mkdir accepts a folder that exists and is read-only; the error would come after the training.
    if not os.access(folder, os.W_OK | os.X_OK):
        raise unwritable_error(folder, PermissionError(13, os.strerror(13)))
