"""Run folders that a stranger has made: links, crafted states, configurations, huge claims."""

import json
import os
import pickle
import re
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from normlab.apps.sample import main
from normlab.archive.lock import lock_run
from normlab.archive.record import BEST_CHECKPOINT, LAST_CHECKPOINT, RunRecord
from normlab.archive.study import read_run, read_study
from normlab.config.run_spec import RunSpec
from normlab.errors import NormlabError
from normlab.study.allocation import resumed_threads
from normlab.training.checkpoints import latest_state, read_checkpoint
from normlab.training.run import train
from normlab.training.tensorboard import rewind_events
from tiny_run import TINY, InterruptingDisplay, SilentDisplay

PRECIOUS = "a file of the user's own\n" * 100


@pytest.fixture
def precious(tmp_path: Path) -> Path:
    path = tmp_path / "precious.txt"
    path.write_text(PRECIOUS)
    return path


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("original") / "outputs"


@pytest.fixture
def stopped(specified: Callable[..., RunSpec], tmp_path: Path, original: Path) -> RunSpec:
    """A run that a signal stopped at step 2 of 6: trained once, copied for each test."""
    if not original.exists():
        with pytest.raises(KeyboardInterrupt):
            train(specified(*TINY, f"output_dir={original}"), "", InterruptingDisplay(after=2))
    shutil.copytree(original, tmp_path / "outputs")
    return specified(*TINY, f"output_dir={tmp_path / 'outputs'}")


def sampled(run: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    capsys.readouterr()
    code = 0
    try:
        main([str(run), "--length", "3"])
    except SystemExit as left:
        code = int(left.code or 0)
    return code, capsys.readouterr().err


def changed(spec: RunSpec, change: Callable[[dict[str, Any]], object]) -> Path:
    path = spec.folder / LAST_CHECKPOINT
    content = read_checkpoint(path)
    change(content)
    torch.save(content, path)
    return path


LINKED = ["events", "train.log", "run.json", "checkpoints", "checkpoints/last.ckpt", "run"]


@pytest.mark.parametrize("what", LINKED)
def test_nothing_is_written_through_a_link_in_a_run(
    what: str, stopped: RunSpec, precious: Path, tmp_path: Path
) -> None:
    path = stopped.folder if what == "run" else stopped.folder / what
    if what == "events":
        (path,) = stopped.folder.glob("events*")
        changed(stopped, lambda content: content["events"].update({path.name: 1}))
    target = precious
    if path.is_dir():
        target = path.rename(tmp_path / "elsewhere")
    else:
        path.unlink()
    path.symlink_to(target)
    before = {one: one.stat().st_mtime_ns for one in tmp_path.rglob("*") if one.is_file()}
    with pytest.raises(NormlabError, match="is a link"):
        train(stopped, "", SilentDisplay())
    assert precious.read_text() == PRECIOUS
    for one, modified in before.items():
        assert ".locks" in one.parts or one.stat().st_mtime_ns == modified


@pytest.mark.parametrize(
    "name", ["train.log", "run.json", "checkpoints/best.ckpt", "events.out.tfevents.1.h"]
)
def test_a_pipe_in_a_run_is_not_waited_for(
    name: str, stopped: RunSpec, capsys: pytest.CaptureFixture[str]
) -> None:
    (stopped.folder / name).unlink(missing_ok=True)
    os.mkfifo(stopped.folder / name)
    for reading in (lambda: read_run(stopped.folder), lambda: train(stopped, "", SilentDisplay())):
        with pytest.raises(NormlabError, match=re.escape(name)):
            reading()
    code, err = sampled(stopped.folder, capsys)
    assert (code, err.count("\n")) == (1, 1)


def test_a_linked_run_of_a_study_is_left_out_and_told(stopped: RunSpec) -> None:
    study = stopped.folder.parent
    (study / "linked").symlink_to(stopped.folder)
    found = read_study(study)
    assert [run.folder for run in found.runs] == [stopped.folder]
    assert any("linked is a link" in sentence for sentence in found.left_out)


@pytest.mark.parametrize("folder", [".locks", "figures"])
def test_nothing_is_written_through_a_linked_folder_of_a_study(
    folder: str, stopped: RunSpec, tmp_path: Path
) -> None:
    from normlab.analysis.plot import write_study_report

    study = stopped.folder.parent
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    if (study / folder).exists():
        (study / folder).rename(tmp_path / "moved")
    (study / folder).symlink_to(elsewhere)
    with pytest.raises(NormlabError, match="is a link"):
        write_study_report(study)
    if folder == ".locks":
        with pytest.raises(NormlabError, match="is a link"), lock_run(study, stopped.id):
            pass
    assert not list(elsewhere.iterdir())


def test_a_lock_that_is_another_file_is_not_emptied(stopped: RunSpec, precious: Path) -> None:
    lock = stopped.folder.parent / ".locks" / f"{stopped.id}.lock"
    lock.unlink(missing_ok=True)
    lock.hardlink_to(precious)
    with pytest.raises(NormlabError, match="hard link"):
        train(stopped, "", SilentDisplay())
    assert precious.read_text() == PRECIOUS


def test_a_copy_made_by_hard_links_leaves_its_original_as_it_was(
    stopped: RunSpec, tmp_path: Path
) -> None:
    originals = tmp_path / "originals"
    originals.mkdir()
    for path in stopped.folder.glob("*"):
        if path.is_file():
            (originals / path.name).hardlink_to(path)
    # As if something had been logged after the state: resuming takes it back.
    changed(stopped, lambda content: content["events"].update(dict.fromkeys(content["events"], 60)))
    before = {path.name: path.read_bytes() for path in originals.iterdir()}
    assert train(stopped, "", SilentDisplay()).state == "finished"
    assert {path.name: path.read_bytes() for path in originals.iterdir()} == before


def test_a_state_names_no_files_outside_of_its_run(stopped: RunSpec, precious: Path) -> None:
    for name in ("../../../precious.txt", str(precious)):
        with pytest.raises(NormlabError, match="do not hold what was logged"):
            rewind_events(stopped.folder, {name: 1})
    assert precious.read_text() == PRECIOUS


def _set(*path: Any, to: Any) -> Callable[[dict[str, Any]], object]:
    def change(content: dict[str, Any]) -> None:
        for key in path[:-1]:
            content = content[key]
        content[path[-1]] = to

    return change


NAN = {"model.embedding.weight": torch.full((8, 16), torch.nan)}

STATES: dict[str, Callable[[dict[str, Any]], object]] = {
    "no step": lambda content: content.pop("step"),
    "step of text": _set("step", to="2"),
    "negative step": _set("step", to=-2),
    "huge step": _set("step", to=10**400),
    "sizes of text": _set("events", to={"events.out.tfevents": "x"}),
    "no dictionary of sizes": _set("events", to=[1]),
    "best of NaN": _set("recorder", "progress", "best", "val_loss", to=float("nan")),
    "losses of another shape": _set("recorder", "losses", to=torch.zeros(3, 3)),
    "progress that is ahead": _set("recorder", "progress", "step", to=5),
    "progress of text": _set("recorder", "progress", "tokens", to="many"),
    "a list in place of the recorder": _set("recorder", to=[1]),
    "an unknown key of progress and no tokens": lambda content: content["recorder"].update(
        progress={"mood": "good", "tokens": None}
    ),
    "no optimizer": lambda content: content.pop("optimizer"),
    "random state of text": _set("random", "cpu", to="x"),
    "random state of one byte": _set("random", "cpu", to=torch.zeros(1, dtype=torch.uint8)),
    "weights of NaN": lambda content: content["state_dict"].update(NAN),
    "weights that are no tensors": _set("state_dict", to=[1, 2]),
    "names that are numbers": _set("state_dict", 3, to=torch.zeros(1)),
    "sparse weights": _set("state_dict", "x", to=torch.eye(3).to_sparse()),
    "weights without memory": _set("state_dict", "x", to=torch.empty(3, device="meta")),
    "format of text": _set("format", to="1"),
    "a weight of stride 0": _set("state_dict", "x", to=torch.zeros(1).expand(2**20)),
    "a moment of stride 0": _set(
        "optimizer", "state", 0, "exp_avg", to=torch.zeros(1).expand(8, 16)
    ),
    "a tensor of stride 0 in a list": _set("x", to=[(torch.zeros(1).expand(2),)]),
}  # fmt: skip


@pytest.mark.parametrize("name", STATES)
def test_a_state_that_is_none_is_told_and_not_gone_on_from(name: str, stopped: RunSpec) -> None:
    path = changed(stopped, STATES[name])
    saved, left_out = latest_state(stopped.folder, stopped.id)
    assert saved is None
    (sentence,) = left_out
    assert str(path) in sentence
    assert "\n" not in sentence


MISFITS: dict[str, Callable[[dict[str, Any]], object]] = {
    "a weight of another shape": _set("state_dict", "model.embedding.weight", to=torch.zeros(2, 2)),
    "a weight of another type": _set(
        "state_dict", "model.embedding.weight", to=torch.zeros(8, 16, dtype=torch.float64)
    ),
    "a moment of another shape": _set("optimizer", "state", 0, "exp_avg", to=torch.zeros(2)),
    "a moment of another parameter": _set("optimizer", "state", 99, to={}),
    "a moment that is none": _set("optimizer", "state", 0, "exp_avg_sq", to="x"),
    "no moments": _set("optimizer", to=[]),
}


@pytest.mark.parametrize("name", MISFITS)
def test_a_state_of_another_model_fails_the_run_in_words(name: str, stopped: RunSpec) -> None:
    path = changed(stopped, MISFITS[name])
    record = train(stopped, "", SilentDisplay())
    assert record.state == "failed"
    assert f"{path} is no state of this run" in str(record.reason)


def test_a_state_sets_neither_the_learning_rate_nor_the_decay(
    stopped: RunSpec, tmp_path: Path, specified: Callable[..., RunSpec]
) -> None:
    whole = specified(*TINY, f"output_dir={tmp_path / 'whole'}")
    expected = train(whole, "", SilentDisplay()).final

    def change(content: dict[str, Any]) -> None:
        for group in content["optimizer"]["param_groups"]:
            group |= {"lr": 1.0, "weight_decay": 9.0, "betas": (0.0, 0.0), "initial_lr": 1.0}

    changed(stopped, change)
    assert train(stopped, "", SilentDisplay()).final == expected


def test_an_unknown_key_of_a_state_is_passed_over(stopped: RunSpec) -> None:
    changed(stopped, _set("recorder", "progress", "mood", to="good"))
    assert train(stopped, "", SilentDisplay()).state == "finished"


def test_a_bomb_in_a_zip_is_not_unpacked(stopped: RunSpec) -> None:
    path = stopped.folder / LAST_CHECKPOINT
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("last/data/99", bytes(10**8))
    assert path.stat().st_size < 10**6
    with pytest.raises(NormlabError, match="unpacks to more"):
        read_checkpoint(path)


def test_a_name_that_makes_an_array_of_any_size_is_not_called(stopped: RunSpec) -> None:
    path = stopped.folder / LAST_CHECKPOINT

    class Large:
        def __reduce__(self) -> tuple[Any, ...]:
            return bytearray, (2**40,)

    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("last/data.pkl", pickle.dumps({"state_dict": Large()}, protocol=2))
        archive.writestr("last/version", "3\n")
    with pytest.raises(NormlabError, match="it holds __builtin__ bytearray"):
        read_checkpoint(path)


def test_a_tensor_that_claims_more_than_it_holds_is_refused(stopped: RunSpec) -> None:
    path = stopped.folder / LAST_CHECKPOINT
    torch.save({"state_dict": {"w": torch.ones(4)}}, path)
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            claimed = content.replace(b"K\x04", b"J" + struct.pack("<i", 2**30))
            archive.writestr(name, claimed if name.endswith("data.pkl") else content)
    with pytest.raises(NormlabError, match="damaged or no checkpoint"):
        read_checkpoint(path)


def test_a_checkpoint_of_stride_0_is_not_sampled(
    stopped: RunSpec, capsys: pytest.CaptureFixture[str]
) -> None:
    wide = torch.zeros(1).expand(2**13, 2**13)
    changed(stopped, _set("state_dict", "model.embedding.weight", to=wide))
    (stopped.folder / BEST_CHECKPOINT).unlink()
    code, err = sampled(stopped.folder, capsys)
    assert (code, err.count("\n")) == (1, 1)
    assert "a tensor of 8192x8192 numbers has fewer in the file" in err


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (float("nan"), "model.embedding.weight holds numbers that are not finite"),
        (3e38, "cannot be sampled: its weights give numbers that are not finite"),
    ],
)
def test_weights_that_are_or_give_no_numbers_are_not_sampled(
    value: float, words: str, stopped: RunSpec, capsys: pytest.CaptureFixture[str]
) -> None:
    (stopped.folder / BEST_CHECKPOINT).unlink()
    changed(
        stopped,
        lambda content: [tensor.fill_(value) for tensor in content["state_dict"].values()],
    )
    code, err = sampled(stopped.folder, capsys)
    assert (code, err.count("\n")) == (1, 1)
    assert words in err


CONFIGS: dict[str, tuple[Callable[[str], str], str]] = {
    "a value out of range": (lambda text: text.replace("depth: 2", "depth: -1"), "model.depth"),
    "a width without an end": (lambda text: text.replace("width: 16", "width: 1000000"), "weights"),
    "a number of 5000 digits": (lambda text: text.replace("seed: 0", f"seed: {'9' * 5000}", 1), ""),
    "a number in base sixteen": (
        lambda text: text.replace("seed: 0", f"seed: 0x{'f' * 500}", 1), "63 bits",
    ),
    "an unknown key": (lambda text: text + "mood: good\n", "mood"),
    "an interpolation": (lambda text: text + "x: ${oc.env:HOME}\n", "interpolation"),
    "a thousand levels": (lambda text: text + "x: " + "[" * 1000 + "]" * 1000, "deep"),
    "aliases": (lambda text: text + "x: &a [*a]\n", "alias"),
    "a list": (lambda text: "- 1\n", "mapping"),
    "a date": (lambda text: text + "x: !!timestamp 2001-01-01\n", "timestamp"),
    "Python": (lambda text: text + "x: !!python/object/apply:os.getcwd []\n", "tag"),
    "a file of 200 kB": (lambda text: text + "#" * 200_000, "larger"),
    "a list where a model belongs": (
        lambda text: re.sub(r"model:\n(  .*\n)+", "model: [1]\n", text), "",
    ),
    "a formula that is none": (
        lambda text: re.sub(r"norm:\n(  .*\n)+", "norm: {formula: '((('}\n", text), "",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CONFIGS)
def test_a_changed_configuration_is_checked_before_it_is_built(
    name: str, stopped: RunSpec, capsys: pytest.CaptureFixture[str]
) -> None:
    change, word = CONFIGS[name]
    path = stopped.folder / "config.yaml"
    text = path.read_text()
    assert change(text) != text
    path.write_text(change(text))
    code, err = sampled(stopped.folder, capsys)
    assert code == 1
    assert "config.yaml" in err
    assert word in err
    assert err.count("\n") == 1


def test_a_configuration_larger_than_its_checkpoint_is_not_built(
    stopped: RunSpec, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from normlab.training import sampling

    monkeypatch.setattr(sampling, "build_model", lambda *_: pytest.fail("built"))
    # A tensor under a thousand names is one tensor.
    large = torch.zeros(512, 512)
    names = dict.fromkeys(map(str, range(1000)), large)
    torch.save({"state_dict": names}, stopped.folder / BEST_CHECKPOINT)
    path = stopped.folder / "config.yaml"
    plain = yaml.safe_load(path.read_text())
    plain["model"]["width"] = 4096
    path.write_text(yaml.safe_dump(plain))
    code, err = sampled(stopped.folder, capsys)
    assert (code, err.count("\n")) == (1, 1)
    assert "too few weights" in err


VOCABULARIES = {
    "a list": {"kind": "characters", "characters": ["ab", "c"]},
    "nothing": {"kind": "characters", "characters": ""},
    "null": None,
    "a model that pads": {
        "kind": "bpe",
        "model": json.dumps(
            {
                "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []},
                "padding": {"strategy": {"Fixed": 10**12}},
                "pre_tokenizer": {"type": "ByteLevel"},
                "decoder": {"type": "ByteLevel"},
            }
        ),
    },
}


@pytest.mark.parametrize("name", [*VOCABULARIES, "a hundred thousand levels"])
def test_a_hostile_vocabulary_is_one_sentence(
    name: str, stopped: RunSpec, capsys: pytest.CaptureFixture[str]
) -> None:
    levels = "[" * 100_000 + "]" * 100_000
    text = json.dumps(VOCABULARIES[name]) if name in VOCABULARIES else levels
    (stopped.folder / "vocabulary.json").write_text(text)
    code, err = sampled(stopped.folder, capsys)
    assert (code, err.count("\n")) == (1, 1)
    assert "vocabulary.json is damaged" in err


def test_text_of_a_hostile_vocabulary_does_not_act(
    stopped: RunSpec, capsys: pytest.CaptureFixture[str]
) -> None:
    signs = "\x1b\u202e\x07\u2028\ud800\x9b\x00\r"
    stored = json.dumps({"kind": "characters", "characters": signs})
    (stopped.folder / "vocabulary.json").write_text(stored)
    capsys.readouterr()
    main([str(stopped.folder), "--length", "30"])
    out = capsys.readouterr().out
    assert len(out) >= 30
    assert not set(signs) & set(out)


def forged(run: Path, **changes: Any) -> None:
    """Write other values into `run.json`, with a checksum that is right."""
    raw = json.loads((run / "run.json").read_text())
    del raw["checksum"]
    raw |= changes
    text = json.dumps(raw)
    (run / "run.json").write_text(text[:-1] + f', "checksum": {zlib.crc32(text.encode())}}}')


@pytest.mark.parametrize("threads", [10**6, -1, "many", True])
def test_a_forged_number_of_threads_is_not_taken(threads: Any, stopped: RunSpec) -> None:
    forged(stopped.folder, hardware={"threads": threads})
    assert RunRecord.read(stopped.folder).threads is None
    assert resumed_threads(stopped) is None


def forge(spec: RunSpec, **changes: Any) -> None:
    """Change a run's record, with a right checksum."""
    record = RunRecord.read(spec.folder)
    for key, value in changes.items():
        setattr(record, key, value)
    record.write(spec.folder)


def test_another_run_in_the_folder_is_no_result(
    specified: Callable[..., RunSpec], tmp_path: Path
) -> None:
    rms, layer = (
        specified(*TINY, f"norm={n}", f"output_dir={tmp_path}") for n in ("rmsnorm", "layernorm")
    )
    train(rms, "", SilentDisplay())
    shutil.copytree(rms.folder, layer.folder)
    with pytest.raises(NormlabError, match=f"holds another run, {rms.name}"):
        train(layer, "", SilentDisplay())
    assert RunRecord.read(layer.folder).id == rms.id  # it was not deleted


def test_a_finished_run_without_a_last_step_is_no_result(
    specified: Callable[..., RunSpec], tmp_path: Path
) -> None:
    spec = specified(*TINY, f"output_dir={tmp_path}")
    config = {**spec.plain, "trainer": {"log_every": 2}}
    spec.folder.mkdir(parents=True)
    names = spec.id, spec.name, "rmsnorm", "pre", "synthetic", 0, spec.choices, config
    RunRecord(*names, state="finished", step=2).write(spec.folder)
    assert spec.read_result() is None
    assert train(spec, "", SilentDisplay()).step == 6


def test_a_divergence_that_the_events_do_not_show_is_not_believed(
    specified: Callable[..., RunSpec], tmp_path: Path
) -> None:
    spec = specified(*TINY, f"output_dir={tmp_path}")
    loss = train(spec, "", SilentDisplay()).final.val_loss
    forge(spec, state="diverged", diverged_step=3)
    run = read_run(spec.folder)
    assert run.record.state == "finished"
    assert run.record.final.val_loss == pytest.approx(loss, rel=1e-6)
    assert "says state=diverged" in " ".join(run.left_out)
