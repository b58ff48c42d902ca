"""kill -9, whenever: the same command, repeated until it is done, ends in the same study."""

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from study_process import STUDY, Process, list_drafts, random_pauses, read_records

# Four runs of some seconds each, with a state kept after nearly every step.
LONG = (
    *STUDY,
    *("placement=pre,post", "trainer.save_seconds=0.05", "trainer.max_steps=500"),
    *("trainer.val_every=60", "trainer.log_every=7"),
)


class Killer:
    """Kills `train.py` in the middle of something, and starts it again."""

    def __init__(self, place: Path, arguments: tuple[str, ...], counts: Counter[str], forked: bool):
        self.place = place
        self.study = place / "synthetic"
        self.arguments = (*arguments, f"output_dir={place}")
        self.counts = counts
        self.forked = forked
        self.kills = 0

    def run(self) -> Process:
        return Process(self.place, *self.arguments, forked=self.forked)

    def kill(self, when: str, happens: Callable[[], object], pause: float) -> bool:
        """Start; kill a while after something happens. False if it ended before."""
        process = self.run()
        if not process.until(happens):
            return False
        time.sleep(pause)
        caught = process.alive
        process.kill()
        process.end()
        if caught:
            self.kills += 1
            self.counts["kill -9"] += 1
            self.counts[f"kill -9 {when}"] += 1
        return caught

    def in_training(self, pause: float) -> bool:
        before = self._log_lines()
        return self.kill("while training", lambda: self._log_lines() > before, pause)

    def in_a_checkpoint(self) -> bool:
        def writing() -> bool:
            return any(
                path.name.startswith(".last") for path in list_drafts(self.study) if path.exists()
            )

        self._clear()
        return self.kill("in a checkpoint", writing, 0)

    def between_runs(self, pause: float) -> bool:
        before = len(read_records(self.study))
        return self.kill("between runs", lambda: len(read_records(self.study)) > before, pause)

    def in_the_figures(self, pause: float) -> bool:
        def drawing() -> bool:
            return any(self.study.glob(".runs.csv*")) or any(self.study.glob("figures/.*"))

        self._clear()
        return self.kill("while figures are drawn", drawing, pause)

    def _clear(self) -> None:
        """Only what is being written from now on shall be seen."""
        for draft in list_drafts(self.study):
            draft.unlink()

    def _log_lines(self) -> int:
        return sum(len(path.read_text().splitlines()) for path in self.study.glob("*/train.log"))


@pytest.mark.slow
def test_a_study_killed_again_and_again_is_the_study_that_never_was(
    tmp_path: Path, counts: Counter[str], quiet: Callable, whole_again: Callable
) -> None:
    whole = tmp_path / "whole"
    began = time.monotonic()
    quiet(Process(whole, *LONG, f"output_dir={whole}").end())
    took = time.monotonic() - began
    killer = Killer(tmp_path / "killed", LONG, counts, forked=False)
    pause = random_pauses(7, 1)
    for _ in range(4):
        killer.kill("at a random time", lambda: True, next(pause) * took / 4)
        killer.in_training(next(pause))
        killer.in_a_checkpoint()
        killer.between_runs(next(pause) / 20)
    while len(read_records(killer.study)) < 4:
        killer.in_training(1 + next(pause))
    for _ in range(5):
        killer.in_the_figures(next(pause) / 2)
    while killer.kills < 25:
        killer.kill("at a random time", lambda: True, next(pause) * took / 10)
    assert quiet(killer.run().end()).code == 0
    whole_again(killer.study, whole / "synthetic")
    assert not [
        draft for run in read_records(killer.study) for draft in list_drafts(killer.study / run)
    ]


@pytest.mark.slow
def test_a_killed_study_goes_on_to_the_same_end(
    tmp_path: Path, whole: Path, counts: Counter[str], quiet: Callable, whole_again: Callable
) -> None:
    killer = Killer(tmp_path, STUDY, counts, forked=True)
    assert killer.in_a_checkpoint()
    assert killer.in_the_figures(0.1)
    assert quiet(killer.run().end()).code == 0
    whole_again(killer.study, whole)
    assert not [
        draft for run in read_records(killer.study) for draft in list_drafts(killer.study / run)
    ]
