"""Results of a user's own class tell by which source it was trained."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from normlab.archive.record import RunRecord
from normlab.config.run_spec import RunSpec
from normlab.config.user_sources import digest_user_sources
from normlab.training.run import train
from tiny_run import TINY, InterruptingDisplay, SilentDisplay

pytestmark = pytest.mark.usefixtures("without_figures")

BASE = """
import torch

class Base(torch.nn.Module):
    def forward(self, x):
        return x / self.size(x)
"""
SOURCE = """
from own_base import Base

class Own(Base):
    def __init__(self, width):
        super().__init__()

    def size(self, x):  # of a token
        return x.square().mean(-1, keepdim=True).add(1e-6).sqrt()
"""
CHANGES = {"own_norms": ("1e-6", "1e-2"), "own_base": ("x / ", "2 * x / ")}


class OwnNorm:
    """The files `own_norms.py` and `own_base.py`, and a config that names the class."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "own" / "norm").mkdir(parents=True)
        (folder / "own" / "norm" / "own.yaml").write_text("_target_: own_norms.Own\n")
        self.write("own_base", BASE)
        self.write("own_norms", SOURCE)

    def write(self, module: str, text: str) -> None:
        (self.folder / f"{module}.py").write_text(text)
        # The next command is a new process, which imports the file as it is.
        for name in ("own_norms", "own_base"):
            sys.modules.pop(name, None)
        # Else two versions of equal size within a second are the same to Python.
        shutil.rmtree(self.folder / "__pycache__", ignore_errors=True)

    def change(self, module: str) -> None:
        path = self.folder / f"{module}.py"
        before = path.read_text()
        after = before.replace(*CHANGES[module])
        assert after != before
        self.write(module, after)


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OwnNorm:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("NORMLAB_TRUST", "own_norms")
    return OwnNorm(tmp_path)


@pytest.fixture
def train_own(own: OwnNorm, train_py: Callable) -> Callable:
    def command(*words: str) -> object:
        folders = ("--config-dir", str(own.folder / "own"))
        return train_py(*folders, "-m", "norm=own", *TINY, f"output_dir={own.folder}", *words)

    return command


def records(own: OwnNorm, study: str = "synthetic") -> list[RunRecord]:
    paths = sorted((own.folder / study).glob("*/run.json"))
    return [RunRecord.read(path.parent) for path in paths]


def digests() -> dict[str, str]:
    return digest_user_sources({"norm": {"_target_": "own_norms.Own"}})


def test_comments_and_layout_do_not_count(own: OwnNorm) -> None:
    before = digests()
    assert set(before) == {"own_norms", "own_base"}
    own.write("own_norms", SOURCE.replace("  # of a token", "\n\n        # one number"))
    assert digests() == before


@pytest.mark.parametrize("module", CHANGES)
def test_a_change_of_the_class_or_of_what_it_inherits_counts(own: OwnNorm, module: str) -> None:
    before = digests()
    own.change(module)
    after = digests()
    assert [name for name in before if after[name] != before[name]] == [module]


def test_what_a_module_was_when_it_was_imported_counts(own: OwnNorm) -> None:
    before = digests()
    path = own.folder / "own_norms.py"
    path.write_text(path.read_text().replace("1e-6", "1e-2"))
    assert digests() == before


def test_normlabs_and_torchs_classes_have_their_versions(specified: Callable) -> None:
    assert digest_user_sources(specified("norm=layernorm").plain) == {}


@pytest.mark.parametrize("name", [None, "nowhere", 3])
def test_a_class_that_names_no_module_has_no_digest(own: OwnNorm, name: object) -> None:
    own.write("own_norms", SOURCE + f"\n    __module__ = {name!r}\n")
    assert set(digests()) == {"own_base"}


def test_a_class_that_cannot_be_imported_has_no_digest(own: OwnNorm) -> None:
    own.write("own_norms", "raise SystemError\n")
    assert digests() == {}


@pytest.mark.parametrize("module", CHANGES)
def test_a_result_of_another_source_is_refused(
    own: OwnNorm, train_own: Callable, module: str
) -> None:
    assert train_own().code == 0
    (before,) = records(own)
    assert set(before.sources) == {"own_norms", "own_base"}
    own.change(module)
    answer = train_own()
    assert answer.code == 2
    assert f"{module} has changed since it was trained" in answer.err
    assert "study=…" in answer.err
    assert records(own) == [before]
    assert train_own("study=second").code == 0
    (second,) = records(own, "second")
    assert second.id == before.id
    assert second.sources != before.sources


def test_a_comparison_of_two_sources_says_so(own: OwnNorm, train_own: Callable) -> None:
    assert train_own("seed=0,1").code == 0
    own.change("own_norms")
    assert train_own("seed=2").code == 0
    page = (own.folder / "synthetic" / "report.html").read_text()
    assert "Runs that are compared differ in the source of own_norms: " in page
    assert "the source of own_base" not in page


def test_an_interrupted_run_of_another_source_starts_afresh(
    own: OwnNorm, specified: Callable
) -> None:
    words = ("norm=rmsnorm", "norm._target_=own_norms.Own", "~norm.eps", "~norm.cast")
    spec: RunSpec = specified(*words, *TINY, f"output_dir={own.folder}")
    with pytest.raises(KeyboardInterrupt):
        train(spec, "the command", InterruptingDisplay(2))
    own.change("own_norms")
    said = []

    class Display(SilentDisplay):
        def say(self, sentence: str) -> None:
            said.append(sentence)

    ended = train(spec, "the command", Display())
    assert (ended.state, ended.resumed_at) == ("finished", [])
    assert said == ["the source of own_norms has changed since; the run starts afresh"]


def test_a_repeat_names_the_source_and_is_not_shown_as_trained_twice(
    own: OwnNorm, train_own: Callable, train_py: Callable
) -> None:
    assert train_own().code == 0
    (run,) = (own.folder / "synthetic").glob("*/run.json")
    own.change("own_norms")
    answer = train_py("--from", str(run.parent))
    assert answer.code == 1
    assert "differs  sources.own_norms: " in answer.out
    assert "compared without training" not in answer.out
    again = train_py("--from", str(run.parent))
    assert again.code == 1
    assert "is a repeat from 20" in again.out
    assert "compared without training" in again.out
    assert "differs  sources.own_norms: " in again.out
    own.write("own_norms", SOURCE)
    third = train_py("--from", str(run.parent))
    assert third.code == 2
    assert "own_norms has changed since it was trained" in third.err
