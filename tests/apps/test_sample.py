"""Text from a checkpoint, and what is said when it is not one of this run's model."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from normlab.apps.sample import main
from normlab.training.hardware import single_thread
from normlab.training.run import train
from tiny_run import TINY, SilentDisplay

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Two would wait for each other longer than they compute."""
    with single_thread():
        yield


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    def sample(*arguments: object) -> tuple[int, str, str]:
        code = 0
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as left:
            code = int(left.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return sample


@pytest.fixture(scope="module")
def original(specified: Callable, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    folders: dict[tuple[str, ...], Path] = {}

    def train_once(*overrides: str) -> Path:
        if overrides not in folders:
            output = tmp_path_factory.mktemp("original")
            spec = specified(*TINY, *overrides, f"output_dir={output}")
            assert train(spec, "", SilentDisplay()).state == "finished"
            folders[overrides] = spec.folder
        return folders[overrides]

    return train_once


@pytest.fixture
def trained(original: Callable, tmp_path: Path) -> Callable[..., Path]:
    """The folder of a run with these overrides: trained once, copied for each test."""

    def copy_one(*overrides: str) -> Path:
        folder = original(*overrides)
        return Path(shutil.copytree(folder, tmp_path / folder.parent.name / folder.name))

    return copy_one


def test_a_run_writes_in_its_own_alphabet(trained: Callable, call: Call) -> None:
    code, out, _ = call(trained(), "--length", 40, "--prompt", "abc")
    assert code == 0
    assert out.startswith("abc")
    assert len(out.rstrip("\n")) == 43
    assert set(out.strip()) <= set("abcdefgh")


def test_a_seed_gives_the_same_text(trained: Callable, call: Call) -> None:
    run = trained()
    first, same, other = (call(run, "--length", 60, "--seed", seed) for seed in (1, 1, 2))
    assert first == same != other


def test_the_likeliest_token_alone_is_greedy(trained: Callable, call: Call) -> None:
    run = trained()
    first, other = (call(run, "--length", 60, "--top-k", 1, "--seed", seed) for seed in (1, 2))
    assert first == other


def test_a_checkpoint_of_another_model_is_refused(trained: Callable, call: Call) -> None:
    run, other = trained(), trained("model.width=32")
    code, out, err = call(run, "--checkpoint", other / "checkpoints" / "last.ckpt")
    assert (code, out) == (1, "")
    assert "belongs to another model" in err
    assert err.count("\n") == 1


def test_a_damaged_or_foreign_file_is_no_checkpoint(
    trained: Callable, call: Call, tmp_path: Path
) -> None:
    run = trained()
    damaged, foreign = tmp_path / "damaged.ckpt", tmp_path / "foreign.ckpt"
    damaged.write_bytes((run / "checkpoints" / "last.ckpt").read_bytes()[:5000])
    torch.save({"weights": torch.zeros(3)}, foreign)
    for path in (damaged, foreign, tmp_path / "missing.ckpt"):
        code, out, err = call(run, "--checkpoint", path)
        assert (code, out) == (1, "")
        assert str(path) in err
        assert err.count("\n") == 1


def test_a_run_whose_files_have_changed_is_sampled_with_a_note(
    trained: Callable, call: Call
) -> None:
    run = trained()
    assert call(run)[2] == ""
    vocabulary = run / "vocabulary.json"
    vocabulary.write_text(vocabulary.read_text().replace("abc", "zbc"))
    code, out, err = call(run, "--length", 60)
    assert code == 0
    assert out
    assert err.startswith(f"note: {run}: vocabulary.json is not what the run wrote; ")
    assert err.count("\n") == 1
    (run / "run.json").write_text("{")
    assert "run.json cannot be read, so nothing tells" in call(run, "--length", 60)[2]


def test_a_folder_that_is_no_run_is_refused(call: Call, tmp_path: Path) -> None:
    code, _, err = call(tmp_path)
    assert code == 1
    assert "is not the folder of a run" in err
    (tmp_path / "run").mkdir()
    assert f"did you mean {tmp_path}/run?" in call(tmp_path / "rum")[2]


BOUNDS = {
    "--length": (0, 10**6 + 1),
    "--top-k": (0, 10**9 + 1),
    "--seed": (-1, 2**63),
    "--temperature": (0, -1, 1e-9, 1e7, "nan", "inf"),
}


@pytest.mark.parametrize("flag", BOUNDS)
def test_a_number_beyond_its_bounds_is_refused_before_anything_is_read(
    flag: str, call: Call, tmp_path: Path
) -> None:
    for value in BOUNDS[flag]:
        code, out, err = call(tmp_path, f"{flag}={value}")
        assert (code, out) == (2, "")
        assert err.startswith(f"normlab: {flag} ")
        assert "is not allowed; it must be from " in err
        assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--prompt", "xyz!"), "!"),
        (("--length", "ten"), "--length ten is not allowed; it must be a whole number"),
    ],
)
def test_what_cannot_be_sampled_is_said(
    arguments: tuple[object, ...], word: str, trained: Callable, call: Call
) -> None:
    code, out, err = call(trained(), *arguments)
    assert (code, out) == (2, "")
    assert word in err
    assert err.count("\n") == 1
