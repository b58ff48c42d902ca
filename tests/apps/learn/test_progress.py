"""The progress file: the learner's own, atomic, never replaced silently."""

import threading
from pathlib import Path

import pytest
import yaml

from command_calls import Call
from normlab.apps.learn import progress
from normlab.apps.learn.progress import (
    PredictionProgress,
    Progress,
    read_progress,
    reset_progress,
    update_progress,
)
from normlab.errors import NormlabError

FILE = Path("outputs/learn/progress.yaml")


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def add_everything(stored: Progress) -> None:
    stored.lessons["1"] = "2026-11-26"
    stored.predictions["p"] = PredictionProgress(0.3, 0.25, 0.1, 0.4, True)
    stored.predictions["q"] = PredictionProgress(3.0)
    stored.question("a").right = True
    stored.exercise("rmsnorm").checks = 2
    stored.answers["1"] = "Weil jede Schicht √(1/6) verliert: „Gradient“\nzweite Zeile ${x}"


def test_what_is_written_is_read_back() -> None:
    written = update_progress(add_everything)
    assert read_progress() == written
    assert yaml.safe_load(FILE.read_text())["schema_version"] == 1


def test_without_a_file_nothing_is_done_yet() -> None:
    assert read_progress() == Progress()
    assert not FILE.exists()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "just text",
        "schema_version: 2\n",
        "schema_version: 1\nexercises: 3\n",
        "schema_version: 1\nexercises: {rmsnorm: {passed: maybe}}\n",
        "schema_version: 1\npredictions: {p: {guess: .nan}}\n",
        "schema_version: 1\nlessons: {1: [\n",
        "schema_version: 1\nanswers: !!python/object/apply:os.system ['true']\n",
        "[" * 400,
    ],
)
def test_a_damaged_file_is_a_sentence_with_a_way_out_and_stays_as_it_is(text: str) -> None:
    FILE.parent.mkdir(parents=True)
    FILE.write_text(text)
    for call in (read_progress, lambda: update_progress(add_everything)):
        with pytest.raises(NormlabError) as raised:
            call()
        assert str(FILE) in str(raised.value)
        assert "damaged" in str(raised.value)
        assert "normlab-learn reset" in str(raised.value)
        assert "\n" not in str(raised.value)
    assert FILE.read_text() == text


def test_a_file_in_another_encoding_is_a_sentence() -> None:
    FILE.parent.mkdir(parents=True)
    FILE.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(NormlabError, match="damaged"):
        read_progress()


def test_a_file_that_a_learner_edits_may_lack_sections_and_have_unquoted_numbers() -> None:
    FILE.parent.mkdir(parents=True)
    FILE.write_text("schema_version: 1\nexercises: {rmsnorm: {passed: true}}\n")
    assert read_progress().exercises["rmsnorm"].passed


def test_reset_keeps_the_old_file_under_another_name() -> None:
    assert reset_progress() is None
    update_progress(add_everything)
    text = FILE.read_text()
    backup = reset_progress()
    assert backup is not None
    assert backup.read_text() == text
    assert read_progress() == Progress()


def test_an_interruption_while_writing_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    update_progress(add_everything)
    text = FILE.read_text()

    def interrupted(stored: Progress) -> None:
        stored.answers.clear()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        update_progress(interrupted)

    def interrupted_write(path: Path, text: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(progress, "write_text", interrupted_write)
    with pytest.raises(KeyboardInterrupt):
        update_progress(add_everything)
    assert FILE.read_text() == text


def test_changes_from_two_terminals_are_both_kept() -> None:
    def count(stored: Progress) -> None:
        stored.exercise("rmsnorm").checks += 1

    threads = [
        threading.Thread(target=lambda: [update_progress(count) for _ in range(5)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read_progress().exercises["rmsnorm"].checks == 20


def test_a_folder_that_cannot_be_written_is_a_sentence() -> None:
    Path("outputs").write_text("a file")
    with pytest.raises(NormlabError, match="cannot be written"):
        update_progress(add_everything)


def test_the_command_says_that_the_file_is_damaged(learn: Call) -> None:
    FILE.parent.mkdir(parents=True)
    FILE.write_text("}")
    for arguments in ((), ("done",), ("quiz", "1", "--answers", "17,2"), ("hint", "rmsnorm")):
        code, _, err = learn(*arguments)
        assert code == 1
        assert err.count("\n") == 1
        assert "is damaged" in err
    assert FILE.read_text() == "}"
    assert learn("reset")[0] == 0
    assert learn("done")[0] == 0
