"""A hash says whether anything that decides a verdict has changed; the register, since when."""

from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from claim_evidence import judge_claim, make_claim
from normlab.apps.claims import registry
from normlab.apps.claims.claim import Lower, Quantity, Regime, Value
from normlab.apps.claims.registry import (
    Register,
    Registration,
    hash_claim,
    mark_registration,
    read_register,
    write_register,
)
from normlab.apps.claims.runs import ClaimData
from normlab.errors import NormlabError

BUDGETS = {"quick": {"arms": ["norm=dyt"], "values": {"seed": "0,1,2"}, "run": "12345678"}}
CLAIM = make_claim(
    Lower("norm=rmsnorm", "norm=layernorm", 0.02),
    experiment="claims_text",
    regime=Regime(1000, "a paper"),
)


@pytest.mark.parametrize(
    ("claim", "budgets"),
    [
        (replace(CLAIM, statement="B is so."), BUDGETS),
        (replace(CLAIM, test=Lower("norm=rmsnorm", "norm=layernorm", 0.03)), BUDGETS),
        (replace(CLAIM, test=Lower("norm=rmsnorm", "norm=dyt", 0.02)), BUDGETS),
        (replace(CLAIM, regime=Regime(500, "a paper")), BUDGETS),
        (replace(CLAIM, regime=None), BUDGETS),
        (replace(CLAIM, experiment="claims_depth"), BUDGETS),
        (CLAIM, {"quick": {**BUDGETS["quick"], "values": {"seed": "0,1"}}}),
        (CLAIM, {"quick": {**BUDGETS["quick"], "run": "87654321"}}),
    ],
)
def test_whatever_decides_a_verdict_is_in_the_hash(claim: object, budgets: dict) -> None:
    changed = hash_claim(claim, budgets)  # type: ignore[arg-type]
    assert changed.keys() == {"quick"}
    assert changed != hash_claim(CLAIM, BUDGETS)


def test_what_only_describes_is_not_in_the_hash() -> None:
    described = replace(
        CLAIM, setup="elsewhere", differs="all", unit="nats", first_run="2026-11-24"
    )
    assert hash_claim(described, BUDGETS) == hash_claim(CLAIM, BUDGETS)


def test_the_rules_are_in_the_hash_where_runs_are_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = make_claim(Value("std", low=0.5), measurement="linear_stack")
    before = hash_claim(CLAIM, BUDGETS), hash_claim(measured, BUDGETS)
    monkeypatch.setitem(registry.RULES_VERSION_OF_KIND, CLAIM.kind, 9)
    assert hash_claim(CLAIM, BUDGETS) != before[0]
    assert hash_claim(measured, BUDGETS) == before[1]


def test_a_new_key_at_its_default_changes_no_hash() -> None:
    @dataclass
    class Lower:
        a: str
        b: str
        margin: float
        quantity: Quantity = Quantity.final
        new: int = 0

    larger = replace(CLAIM, test=Lower("norm=rmsnorm", "norm=layernorm", 0.02))  # type: ignore[arg-type]
    assert hash_claim(larger, BUDGETS) == hash_claim(CLAIM, BUDGETS)


def test_a_register_keeps_every_registration_that_differs(tmp_path: Path) -> None:
    first = Registration({"quick": "aaa"}, "2026-11-26", "c" * 40)
    second = Registration({"quick": "bbb"}, "2026-11-27", "")
    later = replace(first, date="2026-11-28")
    register = Register().add("x", first).add("x", later).add("x", second).add("x", first)
    assert register.claims == {"x": (first, second, first)}
    write_register(tmp_path, register)
    assert read_register(tmp_path) == register


def test_a_register_that_someone_has_edited_is_refused(tmp_path: Path) -> None:
    assert read_register(tmp_path) == Register()
    registration = Registration({"quick": "aaa"}, "2026-11-26", "")
    path = write_register(tmp_path, Register().add("x", registration))
    path.write_text(path.read_text().replace("aaa", "bbb"))
    with pytest.raises(NormlabError, match="restore it from version control"):
        read_register(tmp_path)


def test_the_page_names_the_sources_and_uncommitted_changes() -> None:
    claim = replace(CLAIM, first_run=None)
    for dirty, end in ((False, "commit ccccccc"), (True, "commit ccccccc and uncommitted changes")):
        registration = Registration(hash_claim(claim, BUDGETS), "2026-11-26", "c" * 40, dirty)
        verdict = judge_claim(claim.test, ClaimData(), "x")
        register = Register({"x": (registration,)})
        marked = mark_registration(verdict, claim, BUDGETS, register, "quick")
        assert marked.registration == (
            f"its test and this budget were registered on 2026-11-26, with the sources of {end}"
        )
