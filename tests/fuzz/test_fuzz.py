"""Ten thousand requests, files, run folders and event files, bent at random: a sentence each.

Each case is derived from a file of conf/, a hostile file or a trained run. It is refused in one
sentence or carried out as far as a model that is built, a text that is sampled, or a table that is
written; never a traceback, never long, never much memory. A failure prints the seed and the case:
NORMLAB_FUZZ_SEED=… repeats it.
"""

import os
import random
import resource
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hydra.core.config_loader import ConfigLoader
from omegaconf import DictConfig

from fuzz.events import bend_events
from fuzz.folders import bend_folder, copy_run, read_bent_study
from fuzz.requests import bend_file, bend_overrides
from normlab.archive.record import RunRecord
from normlab.config.compose import composed_config, explain_error, is_configuration_error
from normlab.config.gate import check_folder
from normlab.config.run_spec import RunSpec
from normlab.errors import NormlabError
from normlab.study.command import read_command
from normlab.study.composition import RunComposer
from normlab.study.plan import expand_overrides
from normlab.training.build import build_model, check_networks
from normlab.training.run import train
from tiny_run import TINY, SilentDisplay

CASES_PER_KIND = 2_500
FAST_CASES_PER_KIND = 12
# Of the processor, a case: on a slow one, so many times what a sound request takes there.
MOST_SECONDS, MOST_SOUND_REQUESTS = 2.0, 5
MOST_KIBIBYTES = 2**20  # that a case may add to the largest size of the process
# A model of more weights is composed and checked, but not built here.
MOST_WEIGHTS = 2_000_000
SMALL = ("model.width=32", "model.depth=2", "model.heads=2", "model.context=16", "norm=rmsnorm")

Case = Callable[[random.Random, Path], str]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was trained for six steps."""
    place = tmp_path_factory.mktemp("trained")
    with composed_config([*TINY, f"output_dir={place}"]) as (loader, master):
        spec = RunComposer(loader, master).compose([*TINY, f"output_dir={place}"])
    assert train(spec, "train.py", SilentDisplay()).state == "finished"
    return spec.folder


def build_if_small(spec: RunSpec) -> str:
    model = spec.config.model
    weights = 12 * model.width**2 * model.hidden_ratio * model.depth
    if weights > MOST_WEIGHTS or model.context > 1024:
        return "passed"
    check_networks([spec])
    build_model(spec.config, vocabulary=8)
    return "built"


def try_file(dice: random.Random, folder: Path) -> str:
    group = bend_file(dice, folder)
    try:
        check_folder(folder)
    except NormlabError as error:
        assert_a_sentence(error)
        return "gate"
    with composed_config([], folder) as (loader, master):
        plus = "+" if group in ("experiment", "sweep") and dice.random() < 0.1 else ""
        overrides = [*SMALL, f"{plus}{group}=bent"]
        if group == "norm":
            overrides.remove("norm=rmsnorm")
        return build_if_small(RunComposer(loader, master).compose(overrides))


def try_overrides(dice: random.Random, loader: ConfigLoader, master: DictConfig) -> str:
    try:
        words = read_command(["-m", *bend_overrides(dice)])
    except NormlabError as error:
        assert_a_sentence(error)
        return "gate"
    own = [word for word in words if not word.startswith("-")]
    keys = {word.lstrip("+~").partition("=")[0] for word in own}
    small = [word for word in SMALL if word.partition("=")[0] not in keys]
    try:
        first, *_ = expand_overrides(loader, [*small, *own]).combinations
        return build_if_small(RunComposer(loader, master).compose(first))
    except Exception as error:
        if isinstance(error, NormlabError) or not is_configuration_error(error):
            raise
        raise explain_error(error) from error


def try_folder(dice: random.Random, folder: Path, original: Path) -> str:
    run = copy_run(original, folder)
    bend_folder(dice, run)
    return read_bent_study(dice, run)


def try_events(dice: random.Random, folder: Path, original: Path) -> str:
    run = copy_run(original, folder)
    bend_events(dice, run)
    before = RunRecord.read(original)
    outcome = read_bent_study(dice, run)
    assert RunRecord.read(original) == before
    return outcome


def assert_a_sentence(error: NormlabError) -> None:
    sentence = str(error)
    assert 0 < len(sentence) < 2_000, sentence[:200]
    assert sentence.count("\n") <= 2, sentence  # an expression points with a caret


@contextmanager
def bounded(name: str, most_seconds: float) -> Iterator[None]:
    """Fails where the body takes too long, or too much memory, or does not end."""

    def give_up(signum: int, frame: object) -> None:
        raise AssertionError(f"{name} does not end")

    signal.signal(signal.SIGALRM, give_up)
    signal.alarm(60)
    before = resource.getrusage(resource.RUSAGE_SELF)
    start = time.process_time()
    try:
        yield
    finally:
        signal.alarm(0)
    seconds = time.process_time() - start
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before.ru_maxrss
    assert seconds <= most_seconds, f"{name} took {seconds:.1f} s of the processor"
    assert grown <= MOST_KIBIBYTES, f"{name} took {grown / 1024:.0f} MiB"


def measure_sound_request() -> float:
    """Seconds of the processor from nothing to a small model; a second time, without imports."""
    for _ in range(2):
        start = time.process_time()
        with composed_config([]) as (loader, master):
            assert build_if_small(RunComposer(loader, master).compose(SMALL)) == "built"
    return time.process_time() - start


def run_case(case: Case, name: str, folder: Path, most_seconds: float) -> str:
    folder.mkdir(parents=True)
    try:
        with bounded(name, most_seconds):
            return case(random.Random(name), folder)
    except NormlabError as error:
        assert_a_sentence(error)
        return "refused"
    except Exception as error:
        raise AssertionError(f"{name} raises {type(error).__name__}") from error


def run_cases(seed: int, count: int, trained: Path, tmp_path: Path) -> Counter[str]:
    outcomes: Counter[str] = Counter()
    failures: list[str] = []
    most_seconds = max(MOST_SECONDS, MOST_SOUND_REQUESTS * measure_sound_request())

    def run(kind: str, case: Case) -> None:
        for number in range(count):
            name = f"{seed}: {kind} {number}"
            folder = tmp_path / kind / str(number)
            try:
                outcomes[f"{kind} {run_case(case, name, folder, most_seconds)}"] += 1
            except AssertionError as failure:
                failures.append(f"{failure} ({failure.__cause__!r})")
            shutil.rmtree(folder)

    run("file", try_file)
    with composed_config([]) as hydra:
        run("overrides", lambda dice, folder: try_overrides(dice, *hydra))
    run("folder", lambda dice, folder: try_folder(dice, folder, trained))
    run("events", lambda dice, folder: try_events(dice, folder, trained))
    assert not failures, "\n".join(failures)
    return outcomes


@pytest.fixture(autouse=True)
def no_download(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise OSError("no network in tests")

    monkeypatch.setattr("socket.create_connection", refuse)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def test_a_few_of_each_kind(trained: Path, tmp_path: Path) -> None:
    outcomes = run_cases(1, FAST_CASES_PER_KIND, trained, tmp_path)
    assert outcomes.total() == 4 * FAST_CASES_PER_KIND


@pytest.mark.slow
def test_ten_thousand(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seed = int(os.environ.get("NORMLAB_FUZZ_SEED", time.time_ns() % 10**6))
    with capsys.disabled():
        sys.stdout.write(f"\nfuzz: seed {seed}\n")
    outcomes = run_cases(seed, CASES_PER_KIND, trained, tmp_path)
    with capsys.disabled():
        sys.stdout.write(f"{dict(sorted(outcomes.items()))}\n")
    total = outcomes.total()
    built = sum(count for name, count in outcomes.items() if name.endswith("built"))
    stopped = sum(count for name, count in outcomes.items() if name.endswith("gate"))
    assert total == 10_000
    # A gate that refuses everything would pass every other line here.
    assert total - stopped >= 0.2 * total
    assert built >= 0.05 * total
