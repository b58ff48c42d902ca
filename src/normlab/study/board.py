"""Runs that are trained side by side: a moving line each, one for the whole, lines that stay."""

import time
from collections import defaultdict
from collections.abc import Sequence

from rich.markup import escape
from rich.progress import TaskID

from normlab.archive.record import RunRecord
from normlab.study.terminal import Pace, console, duration, moving, outcome, speed_words


class Board:
    """Shows runs by their number, from 0; `steps` says how long each is."""

    def __init__(self, names: Sequence[str], steps: Sequence[int]) -> None:
        self.console = console()
        self.names = names
        self.steps = steps
        self.at: dict[int, int] = {}  # the step at which each run is
        self.speeds: dict[int, list[float]] = defaultdict(list)
        self.done = 0
        self.ended = 0
        self.began: float | None = None
        self.paces: dict[int, Pace] = {}
        self.progress = moving(self.console)
        self.whole = self.progress.add_task("study", total=sum(steps), state="starting")
        self.tasks: dict[int, TaskID] = {}

    def __enter__(self) -> "Board":
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def start(self, run: int) -> None:
        """A run begins."""
        name = self.names[run].rpartition("-")[0]
        self.paces[run] = Pace(time.monotonic())
        self.tasks[run] = self.progress.add_task(
            f"run {self._position(run)} {name}", total=self.steps[run], state="starting"
        )

    def update(self, run: int, step: int, loss: float, tokens_per_second: float) -> None:
        """Move a run's line, or without a terminal say a line now and then."""
        now = time.monotonic()
        if self.began is None:
            self.began = now
        # A run that goes on has steps that took no time today.
        self.done += step - self.at.get(run, step)
        self.at[run] = step
        self.speeds[run].append(tokens_per_second)
        speed = speed_words(tokens_per_second, self.speeds[run])
        state = f"step {step}/{self.steps[run]}  loss {loss:.3f}  {speed} tok/s"
        left = self._left(now)
        if run in self.tasks:
            self.progress.update(self.tasks[run], completed=step, state=state)
        whole = f"{self.ended}/{len(self.names)} runs{left}"
        self.progress.update(self.whole, completed=sum(self.at.values()), state=whole)
        if not self.console.is_terminal and run in self.paces and self.paces[run].is_due(now):
            self._print(run, f"{state}{left}")

    def say(self, run: int, sentence: str) -> None:
        """A line that stays."""
        if not self.done:
            self.began = None  # what takes its time before the first step says nothing of the rest
        self._print(run, escape(sentence))

    def finish(self, run: int, record: RunRecord) -> None:
        """The line that stays of a run that ended by itself."""
        self._print(run, outcome(record, self.speeds[run]))

    def end(self, run: int) -> None:
        """Take a run's moving line away."""
        self.ended += 1
        self.at[run] = self.steps[run]
        if run in self.tasks:
            self.progress.remove_task(self.tasks.pop(run))

    def _left(self, now: float) -> str:
        """Time until the last run ends, if all go on as they did; nothing before the first step."""
        if not self.done or self.began is None:
            return ""
        left = sum(self.steps) - sum(self.at.values())
        return f"  {duration((now - self.began) / self.done * left)} left"

    def _print(self, run: int, text: str) -> None:
        self.console.print(f"run {self._position(run)} {self.names[run]}  {text}")

    def _position(self, run: int) -> str:
        return f"{run + 1}/{len(self.names)}"
