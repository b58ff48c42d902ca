"""What a claim's test was before its runs: a hash for every budget, with a date and a commit.

`claims.py --register` writes conf/claim/registered.json, which is committed before the runs. A
statement, margin, regime, rule or budget that is changed afterwards has another hash, and the page
says so.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from enum import Enum
from pathlib import Path
from typing import Any

from normlab.apps.claims.claim import Claim, Regime, Test
from normlab.apps.claims.judge import RULES_VERSION, RULES_VERSION_OF_KIND
from normlab.apps.claims.record import ClaimVerdict, read_record, write_record
from normlab.archive.record import short_commit

REGISTER_FILE = "registered.json"


@dataclass(frozen=True)
class Registration:
    """A claim as it was on a date: its hash by budget, and the commit of normlab's sources.

    The commit is empty if it is not known; `dirty` says that there were uncommitted changes.
    """

    hashes: dict[str, str]
    date: str
    commit: str
    dirty: bool = False


@dataclass(frozen=True)
class Register:
    """The registrations of every claim, by its name, the oldest first: the last one counts."""

    claims: dict[str, tuple[Registration, ...]] = field(default_factory=dict)

    def add(self, name: str, registration: Registration) -> "Register":
        """With this registration, unless the last one of the claim has the same hashes."""
        earlier = self.claims.get(name, ())
        if earlier and earlier[-1].hashes == registration.hashes:
            return self
        return Register({**self.claims, name: (*earlier, registration)})


def hash_claim(claim: Claim, definitions: Mapping[str, Any]) -> dict[str, str]:
    """Twelve hexadecimal digits for every budget.

    They are of all that decides the verdict: statement, test with its margin, regime, the rules
    where runs are judged, and what the experiment trains or the measurement measures at this budget
    (`definitions`). A key at its default value changes no hash.
    """
    test = {"kind": claim.kind, **_changed_fields(claim.test)}
    regime = None if claim.regime is None else _changed_fields(claim.regime)
    version = RULES_VERSION_OF_KIND.get(claim.kind, RULES_VERSION)
    rules = [] if claim.experiment is None else [version]
    hashes = {}
    for budget, definition in definitions.items():
        source = claim.experiment or claim.measurement
        # Not what only describes: setup, differs, unit, published, the date of the first verdict.
        text = json.dumps(
            [claim.statement, test, regime, source, definition, *rules],
            sort_keys=True,
            default=lambda value: value.value if isinstance(value, Enum) else str(value),
        )
        hashes[budget] = hashlib.sha256(text.encode()).hexdigest()[:12]
    return hashes


def _changed_fields(values: Test | Regime) -> dict[str, object]:
    """The fields that are not at their defaults."""
    return {
        key.name: value
        for key in fields(values)
        if (value := getattr(values, key.name)) != key.default
    }


def read_register(folder: Path) -> Register:
    """The register in a folder of claims; empty where there is none.

    Raises:
        NormlabError: it is damaged, or of a newer normlab.
    """
    try:
        return read_record(folder / REGISTER_FILE, Register, "restore it from version control")
    except FileNotFoundError:
        return Register()


def write_register(folder: Path, register: Register) -> Path:
    """Write the register atomically, and return its path. Raises NormlabError."""
    path = folder / REGISTER_FILE
    ordered = Register({name: register.claims[name] for name in sorted(register.claims)})
    write_record(path, ordered, "make it writable, for claims are registered there")
    return path


def mark_registration(
    verdict: ClaimVerdict,
    claim: Claim,
    definitions: Mapping[str, Any],
    register: Register,
    budget: str,
) -> ClaimVerdict:
    """The verdict with its hash, and with a sentence on when its test was registered."""
    digest = hash_claim(claim, definitions).get(budget, "")
    registrations = register.claims.get(verdict.name, ())
    sentence = _describe_registration(digest, registrations, budget)
    if claim.first_run is not None:
        sentence = (
            f"not preregistered: it was first judged on {claim.first_run}, before its test was "
            f"registered; {sentence}"
        )
    return replace(verdict, digest=digest, registration=sentence)


def _describe_registration(
    digest: str, registrations: tuple[Registration, ...], budget: str
) -> str:
    if not registrations:
        return "its test is not registered"
    last = registrations[-1]
    sources = f", with the sources of commit {short_commit(last.commit)}" if last.commit else ""
    sources += " and uncommitted changes" if last.commit and last.dirty else ""
    if digest and last.hashes.get(budget) == digest:
        return f"its test and this budget were registered on {last.date}{sources}"
    return f"its test or this budget has changed since it was registered on {last.date}{sources}"
