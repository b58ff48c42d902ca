"""`--from` repeats a run exactly, elsewhere, and says whether it came out the same."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from torch.utils.tensorboard import SummaryWriter

from normlab.archive import tags
from normlab.archive.record import RunRecord
from normlab.config.run_spec import RunSpec
from normlab.study import repeat
from normlab.study.plan import ELSEWHERE
from tiny_run import TINY

pytestmark = pytest.mark.usefixtures("without_figures")

MINE = ("norm=layernorm", "placement=mixln", "norm.eps=1e-4", "seed=3", "model.dropout=0.1")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("original")


@pytest.fixture
def first(
    train_py: Callable, original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A run of a study called first: trained once, copied for each test.

    Its folder of results is in the current folder, so a repeat of the copy is beside the copy.
    """
    if not (original / "outputs").exists():
        monkeypatch.chdir(original)
        answer = train_py(*TINY, *MINE, "study=first", "output_dir=outputs")
        assert answer.code == 0, answer.err
    shutil.copytree(original / "outputs", tmp_path / "outputs")
    monkeypatch.chdir(tmp_path)
    (path,) = (tmp_path / "outputs" / "first").glob("*/run.json")
    return path.parent


def test_a_run_is_repeated_to_the_bit_in_a_study_of_its_own(
    first: Path, train_py: Callable
) -> None:
    answer = train_py("--from", str(first))
    assert answer.code == 0, answer.err
    assert "the same, to the bit" in answer.out
    again = first.parents[1] / "first-repeat" / first.name
    ours, theirs = (json.loads((run / "run.json").read_text()) for run in (again, first))
    assert ours["final"] == theirs["final"]
    assert ours["id"] == theirs["id"]
    assert ours["norm"] == "layernorm"


def test_a_run_is_repeated_with_the_threads_that_it_had(train_py: Callable, tmp_path: Path) -> None:
    # A run that leaves its threads open had what was its share of the machine.
    free = [word for word in TINY if not word.startswith("trainer.threads")]
    assert train_py(*free, *MINE, "study=free", f"output_dir={tmp_path}").code == 0
    (path,) = (tmp_path / "free").glob("*/run.json")
    record = RunRecord.read(path.parent)
    record.hardware["threads"] = 3
    record.write(path.parent)
    answer = train_py("--from", str(path.parent), "study=third")
    (again,) = (tmp_path / "third").glob("*/run.json")
    assert RunRecord.read(again.parent).hardware["threads"] == 3
    assert "hardware.threads" not in answer.out


def test_another_result_is_told_with_its_step(first: Path, train_py: Callable) -> None:
    # The recorded run was, as it seems, another one.
    config = first / "config.yaml"
    record = RunRecord.read(first)
    assert train_py("--from", str(first)).code == 0
    assert record.final.val_loss is not None
    record.final.val_loss += 1e-9
    record.versions["torch"] = "1.0"
    record.write(first)
    answer = train_py("--from", str(first), "study=second")
    assert answer.code == 1
    assert "not the same: the curves agree, but the ends differ" in answer.err
    assert "versions.torch: 1.0" in answer.out
    config.write_text(config.read_text().replace("seed: 3", "seed: 4"))
    answer = train_py("--from", str(first), "study=third")
    assert answer.code == 1
    assert "config.yaml is not what the run wrote, and asks for another run" in answer.err
    record.files = {}
    record.write(first)
    answer = train_py("--from", str(first), "study=fourth")
    assert answer.code == 1
    assert "meant something else" in answer.err


def test_a_repeat_that_did_not_happen_is_not_called_another_result(
    first: Path, train_py: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end_elsewhere(*_: object, **__: object) -> str:
        return ELSEWHERE

    monkeypatch.setattr(repeat, "train_with_progress", end_elsewhere)
    answer = train_py("--from", str(first))
    assert answer.code == 1
    assert "is being trained by another process; repeat when it has ended." in answer.err

    def fail(spec: RunSpec, *_: object, **__: object) -> str:
        record = RunRecord.read(first)
        record.state, record.reason = "failed", "out of memory"
        spec.folder.mkdir(parents=True)
        record.write(spec.folder)
        return "failed"

    monkeypatch.setattr(repeat, "train_with_progress", fail)
    answer = train_py("--from", str(first), "study=second")
    assert answer.code == 1
    assert "the repeat did not finish: out of memory" in answer.err
    record = RunRecord.read(first)
    record.state = "interrupted"
    record.write(first)
    answer = train_py("--from", str(first), "study=third")
    assert answer.code == 1
    assert f"{first} has no result to compare with (interrupted)." in answer.err


def test_a_run_whose_files_have_changed_is_repeated_with_a_note(
    first: Path, train_py: Callable
) -> None:
    config = first / "config.yaml"
    config.write_text(config.read_text() + "# mine\n")
    (first / "checkpoints" / "best.ckpt").unlink()
    answer = train_py(f"--from={first}")
    assert answer.code == 0
    (note,) = [line for line in answer.out.splitlines() if line.startswith("note: ")]
    assert "config.yaml is not what the run wrote, checkpoints/best.ckpt is missing" in note


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--from"], ["needs a run's folder"]),
        (["--from="], ["needs a run's folder"]),
        (["--from=nowhere", "study=a"], ["nowhere holds no run"]),
        (["--from", "seed=3"], ["needs a run's folder"]),
        (["--from", "RUN", "seed=3"], ["seed=3", "study=… and output_dir=…"]),
        (["--from", "RUN-"], ["holds no run", "did you mean RUN?"]),
        (["--from", "nowhere"], ["nowhere holds no run", "outputs/<study>/<run>"]),
        (["--from", "RUN", "study=first"], ["cannot be repeated into itself"]),
        (["--from", "RUN", "study=../up"], ["study='../up'"]),
    ],
)
def test_what_cannot_be_repeated_is_one_sentence(
    arguments: list[str], words: list[str], first: Path, train_py: Callable
) -> None:
    answer = train_py(*[word.replace("RUN", str(first)) for word in arguments])
    assert answer.code in (1, 2)
    assert answer.err.count("\n") == 1
    for word in words:
        assert word.replace("RUN", str(first)) in answer.err


def test_a_text_that_has_changed_is_not_taken_for_the_one_of_the_run(
    train_py: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    text = tmp_path / "book.txt"
    text.write_text("the quick brown fox jumps over the lazy dog. " * 40)
    tiny = [word for word in TINY if "validation_windows" not in word]
    assert train_py(*tiny, "data=text", f"data.path={text}", f"output_dir={tmp_path}/o").code == 0
    (path,) = (tmp_path / "o").glob("*/*/run.json")
    text.write_text("the quick brown cat jumps over the lazy dog. " * 40)
    answer = train_py("--from", str(path.parent))
    assert answer.code == 1
    assert "another text" in answer.err
    assert not (tmp_path / "o" / "text-book-repeat" / path.parent.name).exists()


def test_a_damaged_configuration_is_named(first: Path, train_py: Callable) -> None:
    (first / "config.yaml").write_text("seed: [")
    answer = train_py("--from", str(first))
    assert answer.code == 1
    assert "config.yaml is damaged" in answer.err


@pytest.mark.parametrize(
    ("old", "new", "difference"),
    [
        ([2.0, 1.5], [2.0, 1.6], "train/loss differs from step 1 on."),
        ([2.0, 1.5], [2.0], "train/loss differs from step 1 on."),
        ([2.0, math.nan], [2.0, math.nan], ""),
    ],
)
def test_the_first_point_that_is_another_is_named(
    old: list[float], new: list[float], difference: str, tmp_path: Path
) -> None:
    for name, losses in (("old", old), ("new", new)):
        with SummaryWriter(str(tmp_path / name)) as writer:
            for step, loss in enumerate(losses):
                writer.add_scalar(tags.TRAIN_LOSS, loss, step)
    record = RunRecord("", "run", "rmsnorm", "pre", "synthetic", 0, {}, {}, "finished")
    described = repeat._describe_difference(tmp_path / "old", record, tmp_path / "new", record)
    assert described == difference


def test_a_study_that_cannot_be_one_is_the_commands_fault(first: Path, train_py: Callable) -> None:
    answer = train_py("--from", str(first), "study=my repeat")
    assert answer.code == 2
    assert "study='my repeat' cannot be the name of a folder" in answer.err
    assert "damaged" not in answer.err


def test_a_folder_may_have_an_equals_sign_and_a_study_a_long_name(
    first: Path, train_py: Callable
) -> None:
    study = first.parents[1] / ("a" * 64)
    record = RunRecord.read(first)
    record.config["study"] = study.name
    record.write(first)
    folder = first.parents[1] / "a=b"
    first.parent.rename(study)
    study.rename(folder)
    answer = train_py("--from", str(folder / first.name), f"output_dir={folder.parent}/again")
    assert "the same, to the bit" in answer.out, answer.err
    assert [path.name for path in (folder.parent / "again").iterdir()] == ["a" * 57 + "-repeat"]
