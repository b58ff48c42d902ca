"""What a study shows while it works: lines that move in a terminal, plain lines elsewhere."""

import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Column

from normlab.archive.record import RunRecord
from normlab.archive.steadiness import is_steady, speed_variation
from normlab.terminal import open_terminal

# Without a terminal a plain line is due this often (seconds): ever more seldom as time goes by.
SOONEST, LATEST = 10.0, 45.0

# Columns of a terminal from which a bar fits beside the numbers, and below which these have a line
# of their own: beside a name, either would be cut.
WIDE, NARROW = 110, 90


def moving_lines(console: Console) -> Progress:
    """Lines that move, with a description and a state; none without a terminal."""
    name, state = "{task.description}", "{task.fields[state]}"
    folded = Column(overflow="fold")  # a name is never cut
    if console.width < NARROW:
        columns = [TextColumn(f"{name}\n  {state}", markup=False, table_column=folded)]
    else:
        columns = [TextColumn(name, markup=False, table_column=folded)]
        columns.append(TextColumn(state, markup=False))
    # The numbers come first: a bar only where there is room for it too.
    bar = [BarColumn(bar_width=20)] if console.width >= WIDE else []
    return Progress(
        columns[0],
        *bar,
        *columns[1:],
        console=console,
        transient=True,
        refresh_per_second=4,
        disable=not console.is_terminal,
    )


class Pace:
    """When plain lines are due: after SOONEST seconds, then at each tenth of the time until now."""

    def __init__(self, now: float) -> None:
        self.began = self.last = now

    def is_due(self, now: float) -> bool:
        """Whether it is time for a line; the next is counted from here."""
        if now - self.last < min(LATEST, max(SOONEST, (now - self.began) / 10)):
            return False
        self.last = now
        return True


class Countdown(AbstractContextManager["Countdown"]):
    """Work in `total` steps: a line that moves, or without a terminal plain lines now and then."""

    def __init__(self, console: Console, description: str, total: int) -> None:
        self.console, self.description, self.total = console, description, total
        self.step = 0
        self.began = time.monotonic()
        self.pace = Pace(self.began)
        self.progress = moving_lines(console)
        self.task = self.progress.add_task(description, total=total, state="starting")

    def __enter__(self) -> "Countdown":
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def begin(self, description: str = "") -> None:
        """The next step begins, and the one before is done."""
        now, done = time.monotonic(), self.step
        self.step += 1
        parts = [f"{self.step}/{self.total}", description]
        if done:
            left = (now - self.began) / done * (self.total - done)
            parts.append(f"{format_duration(left)} left")
        state = "  ".join(filter(None, parts))
        self.progress.update(self.task, completed=done, state=state)
        if not self.console.is_terminal and self.pace.is_due(now):
            self.console.print(f"{self.description}  {state}", markup=False)


class StudyProgress(AbstractContextManager["StudyProgress"]):
    """The progress of runs, by their index from 0: a line each, and one for all where several move.

    `steps` is how long each is. A single run may be number `first` of `total`, of which the others
    go before or after it: then the time left is that of all, if they are as long as this one.
    """

    def __init__(
        self,
        names: Sequence[str],
        steps: Sequence[int],
        first: int = 1,
        total: int | None = None,
        console: Console | None = None,
    ) -> None:
        self.console = console or open_terminal()
        self.names = names
        self.steps = steps
        self.first = first
        self.total = total or len(names)
        later_runs = self.total - (first - 1) - len(names)
        self.total_steps = sum(steps) + later_runs * steps[-1]
        self.steps_at: dict[int, int] = {}  # the step at which each run is
        self.speeds: dict[int, list[float]] = defaultdict(list)  # tokens/s
        self.steps_done = 0  # by this process
        self.ended = 0
        self.began: float | None = None
        self.paces: dict[int, Pace] = {}
        self.lines = moving_lines(self.console)
        self.study_line: TaskID | None = None
        if len(names) > 1:
            self.study_line = self.lines.add_task("study", total=sum(steps), state="starting")
        self.run_lines: dict[int, TaskID] = {}

    def __enter__(self) -> "StudyProgress":
        self.lines.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.lines.stop()

    def display(self, run: int) -> "RunDisplay":
        """Where the run reports itself."""
        return RunDisplay(self, run)

    def start(self, run: int, stacked: int = 1) -> None:
        """Show that a run begins; of a stack of several, the line of one stands for all."""
        # Without the id at its end, so that the rest fits whole into a narrow terminal.
        name = self.names[run].rpartition("-")[0]
        self.paces[run] = Pace(time.monotonic())
        if stacked > 1:
            name = f"{name} and {stacked - 1} more in a stack"
        self.run_lines[run] = self.lines.add_task(
            f"run {self._position(run)} {name}", total=self.steps[run], state="starting"
        )

    def update(self, run: int, step: int, loss: float, tokens_per_second: float) -> None:
        """Move a run's line, or without a terminal print a line now and then."""
        now = time.monotonic()
        if self.began is None:
            self.began = now
        # A run that goes on has steps that took no time today.
        self.steps_done += step - self.steps_at.get(run, step)
        self.steps_at[run] = step
        self.speeds[run].append(tokens_per_second)
        speed = format_current_speed(tokens_per_second, self.speeds[run])
        state = f"step {step}/{self.steps[run]}  loss {loss:.3f}  {speed} tok/s"
        left = ""  # unknown before the first step
        if self.steps_done:
            # Until the last run ends, at the speed so far.
            steps_left = self.total_steps - sum(self.steps_at.values())
            seconds_left = (now - self.began) / self.steps_done * steps_left
            left = f"  {format_duration(seconds_left)} left"
        if self.study_line is not None:
            ended = f"{self.ended}/{len(self.names)} runs{left}"
            self.lines.update(self.study_line, completed=sum(self.steps_at.values()), state=ended)
        if run in self.run_lines:
            line = state if self.study_line is not None else f"{state}{left}"
            self.lines.update(self.run_lines[run], completed=step, state=line)
        if not self.console.is_terminal and run in self.paces and self.paces[run].is_due(now):
            self._print(run, f"{state}{left}")

    def say(self, run: int, sentence: str) -> None:
        """Print a sentence about a run."""
        if not self.steps_done:
            # What takes its time before the first step is no measure of the rest.
            self.began = None
        self._print(run, escape(sentence))

    def finish(self, run: int, record: RunRecord) -> None:
        """Print how a run ended."""
        self._print(run, format_outcome(record, self.speeds[run]))

    def end(self, run: int) -> None:
        """Take a run's moving line away."""
        self.ended += 1
        self.steps_at[run] = self.steps[run]
        if run in self.run_lines:
            self.lines.remove_task(self.run_lines.pop(run))

    def _print(self, run: int, text: str) -> None:
        self.console.print(f"run {self._position(run)} {self.names[run]}  {text}")

    def _position(self, run: int) -> str:
        return f"{self.first + run}/{self.total}"


@dataclass(frozen=True)
class RunDisplay:
    """Where a run of this process reports itself (`normlab.training.recorder.Display`)."""

    progress: StudyProgress
    run: int

    def update(self, step: int, loss: float, tokens_per_second: float) -> None:
        """Show the progress."""
        self.progress.update(self.run, step, loss, tokens_per_second)

    def say(self, sentence: str) -> None:
        """Print a sentence."""
        self.progress.say(self.run, sentence)


def format_current_speed(tokens_per_second: float, speeds: Sequence[float]) -> str:
    """`18,081`, or `~18,000` unless the speeds so far are steady."""
    if is_steady(speed_variation(speeds)):
        return f"{tokens_per_second:,.0f}"
    return f"~{float(f'{tokens_per_second:.2g}'):,.0f}"


def format_outcome(record: RunRecord, speeds: Sequence[float] | None = None) -> str:
    """How a run ended, in markup; `speeds` are the tokens/s while it trained, where they are known.

    Without them there is no speed: whether it was steady is not known.
    """
    match record.state:
        case "finished":
            speed = ""
            if speeds is not None:
                mean = format_current_speed(record.tokens_per_second or 0, speeds)
                speed = f"{mean} tokens/s  "
            final, best = (
                "not finite" if part.val_loss is None else f"{part.val_loss:.4f}"
                for part in (record.final, record.best)
            )
            seconds = format_duration(record.train_seconds or 0)
            return f"val {final}  best {best} at step {record.best.step}  {speed}{seconds}"
        case "diverged":
            return (
                f"[yellow]diverged[/] at step {record.diverged_step}: {escape(record.reason or '')}"
            )
    return f"[red]{record.state}[/]" + (f": {escape(record.reason)}" if record.reason else "")


def format_duration(seconds: float) -> str:
    """12s, 3m 04s or 2h 05m."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h {minutes:02d}m"
    return f"{minutes}m {rest:02d}s" if minutes else f"{rest}s"
