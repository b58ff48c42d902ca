"""Files that were cut off or had a bit flipped: repaired to the bit, or told in a sentence."""

import random
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from normlab.analysis.plot import write_study_report
from normlab.analysis.runs_csv import write_runs_csv
from normlab.archive.record import RunRecord
from normlab.archive.study import read_run, read_study
from normlab.config.run_spec import RunSpec
from normlab.errors import NormlabError
from normlab.training.run import train
from run_equality import assert_same_run, read_curves
from tiny_run import TINY, InterruptingDisplay, SilentDisplay

RUN = (*TINY, "model.dropout=0.1", "trainer.save_seconds=0", "trainer.max_steps=10")
FILES = (
    *("run.json", "config.yaml", "vocabulary.json", "train.log", "events.*"),
    *("checkpoints/last.ckpt", "checkpoints/previous.ckpt", "checkpoints/best.ckpt"),
)
DAMAGES = ("files cut off", "bits flipped")


def harm(path: Path, damage: str, chance: random.Random) -> None:
    content = bytearray(path.read_bytes())
    at = chance.randrange(len(content))
    if damage == "files cut off":
        del content[at:]
    else:
        content[at] ^= 1 << chance.randrange(8)
    path.write_bytes(bytes(content))


@dataclass
class Patient:
    """A run before and after it was stopped, of which copies are damaged."""

    specified: Callable[..., RunSpec]
    place: Path
    counts: Counter[str]

    def __post_init__(self) -> None:
        self.finished = self.spec("finished")
        train(self.finished, "the command", SilentDisplay())
        self.interrupted = self.spec("interrupted")
        with pytest.raises(KeyboardInterrupt):
            train(self.interrupted, "the command", InterruptingDisplay(4))

    def spec(self, place: str) -> RunSpec:
        return self.specified(*RUN, f"output_dir={self.place / place}")

    def damaged(self, original: RunSpec, file: str, damage: str, seed: int) -> RunSpec:
        copy = self.spec("copy")
        shutil.rmtree(copy.study_folder, ignore_errors=True)
        shutil.copytree(original.study_folder, copy.study_folder)
        (path,) = copy.folder.glob(file)
        harm(path, damage, random.Random(f"{file} {damage} {seed}"))
        self.counts[damage] += 1
        return copy


@pytest.fixture
def patient(specified: Callable, tmp_path: Path, counts: Counter[str]) -> Patient:
    return Patient(specified, tmp_path, counts)


def assert_told_or_same(run: Path, whole: Path, beside: bool) -> None:
    """The numbers are right; whatever else differs, a sentence tells.

    `beside`: whether a file is damaged that no number comes from.
    """
    ours, theirs = RunRecord.read(run), RunRecord.read(whole)
    assert (ours.state, ours.step) == (theirs.state, theirs.step)
    assert (ours.final, ours.best) == (theirs.final, theirs.best)
    read = read_run(run)
    told = read.left_out or read.changed_files
    try:
        assert_same_run(run, whole)
    except NormlabError as unreadable:
        assert_says(unreadable, "is damaged")
    except (AssertionError, KeyError):
        # Of a long text nothing is read but words: every point is there all the same.
        assert told or read_curves(run) == read_curves(whole)
    else:
        assert bool(told) == beside


def assert_says(error: NormlabError, words: object) -> None:
    assert str(words) in str(error)


def assert_plotted(spec: RunSpec, whole: Path) -> None:
    """Results are read as they are, or a sentence tells why not."""
    try:
        study = read_study(spec.study_folder)
    except NormlabError as error:
        assert_says(error, spec.study_folder)
        return
    write_runs_csv(study)
    (run,) = study.runs
    if run.record.state == "finished" and not study.left_out:
        expected = RunRecord.read(whole)
        assert (run.record.final, run.record.best) == (expected.final, expected.best)


def heal(patient: Patient, original: RunSpec, file: str, damage: str, seed: int) -> None:
    spec = patient.damaged(original, file, damage, seed)
    assert_plotted(spec, patient.finished.folder)
    assert train(spec, "the command", SilentDisplay()).state == "finished"
    beside = original is patient.finished and file in ("config.yaml", "vocabulary.json")
    assert_told_or_same(spec.folder, patient.finished.folder, beside)
    patient.counts["damaged runs made whole or told"] += 1


def test_a_damaged_file_gives_no_wrong_result(patient: Patient) -> None:
    for number, file in enumerate(FILES):
        heal(patient, patient.interrupted, file, DAMAGES[number % 2], 0)
    for file in ("run.json", "config.yaml", "vocabulary.json"):
        heal(patient, patient.finished, file, DAMAGES[1], 0)


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("state", ["finished", "interrupted"])
def test_no_damage_to_any_file_gives_a_wrong_result(
    state: str, file: str, damage: str, patient: Patient
) -> None:
    for seed in range(1, 9):
        heal(patient, getattr(patient, state), file, damage, seed)


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("file", FILES)
def test_a_damaged_study_is_drawn_or_refused_in_words(
    file: str, damage: str, patient: Patient
) -> None:
    for original in (patient.finished, patient.interrupted):
        spec = patient.damaged(original, file, damage, 100)
        try:
            assert write_study_report(spec.study_folder).figures
        except NormlabError as error:
            assert_says(error, spec.study_folder)
