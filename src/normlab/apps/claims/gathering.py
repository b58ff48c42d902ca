"""Everything that claims rest on: runs and measurements, made where they are missing.

One study or measurement that fails leaves the others; its claims are told why.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from normlab.apps.claims.arms import NoBasisError, runs_of
from normlab.apps.claims.claim import Claim, Quantity
from normlab.apps.claims.evidence import Evidence, read_runs
from normlab.apps.claims.measuring import kept, measure
from normlab.apps.claims.studies import Place, Planned, planned, train
from normlab.apps.claims.verdicts import Measured
from normlab.errors import ConfigError, NormlabError

if TYPE_CHECKING:
    from rich.console import Console


@dataclass
class _Found:
    studies: dict[str, Planned] = field(default_factory=dict)
    measured: dict[str, Measured] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)  # by measurement


def gathered(
    claims: Mapping[str, Claim], place: Place, command: Callable[[str], str], terminal: "Console"
) -> dict[str, Evidence]:
    """What each claim rests on, by name; `command` gives what a user types for one claim.

    Raises:
        ConfigError: a claim names an arm that its study does not have; nothing was trained.
        NormlabError: what was kept is damaged.
    """
    experiments = dict.fromkeys(c.experiment for c in claims.values() if c.experiment)
    measurements = dict.fromkeys(c.measurement for c in claims.values() if c.measurement)
    found = _Found({name: planned(name, place) for name in experiments})
    for name, claim in claims.items():
        _check_arms(name, claim, found)
    for name in measurements:
        before = kept(name, place.budget, place.output_dir)
        if before:
            found.measured[name] = before
    missing = [name for name in measurements if name not in found.measured]
    _announce(terminal, len(claims), found, missing)
    for name in missing:  # before this machine is busy with training
        _measure(name, place, found, terminal)
    for name, study in found.studies.items():
        if study.pending:
            _train(name, place, terminal)
    return {name: _evidence(claim, found, command(name)) for name, claim in claims.items()}


def _check_arms(name: str, claim: Claim, found: _Found) -> None:
    """Know before anything is trained that a claim's arms are among the runs."""
    study = found.studies.get(str(claim.experiment))
    if study is None or study.problem:
        return
    runs = read_runs(study.folder, study.asked)
    for arm in claim.arms:
        try:
            there = runs_of(runs, arm)
        except NoBasisError as error:
            raise ConfigError(f"claim={name}: {error}.") from error
        if not there:
            arms = dict.fromkeys(
                f"norm={r.norm} placement={r.placement}" for r in study.asked.values()
            )
            raise ConfigError(
                f"claim={name}: no run of experiment={claim.experiment} has {arm}; its arms are "
                f"{', '.join(arms)}."
            )


def _announce(terminal: "Console", claims: int, found: _Found, missing: list[str]) -> None:
    runs = sum(len(study.asked) for study in found.studies.values())
    pending = sum(study.pending for study in found.studies.values())
    terminal.print(
        f"claims {claims}; runs {runs}, {pending} of them to train; measurements "
        f"{len(found.measured) + len(missing)}, {len(missing)} of them to make",
        markup=False,
    )
    for name, study in found.studies.items():
        if study.problem:
            terminal.print(f"note: {name}: {study.problem}", markup=False)


def _train(name: str, place: Place, terminal: "Console") -> None:
    terminal.print(f"\n$ {place.command(name)}", markup=False)
    problem = train(name, place)
    if problem:
        terminal.print(f"note: {problem}", markup=False)


def _measure(name: str, place: Place, found: _Found, terminal: "Console") -> None:
    terminal.print(f"measure  {name}", markup=False)
    try:
        found.measured[name] = measure(name, place.budget, place.output_dir)
    except NormlabError as error:
        found.problems[name] = str(error).rstrip(".")
    except Exception as error:  # whatever a measurement stumbles over: the others go on
        said = " ".join(str(error).split())
        found.problems[name] = f"{name} could not be measured ({type(error).__name__}: {said})"
    if name in found.problems:
        terminal.print(f"note: {found.problems[name]}", markup=False)


def _evidence(claim: Claim, found: _Found, command: str) -> Evidence:
    if claim.measurement is not None:
        measured = found.measured.get(claim.measurement)
        problem = found.problems.get(claim.measurement, "")
        return Evidence(measured=measured, problem=problem, command=command)
    study = found.studies[str(claim.experiment)]
    if study.problem:
        return Evidence(problem=study.problem, command=command)
    grows = getattr(claim.test, "quantity", None) is Quantity.growth
    return Evidence(read_runs(study.folder, study.asked, grows), command=command)
