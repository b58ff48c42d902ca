"""What is written for a GPU, as far as a CPU can show it."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from normlab.data import build_source
from normlab.errors import ConfigError
from normlab.model.contract import check_trained_causal
from normlab.norms import RMSNorm, norms
from normlab.training.build import build_model
from normlab.training.compilation import decide_compilation
from normlab.training.cuda_graph import capture_step, compare_changes, compare_results
from normlab.training.hardware import (
    free_card_memory,
    resolve_device,
    resolve_hardware,
    wait_for_cuda,
)
from normlab.training.module import LanguageModel, TrainingBatches, prepare_uncompiled_step
from normlab.training.recorder import PlainRecorderState, Progress, Recorder
from tiny_run import TINY, SilentDisplay


def test_without_a_gpu_the_step_itself_is_used() -> None:
    weight = torch.zeros(2)

    def step() -> None:
        weight.add_(1)

    captured, problem = capture_step(step, torch.device("cpu"), [weight], [])
    assert captured is step
    assert problem == "there are no CUDA graphs on cpu"
    assert weight.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("results", "problem"),
    [
        ([[1.0, 2.0], [3.0, torch.nan]], ""),
        ([[1.0, 2.01], [3.0, torch.nan]], ""),
        ([[1.0, 2.2], [3.0, torch.nan]], "result 0 differs by 0.2 of 2"),
        ([[1.0, 2.0], [torch.nan, torch.nan]], "result 1 is not finite where it should be"),
        ([[1.0, 2.0], [3.0, 4.0]], "result 1 is not finite where it should be"),
    ],
)
def test_a_graph_that_computes_something_else_is_noticed(
    results: list[list[float]], problem: str
) -> None:
    expected = [torch.tensor([1.0, 2.0]), torch.tensor([3.0, torch.nan])]
    assert compare_results([torch.tensor(values) for values in results], expected) == problem


def test_a_graph_that_changes_the_state_otherwise_is_noticed() -> None:
    before, expected = [torch.zeros(100), torch.ones(3)], [torch.full((100,), 1e-3), torch.ones(3)]
    noise = expected[0].clone()
    noise[0] = -1e-3
    assert compare_changes(before, [expected[0], expected[1]], expected) == ""
    assert compare_changes(before, [torch.zeros(100), torch.ones(3)], expected).startswith(
        "the state changes otherwise, by 1 of"
    )
    assert compare_changes(before, [noise, torch.ones(3)], expected).startswith("the state changes")
    many = [torch.zeros(10_000), torch.ones(3)], [torch.full((10_000,), 1e-3), torch.ones(3)]
    few = many[1][0].clone()
    few[0] = -1e-3  # one number of many, whose gradient is nothing but rounding
    assert compare_changes(many[0], [few, torch.ones(3)], many[1]) == ""
    nearly = expected[0] * 1.01
    assert compare_changes(before, [nearly, torch.ones(3)], expected) == ""
    broken = torch.full((100,), torch.nan)
    assert "not finite" in compare_changes(before, [broken, torch.ones(3)], expected)


def test_compilation_pays_where_it_saves_more_than_it_takes() -> None:
    pays, sentence = decide_compilation(0.01, 500, stacked=True)
    assert not pays
    assert sentence.startswith("not compiled: compiling takes about 60 s, and would save about 3")
    pays, sentence = decide_compilation(0.01, 50_000, stacked=True)
    assert pays
    assert sentence.startswith("compiled: compiling takes about 60 s, and would save about 300 s")
    assert not decide_compilation(0.01, 5_000, stacked=False)[0]


def test_auto_compiles_nothing_on_a_cpu(specified: Callable) -> None:
    hardware = resolve_hardware(specified(*TINY).config.trainer)
    assert not hardware.compile
    assert not hardware.compile_if_faster
    assert free_card_memory() == []


@pytest.mark.parametrize(
    ("capabilities", "precision"),
    [
        ({"avx512_bf16": True}, "bf16-mixed"),
        ({"amx_bf16": True}, "bf16-mixed"),
        ({"avx512_bf16": False, "avx512_f": True}, "32-true"),
        ({}, "32-true"),
    ],
)
def test_auto_takes_bf16_where_the_processor_multiplies_it(
    capabilities: dict[str, bool],
    precision: str,
    specified: Callable,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    trainer = specified(*TINY, "trainer.device=cpu").config.trainer
    assert resolve_hardware(replace(trainer, precision="auto")).precision == precision


def test_fp16_without_a_gpu_is_one_sentence(specified: Callable) -> None:
    spec = specified(*TINY, "trainer.precision=16-mixed", "trainer.device=cpu")
    with pytest.raises(ConfigError, match=r"trainer.precision=16-mixed scales .* on cpu; take"):
        resolve_device(spec.config.trainer)


def test_what_is_still_to_be_logged_goes_to_the_device_of_the_run() -> None:
    recorder = Recorder(None, SilentDisplay(), 1, 10.0, 1)
    state = PlainRecorderState(Progress(), above=0, tokens=0, elapsed=0.0)
    recorder.restore_state(state, (torch.ones(2), torch.ones(2)))
    recorder.on_train_start(None, SimpleNamespace(device=torch.device("meta")))
    waiting = recorder.state_dict()
    assert (waiting["losses"].device.type, waiting["norms"].device.type) == ("meta", "meta")


def test_cuda_graphs_with_accumulated_gradients_are_one_sentence(
    specified: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    graphs = specified(*TINY, "trainer.compile=graphs").config.trainer
    assert resolve_device(graphs) == "cuda"
    with pytest.raises(
        ConfigError,
        match=r"trainer.compile=graphs .* trainer.accumulate=2 .* take trainer.compile=true or",
    ):
        resolve_device(replace(graphs, accumulate=2))
    assert resolve_device(replace(graphs, accumulate=2, compile=True)) == "cuda"


def test_what_is_no_training_begins_and_ends_with_a_device_that_has_nothing_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    order = []
    wait_for_cuda()  # without CUDA there is nothing to wait for
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: order.append("wait"))
    recorder = Recorder(None, SilentDisplay(), 1, 10.0, 1)
    with recorder.clock_stopped():
        order.append("body")
    assert order == ["wait", "body", "wait"]


def test_no_other_card_is_asked_for_its_random_numbers(
    specified: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = specified(*TINY)
    source = build_source(spec.plain["data"], spec.config.model.context)
    model = build_model(spec.config, source.vocabulary)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    tokens = torch.zeros(2, spec.config.model.context, dtype=torch.int64)
    check_trained_causal(model, tokens, None)
    module = LanguageModel(model, spec.config)
    trainer = SimpleNamespace(
        strategy=SimpleNamespace(root_device=torch.device("cpu")),
        precision_plugin=SimpleNamespace(forward_context=nullcontext),
    )
    prepare_uncompiled_step(trainer, module, (tokens, tokens))()


def test_batches_for_a_gpu_are_pinned(specified: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = specified(*TINY)
    source = build_source(spec.plain["data"], spec.config.model.context)
    pinned = []

    def pin_memory(tensor: torch.Tensor) -> torch.Tensor:
        pinned.append(tensor)
        return tensor.clone()

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin_memory)
    plain = list(TrainingBatches(source, 0, 2))
    assert pinned == []
    batches = list(TrainingBatches(source, 0, 2, pinned=True))
    assert len(pinned) == 4
    for batch, expected in zip(batches, plain, strict=True):
        assert all(torch.equal(one, other) for one, other in zip(batch, expected, strict=True))


def test_a_norm_turns_off_no_autocast_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(norms, "accumulates_in_fp32", lambda x: x.dtype is torch.bfloat16)
    entered = []
    autocast = torch.autocast

    def note_autocast(*arguments: object, **options: object) -> torch.autocast:
        entered.append(options)
        return autocast(*arguments, **options)

    norm, x = RMSNorm(8), torch.randn(2, 8, dtype=torch.bfloat16)
    with autocast("cpu", torch.bfloat16), monkeypatch.context() as patched:
        patched.setattr(torch, "autocast", note_autocast)
        norm._compute_with_torch(x, norm.gain)
        assert entered == [{"enabled": False}]
    monkeypatch.setattr(torch, "autocast", note_autocast)
    norm._compute_with_torch(x, norm.gain)
    assert len(entered) == 1
