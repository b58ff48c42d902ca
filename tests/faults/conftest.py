"""What the tests in this room did to how many runs, and what it cost: all zeros at the end."""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from run_equality import CURVES, assert_same_run, list_steps
from study_process import STUDY, Ended, Process, end_processes, read_records, read_rows

COUNTS = pytest.StashKey[Counter[str]]()
# What must never happen is shown even when it did not.
NEVER = ("runs lost", "steps doubled or missing", "tracebacks")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[COUNTS] = Counter()


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    counts = config.stash[COUNTS]
    if counts:
        terminalreporter.section("faults")
        for what, count in sorted(counts.items()):
            if what not in NEVER:
                terminalreporter.write_line(f"{count:6} {what}")
        for what in NEVER:
            terminalreporter.write_line(f"{counts[what]:6} {what}")


@pytest.fixture(scope="session")
def counts(request: pytest.FixtureRequest) -> Counter[str]:
    """Add to it whatever is done to a run."""
    return request.config.stash[COUNTS]


@pytest.fixture(autouse=True)
def no_process_is_left() -> Iterator[None]:
    yield
    end_processes()


@pytest.fixture
def quiet(counts: Counter[str]) -> Callable[[Ended], Ended]:
    """Passes a process on that ended without a traceback."""

    def check(ended: Ended) -> Ended:
        counts["tracebacks"] += "Traceback" in ended.err + ended.out
        assert "Traceback" not in ended.err + ended.out, ended.err
        return ended

    return check


@pytest.fixture
def whole_again(counts: Counter[str]) -> Callable[[Path, Path], None]:
    """Asserts that a study is, to the bit, another that nothing happened to."""

    def check(study: Path, whole: Path) -> None:
        expected = read_records(whole)
        counts["runs lost"] += len(expected.keys() - read_records(study).keys())
        assert read_records(study).keys() == expected.keys()
        for name in expected:
            for tag in CURVES:
                ours, theirs = list_steps(study / name, tag), list_steps(whole / name, tag)
                counts["steps doubled or missing"] += ours != theirs
            assert_same_run(study / name, whole / name)
            counts["runs compared bit by bit"] += 1
        assert read_rows(study) == read_rows(whole)
        for figure in (whole / "figures").iterdir():
            assert (study / "figures" / figure.name).stat().st_size > 10_000

    return check


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study that nothing happens to."""
    place = tmp_path_factory.mktemp("whole")
    ended = Process(place, *STUDY, f"output_dir={place}", forked=True).end()
    assert ended.code == 0, ended.err
    return place / "synthetic"
