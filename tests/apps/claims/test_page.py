"""What is kept of verdicts, and the page, the figure and the lines that come of it alone."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from claim_evidence import judge_claim, make_arm, make_claim_data
from normlab.apps.claims.claim import Exact, Lower, Regime, Role, Slope, Value
from normlab.apps.claims.figure import draw_claims
from normlab.apps.claims.lengths_figure import draw_lengths
from normlab.apps.claims.main import ClaimsRequest
from normlab.apps.claims.page import tally_verdicts, verdict_lines, write_pages
from normlab.apps.claims.record import (
    ClaimsRecord,
    ClaimVerdict,
    combine_budgets,
    merge_records,
    read_record,
    write_record,
)
from normlab.apps.claims.runs import ClaimData, StudyOptions
from normlab.archive.versioned_json import write_versioned_json
from normlab.errors import NormlabError


@pytest.fixture
def report() -> ClaimsRecord:
    a, b = make_arm("rmsnorm", [1.0, 1.1, 1.2]), make_arm("layernorm", [2.0, 2.2, 2.3])
    test = Lower("norm=rmsnorm", "norm=layernorm", 0.02)
    return ClaimsRecord(
        "quick",
        (
            judge_claim(test, ClaimData(tuple(a + b), command="again"), "lower_one"),
            judge_claim(Slope("x", -0.5, 0.1), make_claim_data(x=[0.0, 0.001, 0.0]), "slope_one"),
            judge_claim(Value("x", high=1.0), make_claim_data(x=[2.0, 2.001, 2.0]), "value_one"),
            judge_claim(Exact("x", 1e-11), make_claim_data(x=[1e-15]), "exact_one"),
            judge_claim(Value("x", high=1.0), make_claim_data(x=[0.9, 1.1, 1.0]), "wide_one"),
            judge_claim(test, ClaimData(problem="there is no data"), "nothing_one"),
        ),
    )


def test_what_is_written_is_read_back(report: ClaimsRecord, tmp_path: Path) -> None:
    write_record(tmp_path / "claims.json", report)
    assert read_record(tmp_path / "claims.json", ClaimsRecord) == report


@pytest.mark.parametrize(
    ("before", "after"),
    [('"reproduced"', '"refuted"'), ("{", ""), ('"schema_version": 1', '"schema_version": 2')],
)
def test_damage_is_one_sentence(
    report: ClaimsRecord, tmp_path: Path, before: str, after: str
) -> None:
    path = tmp_path / "claims.json"
    write_record(path, report)
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))
    with pytest.raises(NormlabError, match=r"is damaged or .* delete it") as raised:
        read_record(path, ClaimsRecord)
    assert "\n" not in str(raised.value)


def test_a_word_that_is_none_is_damage(report: ClaimsRecord, tmp_path: Path) -> None:
    """Also where the checksum was made to fit."""
    path = tmp_path / "claims.json"
    write_record(path, report)
    raw = json.loads(path.read_text())
    raw["verdicts"][0]["word"] = "proven"
    plain = {k: v for k, v in raw.items() if k not in ("checksum", "schema_version")}
    write_versioned_json(path, plain, raw["schema_version"])
    with pytest.raises(NormlabError, match="damaged"):
        read_record(path, ClaimsRecord)


def test_newer_verdicts_take_the_place_of_older_ones(report: ClaimsRecord) -> None:
    newer = judge_claim(Exact("x", 1e-11), make_claim_data(x=[1.0]), "exact_one")
    both = report.update(ClaimsRecord("quick", (newer,)))
    assert [one.name for one in both.verdicts] == sorted(one.name for one in report.verdicts)
    assert {one.name: one.word for one in both.verdicts}["exact_one"] == "refuted"


def test_the_pages_show_each_claim_at_the_largest_budget_that_measured_it() -> None:
    def judged(budget: str, **values: float | None) -> ClaimsRecord:
        verdicts = []
        for name, value in values.items():
            data = make_claim_data(x=[value]) if value else make_claim_data()
            verdicts.append(judge_claim(Exact("x", 1e-11), data, name))
        return ClaimsRecord(budget, tuple(verdicts))

    quick = judged("quick", both=1e-3, only_quick=1e-3, not_yet=None)
    standard = judged("standard", both=1e-15, only_quick=None)
    shown = combine_budgets([quick, standard])
    assert {v.name: (v.budget, v.word) for v in shown.verdicts} == {
        "both": ("standard", "reproduced"),
        "not_yet": ("quick", "not measured"),
        "only_quick": ("quick", "refuted"),
    }
    assert shown.budget == "quick or standard"
    assert combine_budgets([quick]).budget == "quick"


def test_the_tally_counts(report: ClaimsRecord) -> None:
    assert tally_verdicts(report) == (
        "6 claims at budget=quick: 2 reproduced, 1 not reproduced, 1 refuted, 1 cannot tell, "
        "1 not measured."
    )
    assert (
        tally_verdicts(ClaimsRecord("quick", report.verdicts[5:]))
        == "1 claim at budget=quick: 1 not measured."
    )


def test_lines_hold_effect_interval_runs_and_what_differs(report: ClaimsRecord) -> None:
    said = "\n".join(verdict_lines(report.verdicts[0]))
    assert "measured   -1.07 [-1.21, -0.923] nats per token; claimed: below -0.02; 3 pairs" in said
    assert "6 runs" in said
    assert "differs    the size" in said
    assert "because    there is no data" in verdict_lines(report.verdicts[5])


def test_the_page_has_a_table_and_a_section_a_claim(report: ClaimsRecord, tmp_path: Path) -> None:
    claims, checks = write_pages(tmp_path, report)
    page = claims.read_text()
    assert (
        "| [lower_one](#lower_one) | [1910.07467](https://arxiv.org/abs/1910.07467) | so \\| much "
        "| -1.07 [-1.21, -0.923] nats per token | quick | reproduced |"
    ) in page
    for one in report.verdicts:
        section = page.split(f"## {one.name}\n")[1].split("\n## ")[0]
        for part in (one.statement, one.word.capitalize(), one.setup, one.differs, one.machine):
            assert part in section
        assert f"again: `{one.command}`" in section
        assert one.date in section
    assert "6 runs; seeds 0, 1, 2; not repeated with other seeds" in page
    assert "There is no data." in page
    assert "## " not in checks.read_text()


def test_a_path_at_the_beginning_of_a_reason_keeps_its_case(tmp_path: Path) -> None:
    data = ClaimData(problem="docs/claims/runs has no measurement")
    verdict = judge_claim(Value("x", high=1.0), data, "value_one")
    page = write_pages(tmp_path, ClaimsRecord("quick", (verdict,)))[0].read_text()
    assert "** docs/claims/runs has no measurement." in page


def test_checks_have_a_page_of_their_own_and_hold_or_do_not(tmp_path: Path) -> None:
    names = {"right": 1e-15, "wrong": 1e-3}
    verdicts = [
        judge_claim(Exact("x", 1e-11), make_claim_data(x=[value]), name, role=Role.check)
        for name, value in names.items()
    ]
    record = ClaimsRecord("quick", tuple(verdicts))
    claims, checks = write_pages(tmp_path, record)
    assert "right" not in claims.read_text()
    page = checks.read_text()
    assert "| 1e-15 nats per token | quick | holds |" in page
    assert "**Does not hold.** 0.00100 nats per token." in page
    assert tally_verdicts(record) == "2 checks at budget=quick: 1 holds, 1 does not hold."


def test_the_page_has_every_length_and_the_regime(tmp_path: Path) -> None:
    runs = []
    for steps, difference in ((250, 0.4), (1000, -0.3)):
        runs += make_arm("rmsnorm", [2.0 + difference, 2.1 + difference], steps=steps)
        runs += make_arm("layernorm", [2.0, 2.1], steps=steps)
    test = Lower("norm=rmsnorm", "norm=layernorm", 0.02)
    regime = Regime(1000, "a paper")
    verdict = judge_claim(test, ClaimData(tuple(runs)), "lower_one", regime=regime)
    page = write_pages(tmp_path, ClaimsRecord("standard", (verdict,)))[0].read_text()
    assert "| 250 | 0.400 [0.400, 0.400] | 2 pairs of seeds, a at lr=1e-3, b at lr=1e-3 |" in page
    assert "| 1000 | -0.300 [-0.300, -0.300] |" in page
    assert "- regime: runs of at least 1000 steps, where both arms have learned (a paper)" in page
    assert "- trained here: 8 blocks of width 64 for 250 and 1000 steps\n" in page
    assert "   250 steps 0.400 [0.400, 0.400] out of regime" in verdict_lines(verdict)
    check = replace(verdict, role="check")
    page = write_pages(tmp_path, ClaimsRecord("standard", (check,)))[1].read_text()
    assert page.count("| holds |") == 2  # its row, and that of 1000 steps
    assert "reproduced" not in page
    assert "  1000 steps -0.300 [-0.300, -0.300] holds" in verdict_lines(check)
    png, _ = draw_lengths(ClaimsRecord("standard", (verdict,)), tmp_path)
    assert png.stat().st_size > 10_000
    assert draw_lengths(ClaimsRecord("standard", ()), tmp_path) == []


def test_the_figure_has_every_claim(report: ClaimsRecord, tmp_path: Path) -> None:
    png, svg = draw_claims(report, tmp_path)
    assert png.stat().st_size > 10_000
    text = svg.read_text()
    # Of what is not measured there is the word in its row, and no mark that a legend could name.
    assert text.count("<!-- not measured -->") == 1
    assert text.count("<!-- cannot tell -->") == 2
    again = draw_claims(report, tmp_path / "again")
    assert again[0].read_bytes() == png.read_bytes()
    assert text.count("<g") > 20


def test_verdicts_of_the_pages_outlive_the_outputs(report: ClaimsRecord, tmp_path: Path) -> None:
    options = StudyOptions("quick", tmp_path / "outputs")
    request = ClaimsRequest({}, options, tmp_path / "docs")
    assert request.read_earlier_verdicts() is None
    write_record(tmp_path / "docs" / "claims" / "verdicts-quick.json", report)
    earlier = request.read_earlier_verdicts()
    assert earlier is not None
    assert set(earlier.verdicts) == set(report.verdicts)
    newer = judge_claim(Exact("x", 1e-11), make_claim_data(x=[1.0]), "exact_one")
    write_record(request.record_path, ClaimsRecord("quick", (newer,)))
    merged = request.read_earlier_verdicts()
    assert merged is not None
    assert {v.name: v.word for v in merged.verdicts}["exact_one"] == "refuted"
    assert len(merged.verdicts) == len(report.verdicts)


def test_a_verdict_of_another_hash_stands_beside_the_newer_one(tmp_path: Path) -> None:
    old, new = (
        replace(judge_claim(Value("x", high=high), make_claim_data(x=[2.0, 2.0]), "v"), digest=d)
        for high, d in ((1.0, "aaa"), (3.0, "bbb"))
    )
    record = ClaimsRecord("quick", (old,)).update(ClaimsRecord("quick", (new,)))
    page = write_pages(tmp_path, record)[0].read_text()
    assert "| aaa | 2.00 [2.00, 2.00] | refuted | 2026-11-24 |" in page
    assert "| bbb | 2.00 [2.00, 2.00] | reproduced | 2026-11-24 |" in page
    # The same hash again leaves what was known before.
    again = record.update(ClaimsRecord("quick", (new,)))
    assert again == record


def test_of_two_records_of_verdicts_nothing_is_lost_and_the_later_counts() -> None:
    def verdict(digest: str, date: str) -> ClaimVerdict:
        judged = judge_claim(Value("x", high=3.0), make_claim_data(x=[2.0, 2.0]), "v")
        return replace(judged, digest=digest, date=date)

    a, b, c = verdict("a", "2026-11-24"), verdict("b", "2026-11-25"), verdict("c", "2026-11-26")
    pages, outputs = ClaimsRecord("quick", (a,)), ClaimsRecord("quick", (c.follow(b.follow(a)),))
    for records in ((pages, outputs), (outputs, pages)):
        merged = merge_records(records)
        assert merged is not None
        (latest,) = merged.verdicts
        assert latest.digest == "c"
        assert [entry.digest for entry in latest.earlier] == ["a", "b"]
    # Of one day, the outputs count.
    merged = merge_records((pages, ClaimsRecord("quick", (replace(b, date=a.date),))))
    assert merged is not None
    assert merged.verdicts[0].digest == "b"
    assert merge_records(()) is None
