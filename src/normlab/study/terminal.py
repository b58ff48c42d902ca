"""What a study shows: the plan, one line that moves, a line for each run, a table at the end."""

import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from textwrap import fill
from typing import TYPE_CHECKING, Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column

from normlab.archive.record import RunRecord, read_result
from normlab.archive.steadiness import is_steady, speed_variation
from normlab.archive.study import is_run_folder
from normlab.errors import NormlabError
from normlab.study.plan import Plan
from normlab.terminal import UNWATCHED, is_width_given, open_terminal
from normlab.text import on_a_line
from normlab.training.display import Display

if TYPE_CHECKING:
    from normlab.analysis.result import StudyExperiments

# Without a terminal a plain line is due this often (seconds): ever more seldom as time goes by.
SOONEST, LATEST = 10.0, 45.0

# Columns of a terminal from which a bar fits beside the numbers, and below which these have a line
# of their own: beside a name, either would be cut.
WIDE, NARROW = 110, 90


def console(unwatched: int = UNWATCHED) -> Console:
    """The one console; lines are never broken when nobody watches."""
    return open_terminal(unwatched)


def moving(console: Console) -> Progress:
    """Lines that move, with a description and a state; none where nobody watches."""
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
        self.progress = moving(console)
        self.task = self.progress.add_task(description, total=total, state="starting")

    def __enter__(self) -> "Countdown":
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def begin(self, words: str = "") -> None:
        """The next step begins, and the one before is done."""
        now, done = time.monotonic(), self.step
        self.step += 1
        parts = [f"{self.step}/{self.total}", words]
        if done:
            left = (now - self.began) / done * (self.total - done)
            parts.append(f"{duration(left)} left")
        state = "  ".join(filter(None, parts))
        self.progress.update(self.task, completed=done, state=state)
        if not self.console.is_terminal and self.pace.is_due(now):
            self.console.print(f"{self.description}  {state}", markup=False)


class Terminal:
    """The frame of a study: what is to come, and what came out."""

    def __init__(self) -> None:
        self.console = console()

    def announce(self, plan: Plan, pending: int, share: str = "") -> None:
        """Say what varies, what is fixed, how many runs there are, how they share the machine."""

        def say(line: str) -> None:
            if is_width_given(self.console):
                width = self.console.width
                line = fill(line, width, subsequent_indent=" " * 10, break_on_hyphens=False)
            self.console.print(line, markup=False)

        say(f"study {plan.specs[0].config.study}: {_count(len(plan.specs), 'run')}")
        for key, values in plan.varied.items():
            say(f"  varies  {key} = {', '.join(values)}")
        fixed = _fixed(plan)
        say(f"  fixed   {', '.join(f'{key}={value}' for key, value in fixed.items())}")
        for combination, spec in plan.combined:
            same = spec.name.rpartition("-")[0]
            say(f"  left out  {combination}: the same network as {same}, which is trained once")
        if share:
            say(f"  runs    {share}")
        if pending < len(plan.specs):
            say(f"  {len(plan.specs) - pending} already there, {pending} to train")
        for spec in plan.specs:
            record = read_result(spec.folder)
            if record is not None:
                self.console.print(f"there {escape(on_a_line(record.name))}  {outcome(record)}")

    def conclude(self, plan: Plan, experiments: "StudyExperiments") -> str:
        """Draw the study's figures, and say what came out; returns why it could not, or nothing.

        It raises nothing of its own: how the runs ended matters more.
        """
        from normlab.analysis.plot import report, show

        if not any(is_run_folder(spec.folder) for spec in plan.specs):
            return ""  # stopped before the first run began
        folder = plan.specs[0].study_folder
        try:
            show(report(folder, experiments))
        except NormlabError as error:
            return str(error)
        except KeyboardInterrupt as stop:
            if not plan.pending():
                stop.args = ("draws the figures",)  # what the same command has left to do
            raise
        self.console.print(f"browse   tensorboard --logdir {folder.parent}", markup=False)
        return ""


class Line(Display, AbstractContextManager["Line"], Protocol):
    """How a run goes on, and how it ended."""

    def finish(self, record: RunRecord) -> None:
        """Called once, with how it ended."""


class Lines(Protocol):
    """Makes the line of run `number` of `runs`."""

    def __call__(self, name: str, number: int, runs: int, max_steps: int) -> Line:
        """Before the run begins."""


class RunLine:
    """The moving line of one run: run k of n, step, loss, tokens/s, time left in the study."""

    def __init__(self, name: str, number: int, runs: int, max_steps: int) -> None:
        self.console = console()
        self.name = name
        self.position = f"{number}/{runs}"
        self.left_after = runs - number
        self.max_steps = max_steps
        self.started = time.monotonic()
        self.pace = Pace(self.started)
        self.first: int | None = None
        self.step = 0
        self.speeds: list[float] = []
        self.progress = moving(self.console)
        self.task = self.progress.add_task(
            f"run {self.position} {name.rpartition('-')[0]}", total=max_steps, state="starting"
        )

    def __enter__(self) -> "RunLine":
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def update(self, step: int, loss: float, tokens_per_second: float) -> None:
        """Move the line, or without a terminal say a line now and then."""
        now = time.monotonic()
        if self.first is None:  # a run that goes on has steps that took no time today
            self.first, self.started = step, now
        self.step = step
        self.speeds.append(tokens_per_second)
        speed = speed_words(tokens_per_second, self.speeds)
        state = f"step {step}/{self.max_steps}  loss {loss:.3f}  {speed} tok/s"
        if step > self.first:  # before, nothing says how long a step takes
            per_step = (now - self.started) / (step - self.first)
            left = per_step * (self.max_steps - step + self.left_after * self.max_steps)
            state = f"{state}  {duration(left)} left"
        self.progress.update(self.task, completed=step, state=state)
        if not self.console.is_terminal and self.pace.is_due(now):
            self.console.print(f"run {self.position} {self.name}  {state}")

    def say(self, sentence: str) -> None:
        """A line that stays."""
        if self.step == self.first:
            self.first = None  # what takes its time before the first step says nothing of the rest
        self.console.print(f"run {self.position} {self.name}  {escape(sentence)}")

    def finish(self, record: RunRecord) -> None:
        """The line that stays."""
        self.console.print(f"run {self.position} {self.name}  {outcome(record, self.speeds)}")


def speed_words(tokens_per_second: float, measured: Sequence[float]) -> str:
    """`18,081`, or `~18,000` unless the speeds measured so far are steady."""
    if is_steady(speed_variation(measured)):
        return f"{tokens_per_second:,.0f}"
    return f"~{float(f'{tokens_per_second:.2g}'):,.0f}"


def outcome(record: RunRecord, speeds: Sequence[float] = ()) -> str:
    """How a run ended, in markup; `speeds` are the tokens/s measured while it trained."""
    match record.state:
        case "finished":
            speed = f"{speed_words(record.tokens_per_second or 0, speeds)} tokens/s"
            return (
                f"val {_loss(record.final.val_loss)}  best {_loss(record.best.val_loss)} at step "
                f"{record.best.step}  {speed}  {duration(record.train_seconds or 0)}"
            )
        case "diverged":
            return (
                f"[yellow]diverged[/] at step {record.diverged_step}: {escape(record.reason or '')}"
            )
    return f"[red]failed[/]: {escape(record.reason or '')}"


def _fixed(plan: Plan) -> Mapping[str, str]:
    """What is common to all runs: the option of every group, and what was set by hand."""
    groups = {
        group: option
        for group, option in plan.specs[0].choices.items()
        if group not in plan.varied and all(s.choices[group] == option for s in plan.specs)
    }
    return {**groups, **plan.fixed}


def _loss(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.4f}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """12s, 3m 04s or 2h 05m."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h {minutes:02d}m"
    return f"{minutes}m {rest:02d}s" if minutes else f"{rest}s"
