"""A model lets no token see a later one, nor another sequence, wherever its placement stands."""

from collections.abc import Callable
from pathlib import Path

import pytest

from normlab.archive.record import RunRecord
from normlab.config.run_spec import RunSpec
from normlab.errors import ConfigError
from normlab.training.build import check_networks
from normlab.training.run import train
from normlab.training.stack_run import train_stack
from tiny_run import TINY, SilentDisplay

HEAD = """
import torch
from normlab.model.placement import Residual
from normlab.model.streams import TwoStream
calls = 0
"""
FORWARD = """
class Mine(Residual):
    def forward(self, x, entered):
        x = super().forward(x, entered)
        {}
        return x
"""
LEARNED = """
class Mine(Residual):
    def __init__(self, sublayer, wiring, width):
        super().__init__(sublayer, wiring, width)
        self.gate = torch.nn.Parameter(torch.zeros(()))

    def forward(self, x, entered):
        return super().forward(x, entered) + self.gate * x.mean(1, keepdim=True)
"""
STREAMS = """
class Mine(TwoStream):
    @staticmethod
    def enter(x):
        return x, {}

    @staticmethod
    def leave(stream, final):
        return stream[0] + final({})
"""

LEAKS = {
    "the mean over time": (FORWARD.format("x = x + 0.01 * x.mean(1, keepdim=True)"), "earlier"),
    "the next token": (FORWARD.format("x = x + 1e-3 * x.roll(-1, 1)"), "earlier"),
    "all later tokens": (FORWARD.format("x = x + x.flip(1).cumsum(1).flip(1)"), "earlier"),
    "the mean of 16 tokens": (
        FORWARD.format(
            "x = x + x.unflatten(1, (-1, 16)).mean(2, True).expand(-1, -1, 16, -1).flatten(1, 2)"
        ),
        "earlier",
    ),
    "only in training": (FORWARD.format("x = x - self.training * x.mean(1, True)"), "earlier"),
    "only in evaluation": (FORWARD.format("x = x - (not self.training) * x.mean(1, True)"), "ear"),
    "behind a gain of 0": (LEARNED, "earlier tokens"),
    "the mean over the batch": (FORWARD.format("x = x - x.mean(0)"), "other sequences"),
    "the sequence before": (FORWARD.format("x = x + 1e-3 * x.roll(1, 0)"), "other sequences"),
    "the size of everything": (FORWARD.format("x = x / x.abs().max()"), "earlier tokens"),
    "a stream of means": (STREAMS.format("x.mean(1, keepdim=True)", "stream[1]"), "earlier"),
    "at the end": (STREAMS.format("x", "stream[1].flip(1)"), "earlier tokens"),
    "a count of calls": (
        FORWARD.format("globals()['calls'] += 1; x = x + calls"),
        "different logits for the same tokens",
    ),
    "numpy's random numbers": (
        FORWARD.format("import numpy; x = x + float(numpy.random.rand())"),
        "different logits for the same tokens",
    ),
    "another shape": (STREAMS.format("x", "stream[1][:, 1:]") + "    pass\n", "cannot be run"),
    "fewer tokens": (FORWARD.format("x = x[:, 1:]"), "has to leave the shape"),
    "no arguments": ("class Mine(Residual):\n    def __init__(self): pass\n", "cannot be built"),
}


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Writes a class of one's own into a module that is trusted; gives its path."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("NORMLAB_TRUST", f"own_{tmp_path.name}")

    def write(code: str) -> str:
        (tmp_path / f"own_{tmp_path.name}.py").write_text(HEAD + code)
        return f"placement._target_=own_{tmp_path.name}.Mine"

    return write


@pytest.mark.parametrize(("code", "word"), LEAKS.values(), ids=LEAKS)
def test_a_placement_that_sees_what_is_to_be_predicted_is_refused(
    code: str, word: str, mine: Callable, specified: Callable
) -> None:
    target = mine(code)
    with pytest.raises(ConfigError, match=word) as refusal:
        check_networks([specified(*TINY, target)])
    message = str(refusal.value)
    assert message.startswith("placement=pre with norm=rmsnorm (placement._target_=own_")
    assert "\n" not in message


SOUND = {
    "of the past": FORWARD.format("x = x + x.cumsum(1) / 8"),
    "random numbers of torch's": FORWARD.format("x = x * (1 + 0.1 * torch.randn_like(x))"),
    "two streams": STREAMS.format("2 * x", "stream[1]"),
    "rounding over time": FORWARD.format(
        "x = x + torch.fft.irfft(torch.fft.rfft(x, 64, 1) * torch.ones(1, 33, 1), 64, 1)[:, :32]"
    ),
}


@pytest.mark.parametrize("code", SOUND.values(), ids=SOUND)
def test_what_looks_back_only_may_be_trained(
    code: str, mine: Callable, specified: Callable
) -> None:
    check_networks([specified(*TINY, "model.dropout=0.1", mine(code))])


def test_every_network_is_tried_and_each_once(
    mine: Callable, specified: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    from normlab.training import build

    tried: list[str] = []
    monkeypatch.setattr(build, "check_causal", lambda model, name: tried.append(name))
    norms, placements = ("rmsnorm", "layernorm"), ("pre", "post")
    check_networks(
        specified(*TINY, f"norm={norm}", f"placement={placement}", f"seed={seed}")
        for norm in norms
        for placement in placements
        for seed in (0, 1)
    )
    assert tried == [f"placement={p} with norm={n}" for n in norms for p in placements]


def test_the_command_refuses_it_before_it_trains(
    mine: Callable, train_py: Callable, tmp_path: Path
) -> None:
    leak = mine(FORWARD.format("x = x + 0.1 * x.mean(1, keepdim=True)"))
    answer = train_py("-m", "seed=0,1", *TINY, leak, f"output_dir={tmp_path}/out")
    assert answer.code == 2
    assert answer.err.count("\n") == 1
    assert "moves the logits of earlier tokens" in answer.err
    assert not (tmp_path / "out").exists()


WARM = """
class Mine(Residual):
    def __init__(self, sublayer, wiring, width):
        super().__init__(sublayer, wiring, width)
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))

    def forward(self, x, entered):
        if self.training:
            self.calls += 1
        x = super().forward(x, entered)
        return x + torch.roll(x, -1, 1) if self.calls > 8 else x
"""
LONG = FORWARD.format("x = x + torch.roll(x, -1, 1) if x.shape[1] > 40 else x")
FIRST_HALF = FORWARD.format(
    "x = torch.cat([torch.roll(x[:, :24], -1, 1), x[:, 24:]], 1) if x.shape[1] > 40 else x"
)
SECOND_HALF = FORWARD.format(
    "x = torch.cat([x[:, :24], torch.roll(x[:, 24:], -1, 1)], 1) if x.shape[1] > 40 else x"
)
ROUNDED = FORWARD.format("x = x + torch.roll(x, -1, 1) if torch.is_autocast_enabled('cpu') else x")


@pytest.mark.parametrize(
    ("code", "settings"),
    [
        (WARM, ["trainer.max_steps=12"]),
        (LONG, ["model.context=48"]),
        (FIRST_HALF, ["model.context=48"]),
        (SECOND_HALF, ["model.context=48"]),
        (ROUNDED, ["trainer.precision=bf16-mixed"]),
    ],
)
def test_a_model_that_leaks_only_once_it_is_trained_has_no_result(
    code: str,
    settings: list[str],
    specified: Callable[..., RunSpec],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = f"late{abs(hash(code))}"
    (tmp_path / f"{name}.py").write_text(HEAD + code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("NORMLAB_TRUST", name)
    target = f"placement._target_={name}.Mine"
    spec = specified(*TINY, target, *settings, f"output_dir={tmp_path}")
    check_networks([spec])  # it passes what is tried before training
    record = train(spec, "", SilentDisplay())
    assert record.state == "failed"
    assert "it sees what it has to predict" in str(record.reason)
    assert record.final.val_loss is None


def test_a_stack_that_leaks_once_it_is_trained_has_no_results(
    specified: Callable[..., RunSpec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "late_stack.py").write_text(HEAD + LONG)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("NORMLAB_TRUST", "late_stack")
    overrides = [*TINY, "placement._target_=late_stack.Mine", "model.context=48"]
    specs = [specified(*overrides, f"seed={seed}", f"output_dir={tmp_path}") for seed in (0, 1)]
    for outcome in train_stack(specs, "", [SilentDisplay(), SilentDisplay()]):
        assert isinstance(outcome, RunRecord)
        assert outcome.state == "failed"
        assert "it sees what it has to predict" in str(outcome.reason)
