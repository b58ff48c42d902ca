"""A run that was stopped and goes on is, to the bit, the run that never stopped."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from normlab.archive import lock
from normlab.archive.lock import RunLockedError, lock_run
from normlab.archive.record import RunRecord
from normlab.archive.study import read_run
from normlab.config.run_spec import RunSpec
from normlab.errors import NormlabError
from normlab.training import run as training_run
from normlab.training import stopping
from normlab.training.checkpoints import latest_state, read_checkpoint
from normlab.training.module import LanguageModel
from normlab.training.run import train
from normlab.training.stopping import Terminated
from run_equality import assert_same_run
from tiny_run import TINY, InterruptingDisplay, SilentDisplay

# Dropout draws, two batches make a step, and neither logging nor validation divides the run.
HARD = (
    *TINY,
    "model.dropout=0.1",
    "trainer.accumulate=2",
    "trainer.max_steps=11",
    "trainer.val_every=4",
    "trainer.log_every=3",
    "norm=layernorm",
    "placement=normformer",
)
STEPS = 11


def run(spec: RunSpec, after: int | None = None, signum: int = signal.SIGINT) -> RunRecord:
    display = SilentDisplay() if after is None else InterruptingDisplay(after, signum)
    return train(spec, "the command", display)


@pytest.fixture
def here(specified: Callable, tmp_path: Path) -> Callable[..., RunSpec]:
    def spec_in(place: str, *overrides: str) -> RunSpec:
        return specified(*HARD, *overrides, f"output_dir={tmp_path / place}")

    return spec_in


@pytest.fixture(scope="module")
def trained(
    specified: Callable, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., RunSpec]:
    """A run, whole or stopped by SIGINT after a step: trained once for all tests."""
    specs: dict[tuple[object, ...], RunSpec] = {}

    def train_once(after: int | None, *overrides: str) -> RunSpec:
        key = (after, *overrides)
        if key not in specs:
            folder = tmp_path_factory.mktemp("trained")
            spec = specified(*HARD, *overrides, f"output_dir={folder}")
            if after is None:
                assert run(spec).state == "finished"
            else:
                with pytest.raises(KeyboardInterrupt):
                    run(spec, after)
            specs[key] = spec
        return specs[key]

    return train_once


@pytest.fixture
def copied(trained: Callable, here: Callable) -> Callable[..., RunSpec]:
    """A copy of such a run, for the test to change and to go on with."""

    def copy_to(place: str, *overrides: str, after: int | None = None) -> RunSpec:
        spec: RunSpec = here(place, *overrides)
        shutil.copytree(trained(after, *overrides).study_folder, spec.study_folder)
        return spec

    return copy_to


@pytest.fixture
def whole(trained: Callable) -> Path:
    """A run that never stopped, to compare with; no test changes it."""
    folder: Path = trained(None).folder
    return folder


SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
# Every signal at two of the steps, and every step with one signal or two.
STOPS = [
    *((1, signal.SIGINT), (4, signal.SIGTERM), (7, signal.SIGHUP)),
    *((8, signal.SIGINT), (8, signal.SIGTERM), (1, signal.SIGHUP)),
]


@pytest.mark.parametrize(
    ("after", "signum"), STOPS, ids=[f"{after}-{signum.name}" for after, signum in STOPS]
)
def test_a_run_stopped_anywhere_goes_on_as_if_it_never_stopped(
    after: int, signum: int, here: Callable, trained: Callable
) -> None:
    often = ("trainer.log_every=1",) if after < 7 else ()
    spec, whole = here("stopped", *often), trained(None, *often).folder
    kind = KeyboardInterrupt if signum == signal.SIGINT else Terminated
    with pytest.raises(kind):
        run(spec, after, signum)
    record = RunRecord.read(spec.folder)
    assert record.state == "interrupted"
    assert signal.Signals(signum).name in (record.reason or "")
    assert run(spec).state == "finished"
    assert RunRecord.read(spec.folder).resumed_at != []
    assert_same_run(spec.folder, whole)


@pytest.mark.parametrize("signum", SIGNALS, ids=lambda signum: signum.name)
def test_a_signal_too_late_for_its_run_stops_the_study(
    signum: int, here: Callable, whole: Path
) -> None:
    spec = here("late")
    with pytest.raises(KeyboardInterrupt) as stopped:
        run(spec, STEPS, signum)
    assert stopping.signal_of(stopped.value) == signum
    assert_same_run(spec.folder, whole)


def test_a_signal_during_the_first_validation_is_heeded(
    here: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = here("early")
    monkeypatch.setattr(
        LanguageModel,
        "on_validation_epoch_end",
        lambda module: os.kill(os.getpid(), signal.SIGTERM),
    )
    with pytest.raises(Terminated):
        run(spec)
    assert RunRecord.read(spec.folder).reason == "stopped by SIGTERM at step 0"


def test_a_second_signal_is_the_one_that_counts(here: Callable) -> None:
    spec = here("twice")

    class Hasty(SilentDisplay):
        def update(self, step: int, loss: float, tokens_per_second: float) -> None:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Terminated):
        train(spec, "the command", Hasty())
    assert RunRecord.read(spec.folder).reason == "stopped by SIGTERM at step 3"


def test_a_flipped_digit_in_a_record_is_no_result(copied: Callable) -> None:
    spec = copied("flipped")
    path = spec.folder / "run.json"
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))
    with pytest.raises(NormlabError, match="wrong checksum"):
        RunRecord.read(spec.folder)
    run(spec)
    assert RunRecord.read(spec.folder).seed == 0


def test_what_a_killed_writer_left_is_removed(copied: Callable) -> None:
    spec = copied("killed", after=4)
    (spec.folder / "checkpoints" / ".last.ckpt.1.part").write_bytes(b"half")
    run(spec)
    assert not list(spec.folder.rglob("*.part"))


def test_a_run_stopped_again_and_again_is_still_the_same(here: Callable, whole: Path) -> None:
    spec = here("stopped")
    for after in (3, 6, 8):  # the steps shown are 3, 4, 7, 8 and 11
        with pytest.raises(KeyboardInterrupt):
            run(spec, after)
    assert run(spec).resumed_at == [3, 7, 8]
    assert_same_run(spec.folder, whole)


def test_what_was_logged_after_the_last_saved_state_is_taken_back(
    copied: Callable, whole: Path
) -> None:
    spec = copied("killed", after=4)
    state, events = latest_state(spec.folder, spec.id)[0], list(spec.folder.glob("events.*"))
    assert state is not None
    # The same run, killed four steps later, when nothing new had been saved.
    with pytest.raises(KeyboardInterrupt):
        run(spec, 8)
    later = [path for path in spec.folder.glob("events.*") if path not in events]
    assert later
    (spec.folder / "checkpoints/last.ckpt").write_bytes(b"cut off")
    assert run(spec).resumed_at[-1] == state.step
    assert not any(path.exists() for path in later)
    assert "damaged" in (spec.folder / "train.log").read_text()
    assert_same_run(spec.folder, whole)


@pytest.mark.parametrize("names", [["last.ckpt"], ["last.ckpt", "previous.ckpt"]])
@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "pickle"])
def test_a_damaged_state_falls_back_to_the_one_before_or_to_the_start(
    damage: str, names: list[str], copied: Callable, whole: Path
) -> None:
    spec = copied("damaged", "trainer.save_seconds=0", after=6)
    for name in names:
        harm(spec.folder / "checkpoints" / name, damage)
    record = run(spec)
    # Saved before every step, so the one before is one step back.
    assert record.resumed_at == ([6] if names == ["last.ckpt"] else [])
    assert_same_run(spec.folder, whole)


def harm(path: Path, damage: str) -> None:
    content = bytearray(path.read_bytes())
    if damage == "cut":
        del content[len(content) // 2 :]
    elif damage == "empty":
        content.clear()
    elif damage == "pickle":
        content = bytearray(b"cos\nsystem\n(S'touch /tmp/owned'\ntR.")
    else:
        with zipfile.ZipFile(path) as archive:
            largest = max(archive.infolist(), key=lambda info: info.file_size)
        content[largest.header_offset + 200 + largest.file_size // 2] ^= 1
    path.write_bytes(bytes(content))


def test_a_run_without_its_event_file_starts_afresh(copied: Callable, whole: Path) -> None:
    spec = copied("lost", after=4)
    for path in spec.folder.glob("events.*"):
        path.unlink()
    assert run(spec).resumed_at == []
    assert_same_run(spec.folder, whole)


def test_a_run_killed_after_its_last_step_only_writes_its_end(
    copied: Callable, whole: Path
) -> None:
    spec = copied("late")
    replace(RunRecord.read(spec.folder), state="running").write(spec.folder)
    assert run(spec).resumed_at == [STEPS]
    assert_same_run(spec.folder, whole)


def test_a_run_killed_after_it_has_diverged_only_writes_its_end(here: Callable) -> None:
    # The losses stay far above the limit, and finite: other states are refused.
    high = ("optimizer.lr=10", "schedule.warmup=0", "trainer.max_steps=40")
    spec, copy = here("diverged", *high), here("killed", *high)
    assert run(spec).state == "diverged"
    shutil.copytree(spec.study_folder, copy.study_folder)
    killed = replace(RunRecord.read(copy.folder), state="running", diverged_step=None, reason=None)
    killed.write(copy.folder)
    assert run(copy).diverged_step == RunRecord.read(spec.folder).diverged_step
    assert_same_run(copy.folder, spec.folder)


def test_a_run_goes_on_though_its_record_is_damaged(copied: Callable, whole: Path) -> None:
    spec = copied("cut", after=4)
    record = spec.folder / "run.json"
    record.write_text(record.read_text()[:200])
    assert run(spec).resumed_at == [4]
    assert_same_run(spec.folder, whole)


def test_a_run_that_says_it_is_running_and_is_not_was_killed(copied: Callable) -> None:
    spec = copied("killed", after=4)
    replace(RunRecord.read(spec.folder), state="running", step=0).write(spec.folder)
    found = read_run(spec.folder)
    assert (found.record.state, found.record.reason) == ("interrupted", "killed at about step 4")
    with lock_run(spec.study_folder, spec.id):
        assert read_run(spec.folder).record.state == "running"


def test_a_failed_run_goes_on_where_it_was(copied: Callable, whole: Path) -> None:
    spec = copied("failed", after=4)
    failed = replace(RunRecord.read(spec.folder), state="failed", reason="no space")
    failed.write(spec.folder)
    assert run(spec).resumed_at != []
    assert_same_run(spec.folder, whole)


def test_a_continued_run_that_fails_at_once_is_at_the_step_that_was_logged(
    copied: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = copied("failed", after=4)
    logged = RunRecord.read(spec.folder).step
    assert logged == 4

    def fail(*_: object) -> None:
        raise ValueError("the model is broken")

    monkeypatch.setattr(training_run, "build_model", fail)
    record = run(spec)
    assert (record.state, record.step) == ("failed", logged)
    assert RunRecord.read(spec.folder).step == logged


def test_a_state_of_another_run_is_not_gone_on_from(copied: Callable, here: Callable) -> None:
    one, other = copied("a"), here("b", "seed=1")
    run(other)
    state = (one.folder / "checkpoints/last.ckpt").read_bytes()
    (other.folder / "checkpoints/last.ckpt").write_bytes(state)
    found, left_out = latest_state(other.folder, other.id)
    assert found is None
    assert "no state of this run" in left_out[0]


def test_a_checkpoint_of_a_newer_format_is_refused(copied: Callable) -> None:
    spec = copied("newer")
    path = spec.folder / "checkpoints/last.ckpt"
    torch.save({**read_checkpoint(path), "format": 99}, path)
    with pytest.raises(NormlabError, match="format 99"):
        read_checkpoint(path)


def test_weights_of_the_first_builds_can_still_be_used(copied: Callable) -> None:
    spec = copied("older")
    path = spec.folder / "checkpoints/last.ckpt"
    content = read_checkpoint(path)
    torch.save({"state_dict": content["state_dict"], "global_step": 11}, path)
    assert read_checkpoint(path)["format"] == 0
    assert latest_state(spec.folder, spec.id)[0] is None


def test_two_states_are_kept_besides_the_best(here: Callable) -> None:
    spec = here("kept", "trainer.save_seconds=0")
    run(spec)
    folder = spec.folder / "checkpoints"
    assert {path.name for path in folder.iterdir()} == {"last.ckpt", "previous.ckpt", "best.ckpt"}
    steps = [read_checkpoint(folder / name)["step"] for name in ("last.ckpt", "previous.ckpt")]
    assert steps == [STEPS, STEPS - 1]


def test_a_finished_run_is_left_alone(copied: Callable) -> None:
    spec = copied("finished")
    record, before = RunRecord.read(spec.folder), changed_at(spec.folder)
    assert run(spec) == record
    assert changed_at(spec.folder) == before


def changed_at(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_a_run_has_one_owner_at_a_time(here: Callable) -> None:
    spec = here("owned")
    with (
        lock_run(spec.study_folder, spec.id),
        pytest.raises(RunLockedError, match=f"{os.getpid()}"),
    ):
        run(spec)
    assert not spec.folder.exists()
    assert run(spec).state == "finished"


def test_a_dead_owners_note_means_little_on_a_disk_that_machines_share(
    here: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "_LOCAL_FILE_SYSTEMS", set())
    spec = here("stale")
    locks = spec.study_folder / ".locks"
    locks.mkdir(parents=True)
    note = locks / f"{spec.id}.json"
    note.write_text(json.dumps({"pid": 999999, "host": "another"}))
    with pytest.raises(RunLockedError, match="999999 on another"):
        run(spec)
    os.utime(note, (0, 0))
    assert run(spec).state == "finished"


def test_a_note_is_renewed_while_its_run_is_locked_and_no_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "STALE_SECONDS", 0.2)
    monkeypatch.setattr(lock, "_renewal", threading.Thread())  # one with this pace
    note = tmp_path / ".locks" / "run.json"

    def is_renewed() -> bool:
        os.utime(note, (0, 0))
        end = time.monotonic() + 10
        while note.stat().st_mtime == 0 and time.monotonic() < end:
            time.sleep(0.01)
        return note.stat().st_mtime > 0

    with lock_run(tmp_path, "run"):
        assert is_renewed()
        assert is_renewed()
    note.write_text("of another process")
    os.utime(note, (0, 0))
    time.sleep(0.2)
    assert note.stat().st_mtime == 0


FORKED = """
import os, sys
from pathlib import Path
from normlab.archive import lock
with lock.lock_run(Path(sys.argv[1]), "parent"):
    child = os.fork()
    if child == 0:
        with lock.lock_run(Path(sys.argv[1]), "child"):
            held = [note.stem for note in lock._held]
            os._exit(0 if held == ["child"] and lock._renewal.is_alive() else 1)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
def test_a_forked_process_renews_its_own_notes_only(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORKED, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "0\n"


def test_a_note_that_is_removed_while_it_is_read_names_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    note = tmp_path / ".locks" / "run.json"
    note.parent.mkdir()
    note.write_text(json.dumps({"pid": 1, "host": "another"}))
    read = lock.read_text
    reads = iter((1, 2))

    def read_late(path: Path) -> str:
        text = read(path)
        if next(reads) == 2:
            path.unlink()
        return text

    monkeypatch.setattr(lock, "read_text", read_late)
    assert not lock.is_run_locked(tmp_path, "run")
    assert not note.exists()


def test_a_folder_that_vanishes_fails_the_run(here: Callable) -> None:
    spec = here("vanishing")

    class Vandal(SilentDisplay):
        def update(self, step: int, loss: float, tokens_per_second: float) -> None:
            import shutil

            shutil.rmtree(spec.folder, ignore_errors=True)

    record = train(spec, "the command", Vandal())
    assert record.state == "failed"
    assert "vanished" in (record.reason or "")


def test_where_a_run_comes_from_is_recorded(whole: Path) -> None:
    record = RunRecord.read(whole)
    assert record.hardware["threads"] == 1
    assert record.hardware["cores"] == os.cpu_count()
    assert record.kernels == torch.backends.cpu.get_cpu_capability()
    assert record.versions["torch"] == torch.__version__
    assert record.git is None or len(record.git.commit) == 40
