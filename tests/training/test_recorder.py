"""When a run counts as diverged: a number that is not finite, or a loss that stays too large."""

import pytest

from normlab.training.recorder import PlainRecorderState, Progress, Recorder
from tiny_run import SilentDisplay

LIMIT = 10.0


class NoLogger:
    def write_scalar(self, tag: str, value: float, step: int) -> None:
        pass


def make_recorder(scaled: bool = False) -> Recorder:
    return Recorder(NoLogger(), SilentDisplay(), 1, LIMIT, 1, scaled=scaled)


def record_losses(recorder: Recorder, losses: list[float]) -> int | None:
    """The step at which these losses, of the next steps, make the run diverge."""
    recorder.record_steps(losses, [1.0] * len(losses), len(losses), 1.0, 1e-3)
    return recorder.progress.diverged_step


def test_twenty_steps_in_a_row_above_the_limit_are_a_divergence() -> None:
    recorder = make_recorder()
    assert record_losses(recorder, [11.0] * 19) is None
    assert record_losses(recorder, [LIMIT]) is None  # not above: it counts from zero again
    assert record_losses(recorder, [11.0] * 19) is None
    assert record_losses(recorder, [11.0]) == 39
    assert recorder.progress.step == 40
    assert recorder.progress.reason == "the loss stood above 10 for 20 steps"
    assert recorder.progress.train_loss == 11.0


def test_a_run_that_goes_on_counts_the_steps_above_the_limit_before_it_stopped() -> None:
    stopped = make_recorder()
    record_losses(stopped, [11.0] * 19)
    state = stopped.state_dict()
    resumed = make_recorder()
    plain = PlainRecorderState(
        Progress(**state["progress"]), state["above"], state["tokens"], state["elapsed"]
    )
    resumed.restore_state(plain, None)
    assert record_losses(resumed, [11.0]) == 19


@pytest.mark.parametrize("scaled", [False, True])
def test_an_overflow_that_the_scale_answers_is_no_divergence(scaled: bool) -> None:
    recorder = make_recorder(scaled)
    recorder.record_steps([2.0], [float("inf")], 1, 1.0, 1e-3)
    assert (recorder.progress.diverged_step is None) == scaled
    recorder.record_steps([float("nan")], [1.0], 1, 1.0, 1e-3)
    assert recorder.progress.diverged_step is not None
