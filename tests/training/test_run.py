"""One run: what it leaves, that it repeats, that batches and weights are what they should be."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from normlab.archive import tags
from normlab.archive.events import read_events
from normlab.archive.record import RunRecord
from normlab.config.run_spec import RunSpec
from normlab.training import recorder
from normlab.training import run as training_run
from normlab.training.build import build_model
from normlab.training.checkpoints import load_weights
from normlab.training.run import train
from normlab.training.stack_run import train_single
from tiny_run import TINY, InterruptingDisplay, SilentDisplay, keep_last


@pytest.fixture
def trained(specified: Callable, tmp_path: Path) -> Callable[..., tuple[RunRecord, Path]]:
    def train_in(place: str, *overrides: str) -> tuple[RunRecord, Path]:
        spec = specified(*TINY, *overrides, f"output_dir={tmp_path / place}")
        return train(spec, "the command", SilentDisplay()), spec.folder

    return train_in


def curve(folder: Path, tag: str) -> dict[int, float]:
    series = read_events(folder).scalars[tag]
    return dict(zip(series.steps.tolist(), series.values.tolist(), strict=True))


def test_a_run_leaves_its_folder_complete(trained: Callable) -> None:
    record, folder = trained("a")
    names = {path.name for path in folder.iterdir() if not path.name.startswith("events.")}
    assert names == {"run.json", "config.yaml", "vocabulary.json", "train.log", "checkpoints"}
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    assert record.state == "finished"
    assert record.step == 6
    assert record.command == "the command"
    assert record.parameters == sum(
        w.numel() for w in load_weights(folder / "checkpoints/last.ckpt").values()
    )
    assert RunRecord.read(folder) == record
    raw = json.loads((folder / "run.json").read_text())
    assert raw.keys() >= {
        *("id", "state", "reason", "step", "config", "command", "seed", "norm", "placement"),
        *("data", "parameters", "tokens_per_second", "train_seconds", "precision", "device"),
        *("versions", "final", "best", "diverged_step"),
    }
    assert len(list(folder.glob("events.*"))) == 1


def test_curves_have_a_point_for_every_step_and_validation(trained: Callable) -> None:
    record, folder = trained("a")
    assert list(curve(folder, tags.TRAIN_LOSS)) == [0, 1, 2, 3, 4, 5]
    validation = curve(folder, tags.VALIDATION_LOSS)
    assert list(validation) == [0, 3, 6]
    assert record.final.val_loss == pytest.approx(validation[6], rel=1e-6)
    assert record.best.val_loss == pytest.approx(min(validation.values()), rel=1e-6)
    assert record.final.train_loss == pytest.approx(curve(folder, tags.TRAIN_LOSS)[5], rel=1e-6)
    final = curve(folder, tags.FINAL_VALIDATION_LOSS)
    assert final == {6: pytest.approx(validation[6])}  # and no NaN before it
    assert tags.TOKENS_PER_SECOND in read_events(folder).scalars


def test_the_learning_rate_is_logged_at_the_step_that_it_is_the_rate_of(trained: Callable) -> None:
    """Cosine from 2e-3 to a tenth, without warm-up; what is logged is the rate of the next step."""
    _, folder = trained("a", "optimizer.lr=2e-3")
    rates = {2: 1.55e-3, 3: 1.1e-3, 5: 3.206e-4, 6: 2e-4}
    assert curve(folder, tags.LEARNING_RATE) == pytest.approx(rates, rel=1e-4)


@pytest.mark.parametrize(("overrides", "tokens"), [((), 384), (("trainer.accumulate=3",), 1152)])
def test_the_speed_is_that_of_all_tokens_over_the_seconds_of_training(
    overrides: tuple[str, ...], tokens: int, trained: Callable
) -> None:
    """6 steps of 4 sequences of 16 tokens."""
    record, _ = trained("a", *overrides)
    assert record.tokens_per_second * record.train_seconds == pytest.approx(tokens)


def test_the_speed_of_a_run_that_was_stopped_counts_all_its_tokens(
    specified: Callable, tmp_path: Path
) -> None:
    spec = specified(*TINY, "trainer.log_every=1", f"output_dir={tmp_path}")
    with pytest.raises(KeyboardInterrupt):
        train(spec, "the command", InterruptingDisplay(2))
    record = train(spec, "the command", SilentDisplay())
    assert record.resumed_at
    assert record.tokens_per_second * record.train_seconds == pytest.approx(384)


def test_the_last_weights_are_validated_when_the_interval_does_not_divide(
    trained: Callable,
) -> None:
    record, folder = trained("a", "trainer.val_every=4")
    assert list(curve(folder, tags.VALIDATION_LOSS)) == [0, 4, 6]
    assert record.final.val_loss == pytest.approx(curve(folder, tags.VALIDATION_LOSS)[6], rel=1e-6)


def test_the_same_seed_gives_the_same_losses_bit_for_bit(trained: Callable) -> None:
    first, second = (trained(place, "model.dropout=0.1")[1] for place in ("a", "b"))
    for tag in (tags.TRAIN_LOSS, tags.VALIDATION_LOSS, tags.GRADIENT_NORM):
        assert curve(first, tag) == curve(second, tag)


def test_another_seed_gives_other_losses_on_the_same_windows(trained: Callable) -> None:
    first, folder = trained("a")
    second, other = trained("b", "seed=1")
    assert curve(folder, tags.TRAIN_LOSS) != curve(other, tags.TRAIN_LOSS)
    assert first.floor == second.floor


def test_the_curve_is_that_of_a_plain_loop(trained: Callable, specified: Callable) -> None:
    """Lightning, logging and callbacks add nothing: the same losses as twenty lines of PyTorch."""
    overrides = (*TINY, "trainer.gradient_clip=0.1", "norm=layernorm", "placement=post")
    folder = trained("a", "trainer.gradient_clip=0.1", "norm=layernorm", "placement=post")[1]
    assert list(curve(folder, tags.TRAIN_LOSS).values()) == pytest.approx(
        plain_losses(specified(*overrides)), rel=1e-5
    )


def plain_losses(spec: RunSpec, steps: int = 6) -> list[float]:
    from normlab.data import build_source

    source = build_source(spec.plain["data"], spec.config.model.context)
    model = build_model(spec.config, source.vocabulary)
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    groups: list[dict[str, Any]] = [
        {"params": matrices, "weight_decay": 0.1},
        {"params": vectors, "weight_decay": 0.0},
    ]
    lr = spec.config.optimizer.lr
    optimizer = torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.99))
    losses = []
    for step in range(steps):
        # Warm-up is round(0.05 * 6) = 0 steps, then the cosine from 1 to 0.1.
        rate = 0.1 + 0.45 * (1 + torch.cos(torch.tensor(torch.pi * step / 6))).item()
        for group in optimizer.param_groups:
            group["lr"] = lr * rate
        batch = source.batch(0, step)
        logits = model(torch.from_numpy(batch.tokens))
        loss = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), torch.from_numpy(batch.targets).flatten()
        )
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_accumulation_gives_one_point_a_step_and_trains_on_more_batches(
    trained: Callable, specified: Callable
) -> None:
    record, folder = trained("a", "trainer.accumulate=3")
    assert record.step == 6
    # At initialization, before any update: the mean over the first three batches.
    first = plain_losses(specified(*TINY, "optimizer.lr=1e-30"), steps=3)
    assert curve(folder, tags.TRAIN_LOSS)[0] == pytest.approx(sum(first) / 3, rel=1e-5)
    assert list(curve(folder, tags.TRAIN_LOSS)) == [0, 1, 2, 3, 4, 5]
    assert list(curve(folder, tags.VALIDATION_LOSS)) == [0, 3, 6]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_slow_batches_are_shown_between_what_is_logged_and_change_no_curve(
    accumulate: int, trained: Callable, specified: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = ("trainer.log_every=100", "trainer.val_every=6", f"trainer.accumulate={accumulate}")
    _, quiet = trained("quiet", *slow)
    shown: list[tuple[int, float, float]] = []

    class Watcher(SilentDisplay):
        def update(self, step: int, loss: float, tokens_per_second: float) -> None:
            shown.append((step, loss, tokens_per_second))

    monkeypatch.setattr(recorder, "LONGEST_SILENCE_SECONDS", 0.0)
    spec = specified(*TINY, *slow, f"output_dir={quiet.parents[1]}-watched")
    train(spec, "the command", Watcher())
    losses = curve(spec.folder, tags.TRAIN_LOSS)
    assert losses == curve(quiet, tags.TRAIN_LOSS)
    assert curve(spec.folder, tags.VALIDATION_LOSS) == curve(quiet, tags.VALIDATION_LOSS)
    # Batches of windows at initialization and at the end, between them each that is trained on, and
    # what is logged.
    windows = (len(shown) - 6 * accumulate - 1) // 2
    begun, batches = shown[:windows], shown[windows : windows + 6 * accumulate]
    assert begun[-1][:2] == (0, pytest.approx(curve(quiet, tags.VALIDATION_LOSS)[0], rel=1e-6))
    for step, loss in losses.items():
        of_step = [at[1] for at in batches[step * accumulate : (step + 1) * accumulate]]
        assert sum(of_step) / accumulate == pytest.approx(loss, rel=1e-6)
        assert batches[(step + 1) * accumulate - 1][0] == step + 1
    assert all(speed > 0 for *_, speed in batches)


def test_a_run_that_explodes_is_recorded_as_diverged(trained: Callable) -> None:
    record, folder = trained(
        "a", "norm=none", "optimizer.lr=1e6", "trainer.gradient_clip=null",
        "trainer.max_steps=60", "trainer.val_every=50",
    )  # fmt: skip
    assert record.state == "diverged"
    assert record.diverged_step is not None
    assert record.step < 60
    assert record.final.val_loss is None
    assert record.reason
    losses = curve(folder, tags.TRAIN_LOSS)
    assert record.final.train_loss == pytest.approx(losses[record.diverged_step - 1], rel=1e-6)


def test_a_loss_that_is_nan_names_its_step(
    trained: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = training_run.LanguageModel.training_step

    def poisoned(self: Any, batch: Any, index: int) -> torch.Tensor:
        loss = step(self, batch, index)
        return loss * float("nan") if index == 3 else loss

    monkeypatch.setattr(training_run.LanguageModel, "training_step", poisoned)
    record, _ = trained("a", "trainer.max_steps=20")
    assert record.state == "diverged"
    assert record.diverged_step == 3
    assert record.step < 20
    assert "step 3" in (record.reason or "")


def test_a_loss_that_stays_above_the_limit_is_a_divergence(
    trained: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = training_run.LanguageModel.training_step

    def enlarged(self: Any, batch: Any, index: int) -> torch.Tensor:
        return step(self, batch, index) * (10 if index >= 2 else 1)

    monkeypatch.setattr(training_run.LanguageModel, "training_step", enlarged)
    record, _ = trained("a", "trainer.max_steps=40", "trainer.val_every=40")
    assert (record.state, record.diverged_step) == ("diverged", 21)
    assert record.reason == "the loss stood above 6.24 for 20 steps"  # 3 · ln 8


def test_a_run_that_fails_is_recorded_with_its_traceback(
    trained: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ValueError("the model is broken")

    monkeypatch.setattr(training_run.LanguageModel, "training_step", broken)
    record, folder = trained("a")
    assert record.state == "failed"
    assert record.reason.startswith("ValueError: the model is broken, at ")
    assert RunRecord.read(folder).state == "failed"
    assert "Traceback" in (folder / "train.log").read_text()


def test_weights_in_a_checkpoint_have_the_models_own_names(
    trained: Callable, specified: Callable
) -> None:
    _, folder = trained("a")
    model = build_model(specified(*TINY).config, 8)
    for name in ("best.ckpt", "last.ckpt"):
        model.load_state_dict(load_weights(folder / "checkpoints" / name))


# Pairs of a norm and a placement are in test_pairs.py; new is that a model trains in bf16.
@pytest.mark.parametrize(
    ("model", "norm", "placement"),
    [
        ("nanogpt", "layernorm", "post"),
        ("nanogpt", "none", "pre"),
        ("minimind", "rmsnorm", "pre"),
    ],
)
def test_every_model_trains_in_bf16(
    model: str, norm: str, placement: str, trained: Callable
) -> None:
    record, _ = trained(
        "a",
        f"model={model}",
        f"norm={norm}",
        f"placement={placement}",
        "trainer.precision=bf16-mixed",
    )
    assert record.state == "finished", record.reason
    assert record.precision == "bf16-mixed"


def test_a_full_disk_is_called_by_its_name(
    trained: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise RuntimeError("[enforce fail at inline_container.cc] . unexpected pos 64 vs 0")

    monkeypatch.setattr(torch, "save", full)
    record, folder = trained("a")
    assert record.state == "failed"
    assert "No space left on device" in (record.reason or "")
    assert not list((folder / "checkpoints").glob("*"))
    assert not list((folder / "checkpoints").glob(".*"))


@pytest.mark.parametrize("stacked", [False, True], ids=["alone", "in a stack"])
def test_a_run_whose_last_update_ruins_the_weights_has_diverged(
    stacked: bool, specified: Callable, tmp_path: Path
) -> None:
    words = ("optimizer.lr=1e30", "schedule.warmup=0", "trainer.max_steps=1", "norm=none")
    spec = specified(*keep_last((*TINY, *words, f"output_dir={tmp_path}")))
    record = (train_single if stacked else train)(spec, "the command", SilentDisplay())
    assert (record.state, record.diverged_step) == ("diverged", 1)
    assert record.reason == "the validation loss after step 1 is not finite"
    assert record.final.val_loss is None
