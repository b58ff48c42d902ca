"""Runs as small files: what is judged from them is what was judged from the runs."""

import gzip
import json
import math
from pathlib import Path

import numpy as np
import pytest

from claim_evidence import judge_claim, make_arm, make_run, make_series
from normlab.apps.claims import run_archive
from normlab.apps.claims.claim import Level, Lower, Quantity
from normlab.apps.claims.run_archive import archive_path, read_archive, write_archive
from normlab.apps.claims.runs import ClaimData
from normlab.archive.study import Run
from normlab.errors import NormlabError

A, B = "norm=rmsnorm", "norm=layernorm"


@pytest.fixture
def runs() -> list[Run]:
    arms = make_arm("rmsnorm", [1.0, 1.1, None]) + make_arm("layernorm", [2.0, 2.2, 2.3])
    probed = [make_run("dyt", seed, 1.0, variances=(1.0, 2.0, 4.0, 8.0, 16.0)) for seed in range(3)]
    return [*arms, *probed]


def test_verdicts_of_what_was_written_are_those_of_the_runs(
    runs: list[Run], tmp_path: Path
) -> None:
    path = archive_path(tmp_path, "claims_text", "quick")
    for run in runs:
        run.record.ended = "2026-11-26T12:00:00+00:00"
        run.record.device, run.record.versions = "cpu (a chip)", {"torch": "2.13.0"}
    write_archive(path, runs)
    archive = read_archive(path)
    assert (archive.date, archive.machine) == ("2026-11-26", "cpu (a chip), torch 2.13.0")
    tests = [
        Lower(A, B, 0.02),
        Level(B, 1.5, 2.9),
        Level("norm=dyt", 1.0, 2.0, Quantity.acceleration),
    ]
    for test in tests:
        before, after = (
            judge_claim(test, data)
            for data in (
                ClaimData(tuple(runs)),
                ClaimData(archive.runs, date=archive.date, machine=archive.machine),
            )
        )
        assert before == after
        assert before.word != "cannot tell" or "diverged" in before.reason


def test_the_same_runs_give_the_same_bytes_in_any_order(runs: list[Run], tmp_path: Path) -> None:
    for name, members in (("a", runs), ("b", runs[::-1])):
        write_archive(tmp_path / name, members)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_nothing_of_the_machine_but_its_name_is_written(runs: list[Run], tmp_path: Path) -> None:
    record = runs[0].record
    record.command, record.traceback = "train.py output_dir=/home/me", "File /home/me/x.py"
    record.config |= {"output_dir": "/home/me", "data": {"kind": "text", "path": "/home/me/a.txt"}}
    write_archive(tmp_path / "a", runs)
    assert "/home/me" not in gzip.decompress((tmp_path / "a").read_bytes()).decode()
    assert record.config["data"]["path"] == "/home/me/a.txt"  # of the run itself nothing changes


def test_a_loss_that_is_not_finite_stays_so(runs: list[Run], tmp_path: Path) -> None:
    write_archive(tmp_path / "a", runs)
    by_id = {run.record.id: run for run in read_archive(tmp_path / "a").runs}
    values = by_id[runs[2].record.id].events.scalars["val/loss"].values
    assert math.isnan(values[-1])


def test_values_of_32_and_of_64_bits_come_back_to_the_bit(tmp_path: Path) -> None:
    narrow, wide = make_run("rmsnorm", 0, 1.0), make_run("layernorm", 0, 1.0)
    curves = {"narrow": np.float32([2.3456789, 1e-7, 1 / 3]), "wide": [2.3456789, 1e-7, 1 / 3]}
    for run, values in zip((narrow, wide), curves.values(), strict=True):
        run.events.scalars["train/loss"] = make_series([0, 1, 2], list(map(float, values)))
    write_archive(tmp_path / "a", [narrow, wide])
    runs = {run.record.norm: run for run in read_archive(tmp_path / "a").runs}
    for run in (narrow, wide):
        before = run.events.scalars["train/loss"].values
        assert runs[run.record.norm].events.scalars["train/loss"].values.tolist() == before.tolist()
    text = gzip.decompress((tmp_path / "a").read_bytes()).decode()
    assert "2.3456788," in text  # the shortest that is the same in 32 bits
    assert "2.3456789," in text


def damaged(content: bytes, change: str) -> bytes:
    lines = gzip.decompress(content).decode().splitlines(keepends=True)
    match change:
        case "cut off":
            return content[:-20]
        case "a run is missing":
            return gzip.compress("".join(lines[:-1]).encode())
        case "newer":
            head = json.loads(lines[0]) | {"schema_version": 2}
            return gzip.compress("".join([json.dumps(head) + "\n", *lines[1:]]).encode())
        case "a curve is shorter":
            raw = json.loads(lines[1])
            raw["scalars"]["val/loss"]["steps"].pop()
            return gzip.compress("".join([lines[0], json.dumps(raw) + "\n", *lines[2:]]).encode())
        case "curves are a list":
            raw = json.loads(lines[1]) | {"scalars": []}
            return gzip.compress("".join([lines[0], json.dumps(raw) + "\n", *lines[2:]]).encode())
        case "empty":
            return gzip.compress(b"")
    return b"no archive"


@pytest.mark.parametrize(
    "change",
    [
        "cut off",
        "a run is missing",
        "newer",
        "a curve is shorter",
        "curves are a list",
        "empty",
        "another file",
    ],
)
def test_damage_is_one_sentence(runs: list[Run], tmp_path: Path, change: str) -> None:
    path = tmp_path / "a"
    write_archive(path, runs)
    path.write_bytes(damaged(path.read_bytes(), change))
    with pytest.raises(NormlabError, match=r"is damaged or was written by another") as raised:
        read_archive(path)
    assert "\n" not in str(raised.value)


def test_a_small_file_that_stands_for_a_large_text_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_archive, "_LARGEST_TEXT", 1000)
    (tmp_path / "a").write_bytes(gzip.compress(b" " * 100_000))
    with pytest.raises(NormlabError, match="larger than such files are"):
        read_archive(tmp_path / "a")
