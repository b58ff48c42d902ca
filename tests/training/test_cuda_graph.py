"""All of a capture, with a stand-in for torch.cuda that computes on the CPU at once."""

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from normlab.data import build_source
from normlab.training import stack as stack_module
from normlab.training.cuda_graph import Step, capture_step
from normlab.training.stack import Stack, StackBatches
from normlab.training.stack_groups import build_stack_model
from tiny_run import TINY

CARD = torch.device("cuda")


class Stream:
    """A stream that has nothing to wait for."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def wait_stream(self, other: "Stream") -> None:
        pass


class CardStub:
    """What capture_step uses of torch.cuda; a captured step runs when it is captured."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.default = self.current = Stream(CARD)
        self.warmup_streams: list[Stream] = []
        self.capture_streams: list[Stream] = []
        self.graphs: list[weakref.ref[Any]] = []
        self.replays = self.synchronized = 0
        self.replayed: Step = lambda: None
        for name in ("stream", "graph", "set_stream", "synchronize", "current_stream"):
            monkeypatch.setattr(torch.cuda, name, getattr(self, name))
        monkeypatch.setattr(torch.cuda, "Stream", Stream)
        monkeypatch.setattr(torch.cuda, "CUDAGraph", self.make_graph)

    def make_graph(self) -> "GraphStub":
        graph = GraphStub(self)
        self.graphs.append(weakref.ref(graph))
        return graph

    def current_stream(self, device: torch.device) -> Stream:
        return self.current

    def set_stream(self, stream: Stream) -> None:
        self.current = stream

    def synchronize(self, device: torch.device) -> None:
        self.synchronized += 1

    @contextmanager
    def stream(self, stream: Stream) -> Iterator[None]:
        self.warmup_streams.append(stream)
        before, self.current = self.current, stream
        try:
            yield
        finally:
            self.current = before

    @contextmanager
    def graph(self, graph: "GraphStub", stream: Stream | None = None) -> Iterator[None]:
        assert stream is not None, "the stream that all captures share"
        self.capture_streams.append(stream)
        before, self.current = self.current, stream
        yield  # torch's, too, leaves its stream current where the body raises
        self.current = before

    def capture(self, step: Step, device: torch.device, *tensors: Any) -> tuple[Step, str]:
        """capture_step of a stack on the CPU, as if it were on a card."""
        assert all(graph() is None for graph in self.graphs), "the graph before it is still there"
        self.replayed = step
        return capture_step(step, CARD, *tensors)


class GraphStub:
    def __init__(self, card: CardStub) -> None:
        self.card = card

    def replay(self) -> None:
        self.card.replays += 1
        self.card.replayed()


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> CardStub:
    return CardStub(monkeypatch)


def test_a_step_is_captured_on_a_stream_of_its_own(card: CardStub) -> None:
    weight, loss = torch.zeros(2), torch.zeros(1)

    def step() -> None:
        weight.add_(1)
        loss.copy_(weight.sum())

    card.replayed = step
    captured, problem = capture_step(step, CARD, [weight], [loss])
    assert problem == ""
    assert weight.tolist() == [0, 0]
    captured()
    assert (weight.tolist(), loss.item(), card.replays) == ([1, 1], 2, 2)
    capture_step(step, CARD, [weight], [loss])
    streams = [card.default, *card.warmup_streams, *card.capture_streams]
    assert len(card.capture_streams) == 2
    assert len(set(map(id, streams))) == len(streams) == 5
    assert card.current is card.default


def test_a_graph_with_other_results_is_not_used(card: CardStub) -> None:
    weight, loss = torch.zeros(2), torch.zeros(1)

    def step() -> None:
        weight.add_(1)
        loss.copy_(weight.sum())

    card.replayed = lambda: loss.fill_(7)
    captured, problem = capture_step(step, CARD, [weight], [loss])
    assert captured is step
    assert problem == "result 0 differs by 5 of 2"

    card.replayed = lambda: loss.fill_(2)
    captured, problem = capture_step(step, CARD, [weight], [loss])
    assert captured is step
    assert problem == "the state changes otherwise, by 1 of its change"
    assert weight.tolist() == [0, 0]


def test_after_a_capture_that_fails_the_stream_is_what_it_was(card: CardStub) -> None:
    weight = torch.zeros(2)

    def step() -> None:
        weight.add_(1)
        if card.capture_streams:
            raise error

    error = RuntimeError("operation not permitted when stream is capturing")
    captured, problem = capture_step(step, CARD, [weight], [])
    assert captured is step
    assert "not permitted" in problem
    assert card.current is card.default
    assert card.synchronized == 1
    assert weight.tolist() == [0, 0]

    card.capture_streams.clear()
    error = torch.OutOfMemoryError("out of memory")
    with pytest.raises(torch.OutOfMemoryError):
        capture_step(step, CARD, [weight], [])
    assert card.current is card.default


@pytest.fixture
def prepared(
    card: CardStub, specified: Callable, monkeypatch: pytest.MonkeyPatch
) -> tuple[Stack, StackBatches]:
    monkeypatch.setattr(stack_module, "capture_step", card.capture)
    specs = [specified(*TINY, f"seed={seed}") for seed in range(3)]
    first = specs[0]
    source = build_source(first.plain["data"], first.config.model.context)
    models = [build_stack_model(spec.config, source.vocabulary) for spec in specs]
    stack = Stack(models, [spec.config for spec in specs], torch.device("cpu"), "32-true")
    batches = StackBatches(source, stack, 4)
    stack.prepare(batches.batch(0))
    assert stack.graph
    return stack, batches


def test_a_stack_that_becomes_smaller_while_it_is_validated_has_a_graph_again(
    prepared: tuple[Stack, StackBatches], card: CardStub
) -> None:
    stack, batches = prepared
    with torch.no_grad():
        stack.select_runs([0, 2])
    assert stack.graph, stack.graph_problem
    assert len(card.graphs) == 2
    replays = card.replays
    stack.take_step(batches.batch(0))
    assert card.replays == replays + 1


def test_there_is_no_graph_while_a_model_is_compiled(
    prepared: tuple[Stack, StackBatches], card: CardStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack, batches = prepared
    alive = []

    def compile_model(function: Callable) -> Callable:
        def compiled(*arguments: object) -> torch.Tensor:
            alive.append(any(graph() is not None for graph in card.graphs))
            if fails:
                raise RuntimeError("no compiler")
            return function(*arguments)

        return compiled

    monkeypatch.setattr(torch, "compile", compile_model)
    fails = True
    with pytest.raises(stack_module.NormlabError, match="no compiler"):
        stack.compile_step()
    assert (stack.graph, stack.compiled, len(card.graphs)) == (True, False, 2)
    fails = False
    stack.compile_step()
    assert (stack.graph, stack.compiled, len(card.graphs)) == (True, True, 3)
    assert not any(alive[:2])
    stack.take_step(batches.batch(0))
