"""scripts/claims.py from the command line to verdicts: what is missing is made, and reused."""

import gzip
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from command_calls import Call, make_command_caller
from normlab.apps.claims import measurements, runs
from normlab.apps.claims.main import main
from normlab.apps.claims.measurements import MeasurementSize, UntrainedMeasurement
from normlab.apps.claims.record import ClaimsRecord, ClaimVerdict, StoredMeasurement, read_record
from normlab.apps.claims.registry import read_register
from normlab.apps.experiments import MEASURED_EXPERIMENTS, TRAINED_EXPERIMENTS
from normlab.errors import NormlabError
from normlab.study.command import main as train_py
from tiny_run import TINY


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture) -> Call:
    return make_command_caller(main, tmp_path, monkeypatch, capfd)


@pytest.fixture
def train_here(monkeypatch: pytest.MonkeyPatch, without_figures: None) -> None:
    """Studies are trained in this process, which has torch already."""

    def train(arguments: Sequence[str]) -> int:
        command = ["train.py", *arguments, "hydra/launcher=basic"]
        with monkeypatch.context() as patched:
            patched.setattr(sys, "argv", command)
            try:
                train_py(TRAINED_EXPERIMENTS, MEASURED_EXPERIMENTS)
            except SystemExit as left:
                return left.code if isinstance(left.code, int) else 1
        return 0

    monkeypatch.setattr(runs, "run_study_command", train)


def counted(size: MeasurementSize) -> dict[str, list[float]]:
    counted.calls += 1  # type: ignore[attr-defined]
    return {"x": [1.0, 1.01, 0.99], "not finite": [float("nan")]}


def broken(size: MeasurementSize) -> dict[str, list[float]]:
    raise RuntimeError("no such\ndevice")


@pytest.fixture
def ours(monkeypatch: pytest.MonkeyPatch) -> None:
    counted.calls = 0  # type: ignore[attr-defined]
    known = {
        "counted": UntrainedMeasurement(counted),
        "broken": UntrainedMeasurement(broken),
    }
    monkeypatch.setattr(measurements, "MEASUREMENTS", known)


COMMON = {
    "statement": "It is so.",
    "source": "1910.07467",
    "published": {"text": "so"},
    "setup": "there",
    "differs": "here",
    "unit": "nats per token",
}


def write(folder: Path, name: str, **more: object) -> None:
    (folder / "claim").mkdir(parents=True, exist_ok=True)
    (folder / "claim" / f"{name}.yaml").write_text(yaml.safe_dump({**COMMON, **more}))


def measured(folder: Path, name: str, measurement: str, of: str = "x") -> None:
    test = {"kind": "value", "of": of, "low": 0.9, "high": 1.1}
    write(folder, name, measurement=measurement, test=test)


def experiment(folder: Path, name: str, *overrides: str) -> None:
    (folder / "experiment").mkdir(parents=True, exist_ok=True)
    params = dict(word.split("=") for word in (*TINY, *overrides))
    sweeper = {
        "arms": ["norm=rmsnorm placement=pre", "norm=layernorm placement=pre"],
        "budgets": {"quick": {"seed": "0,1", **params}},
    }
    raw = {"study": name, "hydra": {"sweeper": sweeper}}
    text = f"# @package _global_\n{yaml.safe_dump(raw)}"
    (folder / "experiment" / f"{name}.yaml").write_text(text)


LOWER = {"kind": "lower", "a": "norm=rmsnorm", "b": "norm=layernorm", "margin": 0.02}


def test_an_arm_that_no_run_has_stops_before_anything_trains(call: Call, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    experiment(mine, "tiny")
    write(mine, "one", experiment="tiny", test={**LOWER, "a": "norm=rmsnrom"})
    write(mine, "two", experiment="tiny", test={**LOWER, "a": "rmsnorm"})
    for name, said in (
        ("one", "has norm=rmsnrom at budget=quick; its arms are norm="),
        ("two", "names no arm"),
    ):
        code, out, err = call(f"claim={name}", "--config-dir", "mine")
        assert code == 2
        assert f"claim={name}: " in err
        assert said in err
        assert "to train" not in out
    assert not list(Path("outputs").rglob("run.json"))


def test_the_page_is_of_our_own_claims_alone(call: Call, tmp_path: Path) -> None:
    write(tmp_path / "mine", "one", experiment="tiny", test=LOWER)
    code, _, err = call("claim=one", "--docs", "--config-dir", "mine")
    assert code == 2
    assert "leave out --config-dir mine" in err


@pytest.mark.usefixtures("train_here")
def test_runs_are_trained_once_and_a_study_that_fails_leaves_the_others(
    call: Call, tmp_path: Path, ours: None
) -> None:
    mine = tmp_path / "mine"
    experiment(mine, "tiny", "seed=0")
    experiment(mine, "wrong", "model.heads=3")
    experiment(mine, "no_key", "data.path=nowhere.txt")
    write(mine, "one", experiment="tiny", test=LOWER)
    write(mine, "two", experiment="tiny", test={**LOWER, "kind": "parity"})
    write(mine, "three", experiment="wrong", test=LOWER)
    write(mine, "four", experiment="no_key", test=LOWER)
    measured(mine, "five", "counted")
    words = ("claim=one,two,three,four,five", "--config-dir", "mine")
    code, out, err = call(*words)
    assert (code, err) == (0, "")
    assert "runs 2, 2 of them to train; measurements 1, 1 of them to make" in out
    assert "$ python train.py --config-dir mine experiment=tiny budget=quick" in out
    results = Path("outputs/claims/claims-quick.json")
    found = {one.name: one for one in read_record(results, ClaimsRecord).verdicts}
    assert {name: one.word for name, one in found.items()} == {
        # After six steps no arm has learned anything.
        "one": "vacuous",
        "two": "vacuous",
        "three": "not measured",
        "four": "not measured",
        "five": "reproduced",
    }
    assert "model.heads=3 does not divide" in found["three"].reason
    assert "data.path is not a key" in found["four"].reason
    assert found["one"].command == (
        "python scripts/claims.py claim=one budget=quick --config-dir mine"
    )
    assert found["one"].runs.finished == 2
    records = {p: p.stat().st_mtime_ns for p in Path("outputs").rglob("run.json")}
    assert len(records) == 2

    again, out, _ = call("claim=one,two,five", "--config-dir", "mine")
    assert again == 0
    assert "runs 2, 0 of them to train; measurements 1, 0 of them to make" in out
    assert {p: p.stat().st_mtime_ns for p in Path("outputs").rglob("run.json")} == records
    assert counted.calls == 1  # type: ignore[attr-defined]
    assert Path("outputs/claims/claims-quick.png").stat().st_size > 10_000

    # One run is damaged and one is gone: neither is passed over.
    next(iter(records)).write_text("{")
    experiment(mine, "tiny", "trainer.max_steps=7", "seed=0")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(runs, "train_study", lambda *_: "exited with code 1")
        code, out, _ = call("claim=one", "--config-dir", "mine")
    assert code == 0
    assert "note: exited with code 1" in out
    one = read_record(results, ClaimsRecord).verdicts
    assert [one.name for one in one] == sorted(found)
    now = {one.name: one for one in one}["one"]
    assert now.word == "not measured"
    assert now.reason == "1 of 1 runs with norm=rmsnorm have not ended (not trained yet)"
    assert now.runs.missing == 2


def test_measurements_are_kept_and_one_that_fails_leaves_the_others(
    call: Call, tmp_path: Path, ours: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tmp_path / "mine"
    measured(mine, "one", "counted")
    measured(mine, "two", "broken")
    measured(mine, "three", "counted", of="not finite")
    words = ("claim=one,two,three", "--config-dir", "mine")
    code, out, err = call(*words)
    assert (code, err) == (0, "")
    found = {
        one.name: one
        for one in read_record(Path("outputs/claims/claims-quick.json"), ClaimsRecord).verdicts
    }
    assert found["one"].word == "reproduced"
    assert found["two"].reason == "broken could not be measured (RuntimeError: no such device)"
    assert found["three"].reason == "not finite was not measured; there are x"
    assert "3 claims at budget=quick: 1 reproduced, 2 not measured." in out

    path = Path("outputs/claims/measured/counted-quick.json")
    assert read_record(path, StoredMeasurement).series == {"x": [1.0, 1.01, 0.99]}
    call("claim=one", "--config-dir", "mine", "budget=standard")
    assert counted.calls == 2  # type: ignore[attr-defined]
    newer = {"counted": UntrainedMeasurement(counted, version=2)}
    monkeypatch.setattr(measurements, "MEASUREMENTS", newer)
    call("claim=one", "--config-dir", "mine")
    assert counted.calls == 3  # type: ignore[attr-defined]

    path.write_text(path.read_text().replace("1.01", "1.02"))
    code, out, err = call("claim=one", "--config-dir", "mine")
    assert code == 1
    assert err.startswith(f"normlab: {path} is damaged")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["claim=kaimig"], 2, "did you mean kaiming?"),
        (["claim=xiong"], 2, "claim=xiong does not exist; did you mean xiong_post_decay?"),
        (["claim=,"], 2, "names no claim"),
        (["buget=standard"], 2, "buget=standard is not allowed; did you mean budget=?"),
        (["budget"], 2, "budget is not allowed; did you mean budget=?"),
        (["budget=Standard"], 2, "budget=Standard is not an option; did you mean standard?"),
        (["budget=tiny"], 2, "budget=tiny is not an option; budget has quick, standard, full"),
        (["norm=rmsnorm"], 2, "norm=rmsnorm is not allowed; give claim=…"),
        (["claim=one", "--config-dir", "nowhere"], 2, "--config-dir nowhere is not a folder"),
        (["output_dir=file", "claim=kaiming"], 1, "file/claims cannot be written"),
    ],
)
def test_a_mistake_is_one_sentence(
    words: list[str], code: int, said: str, call: Call, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    left, out, err = call(*words)
    assert (left, out) == (code, "")
    assert err.startswith("normlab: ")
    assert said in err
    assert err.count("\n") == 1
    assert not (tmp_path / "outputs").exists()


def test_a_measurement_that_is_none_is_told_before_anything_runs(
    call: Call, tmp_path: Path
) -> None:
    measured(tmp_path / "mine", "one", "nothing")
    code, _, err = call("claim=one", "--config-dir", "mine")
    assert code == 2
    assert "claim=one asks for measurement=nothing, which does not exist; choose from depth," in err


def test_damaged_verdicts_are_told_before_anything_runs(call: Call, tmp_path: Path) -> None:
    (tmp_path / "outputs" / "claims").mkdir(parents=True)
    (tmp_path / "outputs" / "claims" / "claims-quick.json").write_text("{}")
    code, out, err = call("claim=kaiming")
    assert (code, out) == (1, "")
    assert "claims-quick.json is damaged" in err


def test_nothing_is_timed_beside_other_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.getloadavg", lambda: (measurements.count_cores() + 0.5, 0.0, 0.0))
    with pytest.raises(NormlabError, match=r"too busy to time anything \(load \d+\.5 on"):
        measurements.check_quiet_machine()
    monkeypatch.setattr("os.getloadavg", lambda: (float(measurements.count_cores()), 0.0, 0.0))
    measurements.check_quiet_machine()


def test_a_figure_that_fails_costs_a_sentence_and_not_the_verdicts(
    call: Call, tmp_path: Path, ours: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ValueError("no font")

    monkeypatch.setattr("normlab.apps.claims.figure.draw_claims", broken)
    measured(tmp_path / "mine", "five", "counted")
    code, out, err = call("claim=five", "--config-dir", "mine")
    assert (code, err) == (0, "")
    assert "note: The figure could not be drawn (ValueError: no font); all else is there." in out
    assert read_record(Path("outputs/claims/claims-quick.json"), ClaimsRecord).verdicts


@pytest.mark.slow
def test_verdicts_are_recomputed_from_exported_runs(call: Call, tmp_path: Path, ours: None) -> None:
    """Without the runs' folders, and with every number, date and reason."""
    mine = tmp_path / "mine"
    experiment(mine, "tiny", "trainer.max_steps=4,6", "trainer.val_every=2")
    regime = {"steps": 5, "source": "a paper"}
    write(mine, "one", experiment="tiny", test=LOWER, regime=regime)
    measured(mine, "two", "counted")
    words = ("claim=one,two", "--config-dir", "mine")
    code, out, err = call(*words, "--export", "kept")
    assert (code, err) == (0, "")
    assert "export   kept/tiny-quick.jsonl.gz" in out
    results = Path("outputs/claims/claims-quick.json")
    before = read_record(results, ClaimsRecord)
    assert [(horizon.steps, horizon.word) for horizon in before.verdicts[0].horizons] == [
        (4, "out of regime"),
        (6, "vacuous"),
    ]
    assert before.verdicts[0].word == "vacuous"
    assert Path("outputs/claims/claims-quick-lengths.png").stat().st_size > 10_000
    text = gzip.decompress(Path("kept/tiny-quick.jsonl.gz").read_bytes()).decode()
    assert str(tmp_path) not in text
    assert len(text.splitlines()) == 9
    assert all(
        run["scalars"]["val/loss"]["steps"] for run in map(json.loads, text.splitlines()[1:])
    )

    shutil.rmtree("outputs")
    code, out, err = call(*words, "--from", "kept")
    assert (code, err) == (0, "")
    assert "to train" not in out
    assert read_record(results, ClaimsRecord) == before
    assert not list(Path("outputs").rglob("run.json"))

    # Nor are the runs of another experiment judged as those of this one.
    experiment(mine, "tiny", "trainer.max_steps=4,6", "trainer.val_every=2", "optimizer.lr=1e-2")
    call(*words, "--from", "kept")
    first, _ = read_record(results, ClaimsRecord).verdicts
    assert first.word == "not measured"
    assert "holds other runs than experiment=tiny asks for now" in first.reason
    experiment(mine, "tiny", "trainer.max_steps=4,6", "trainer.val_every=2")

    # A run that is gone, or a file, is not passed over.
    Path("kept/measured/counted-quick.json").unlink()
    Path("kept/tiny-quick.jsonl.gz").unlink()
    results.unlink()
    call(*words, "--from", "kept")
    reasons = [verdict.reason for verdict in read_record(results, ClaimsRecord).verdicts]
    assert reasons == [
        "kept/tiny-quick.jsonl.gz does not exist",
        "kept has no measurement of counted with the current settings",
    ]
    Path("kept/tiny-quick.jsonl.gz").write_bytes(gzip.compress(text.encode())[:-9])
    code, _, err = call(*words, "--from", "kept")
    assert code == 1
    assert err.startswith("normlab: kept/tiny-quick.jsonl.gz is damaged")


def test_an_export_of_all_runs_is_not_replaced_by_one_of_some(
    call: Call, tmp_path: Path, ours: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tmp_path / "mine"
    experiment(mine, "tiny")
    write(mine, "one", experiment="tiny", test=LOWER)
    monkeypatch.setattr(runs, "run_study_command", lambda arguments: 1)
    exported = tmp_path / "kept" / "tiny-quick.jsonl.gz"
    exported.parent.mkdir()
    exported.write_bytes(b"all")
    code, out, _ = call("claim=one", "--config-dir", "mine", "--export", "kept")
    assert code == 0
    assert "note: tiny: its runs are not exported, for some have no result yet" in out
    assert exported.read_bytes() == b"all"


def test_a_verdict_stays_where_its_data_are_missing(
    call: Call, tmp_path: Path, ours: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tmp_path / "mine"
    measured(mine, "one", "counted")
    words = ("claim=one", "--config-dir", "mine")
    results = Path("outputs/claims/claims-quick.json")
    call(*words)
    before = read_record(results, ClaimsRecord)
    monkeypatch.setattr(measurements, "MEASUREMENTS", {"counted": UntrainedMeasurement(broken)})
    shutil.rmtree("outputs/claims/measured")
    code, out, err = call(*words)
    assert (code, err) == (0, "")
    (verdict,) = before.verdicts
    assert (
        f"note: one: the verdict of {verdict.date} stays (reproduced), for its data are not "
        f"complete here (counted could not be measured (RuntimeError: no such device))"
    ) in " ".join(out.split())
    assert read_record(results, ClaimsRecord) == before
    # Not where the claim has changed since.
    test = {"kind": "value", "of": "x", "low": 0.8, "high": 1.1}
    write(mine, "one", measurement="counted", test=test)
    _, out, _ = call(*words)
    assert "stays" not in out
    (verdict,) = read_record(results, ClaimsRecord).verdicts
    assert verdict.word == "not measured"
    assert [earlier.word for earlier in verdict.earlier] == ["reproduced"]


@pytest.mark.parametrize(
    ("test", "message"),
    [
        (
            {**LOWER, "a": "norm=rmsnrom"},
            "no run of experiment=tiny has norm=rmsnrom at budget=quick; its arms are norm=",
        ),
        ({**LOWER, "margin": 9.0}, "test.margin=9 is not allowed; losses lie between"),
    ],
)
def test_a_claim_that_no_run_can_decide_is_not_registered(
    test: dict[str, object], message: str, call: Call, tmp_path: Path
) -> None:
    mine = tmp_path / "mine"
    experiment(mine, "tiny")
    write(mine, "one", experiment="tiny", test=test)
    code, out, err = call("claim=one", "--config-dir", "mine", "--register")
    assert (code, out) == (2, "")
    assert err.startswith("normlab: claim=one: ")
    assert err.count("\n") == 1
    assert message in err
    assert not (mine / "claim" / "registered.json").exists()


def test_a_claim_about_data_that_are_not_here_is_registered(call: Call, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    (tmp_path / "text.txt").write_text("x" * 10_000)
    experiment(mine, "tiny", "data=text", "data.path=text.txt")
    write(mine, "one", experiment="tiny", test=LOWER)
    (tmp_path / "text.txt").unlink()
    code, out, err = call("claim=one", "--config-dir", "mine", "--register")
    assert (code, err) == (0, "")
    assert "1 registered" in out


def test_a_changed_test_is_named_beside_its_earlier_verdict(
    call: Call, tmp_path: Path, ours: None
) -> None:
    mine = tmp_path / "mine"
    measured(mine, "one", "counted")
    words = ("claim=one", "--config-dir", "mine")
    code, out, err = call(*words, "--register")
    assert (code, err) == (0, "")
    assert "registered  one" in out
    assert "mine/claim/registered.json: 1 registered, 0 as before; commit it" in out
    assert counted.calls == 0  # type: ignore[attr-defined]
    assert "0 registered, 1 as before" in call(*words, "--register")[1]

    def judge() -> ClaimVerdict:
        call(*words)
        (verdict,) = read_record(Path("outputs/claims/claims-quick.json"), ClaimsRecord).verdicts
        return verdict

    first = judge()
    assert first.registration.startswith("its test and this budget were registered on 20")
    assert judge() == first  # again: nothing has changed

    test = {"kind": "value", "of": "x", "low": 2.0, "high": 3.0}
    write(mine, "one", measurement="counted", test=test, first_run="2026-11-24")
    second = judge()
    assert second.word == "refuted"
    assert second.registration.startswith(
        "not preregistered: it was first judged on 2026-11-24, before its test was registered; its "
        "test or this budget has changed since it was registered on 20"
    )
    assert [(one.digest, one.word) for one in second.earlier] == [(first.digest, "reproduced")]
    assert "1 registered" in call(*words, "--register")[1]
    third = judge()
    assert "its test and this budget were registered" in third.registration
    assert third.earlier == second.earlier
    (register,) = read_register(mine / "claim").claims.values()
    assert [registration.hashes["quick"] for registration in register] == [
        first.digest,
        second.digest,
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--register", "--export", "x"],
            "--register judges nothing, so it cannot go with --export",
        ),
        (["--from", "nowhere"], "--from nowhere is not a folder"),
        (["--from", ".", "--export", "x"], "a folder to read and one to write"),
    ],
)
def test_flags_that_contradict_each_other_are_refused(
    words: list[str], message: str, call: Call
) -> None:
    code, out, err = call("claim=kaiming", *words)
    assert (code, out) == (2, "")
    assert message in err


def test_a_regime_beyond_every_budget_stops_before_anything_trains(
    call: Call, tmp_path: Path
) -> None:
    mine = tmp_path / "mine"
    experiment(mine, "tiny")
    regime = {"steps": 1000, "source": "a paper"}
    write(mine, "one", experiment="tiny", test=LOWER, regime=regime)
    for flag in ([], ["--register"]):
        code, _, err = call("claim=one", "--config-dir", "mine", *flag)
        assert code == 2
        assert "claim=one: its regime is runs of at least 1000 steps, and no budget of " in err
    assert not list(Path("outputs").rglob("run.json"))


def test_only_claims_of_the_folder_are_registered_there(call: Call, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    write(mine, "one", measurement="linear_stack", test={"kind": "value", "of": "x", "low": 0.5})
    code, out, _ = call("--register", "--config-dir", "mine")
    assert code == 0
    assert "1 registered, 0 as before" in out
    assert list(read_register(mine / "claim").claims) == ["one"]
    code, _, err = call("claim=one,kaiming", "--register", "--config-dir", "mine")
    assert code == 2
    assert "mine/claim/kaiming.yaml does not exist" in err
    assert list(read_register(mine / "claim").claims) == ["one"]


def test_a_register_or_an_export_that_cannot_be_written_says_what_helps(
    call: Call, tmp_path: Path, ours: None
) -> None:
    measured(tmp_path / "mine", "one", "counted")
    (tmp_path / "file").write_text("")
    code, _, err = call("claim=one", "--config-dir", "mine", "--export", "file")
    assert code == 1
    assert "give another folder with --export" in err
    (tmp_path / "mine" / "claim" / "registered.json").mkdir()
    code, _, err = call("claim=one", "--config-dir", "mine", "--register")
    assert code == 1
    assert "output_dir" not in err


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("budgets", 5, "hydra.sweeper.budgets=5 is not allowed"),
        ("arms", [5], "hydra.sweeper.arms=5 is not allowed"),
    ],
)
def test_a_sweep_of_a_wrong_type_is_one_sentence(
    key: str, value: object, message: str, call: Call, tmp_path: Path
) -> None:
    mine = tmp_path / "mine"
    experiment(mine, "tiny")
    path = mine / "experiment" / "tiny.yaml"
    raw = yaml.safe_load(path.read_text())
    raw["hydra"]["sweeper"][key] = value
    path.write_text(f"# @package _global_\n{yaml.safe_dump(raw)}")
    write(mine, "one", experiment="tiny", test=LOWER)
    code, out, err = call("claim=one", "--config-dir", "mine")
    assert (code, err) == (0, "")
    assert f"note: tiny: {message}" in out
    code, _, err = call("claim=one", "--config-dir", "mine", "--register")
    assert code == 2
    assert message in err


def test_a_verdict_written_while_this_command_ran_is_not_lost(
    call: Call, tmp_path: Path, ours: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "two"):
        measured(tmp_path / "mine", name, "counted")
    results = Path("outputs/claims/claims-quick.json")
    call("claim=two", "--config-dir", "mine")
    written = results.read_bytes()
    results.unlink()

    def count_and_write(size: MeasurementSize) -> dict[str, list[float]]:
        results.write_bytes(written)
        return counted(size)

    changed = {"counted": UntrainedMeasurement(count_and_write, version=2)}
    monkeypatch.setattr(measurements, "MEASUREMENTS", changed)
    call("claim=one", "--config-dir", "mine")
    assert [v.name for v in read_record(results, ClaimsRecord).verdicts] == ["one", "two"]
