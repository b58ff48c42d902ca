"""Every norm in conf/norm with every placement in conf/placement: one network that trains.

Files are found by being there. A pair has the projections that every other pair has, learns, and
goes on from a checkpoint as if it had never stopped.
"""

import io
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from normlab import config
from normlab.config.run_spec import RunSpec
from normlab.config.schema import TrainConfig
from normlab.data import build_source
from normlab.model.gpt import GPT
from normlab.model.initialization import Embedding, Linear
from normlab.training.build import build_model, check_networks
from normlab.training.hardware import single_thread
from normlab.training.module import LanguageModel, to_tensors
from tiny_run import TINY


def files(group: str) -> list[str]:
    return sorted(path.stem for path in (config.conf_folder() / group).glob("*.yaml"))


NORMS, PLACEMENTS = files("norm"), files("placement")
# Every norm and every placement at least once; the slow test takes all pairs.
SOME = [(norm, "pre") for norm in NORMS]
SOME += [("rmsnorm", name) for name in PLACEMENTS if name != "pre"]
STEPS = 8
SMALL = (*TINY, "model.depth=4", "model.width=32", "model.context=8", f"trainer.max_steps={STEPS}")

Batch = tuple[Tensor, Tensor]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Two would wait for each other longer than they compute."""
    with single_thread():
        yield


@pytest.fixture
def pair(specified: Callable) -> Callable[[str, str], RunSpec]:
    """The run of a pair."""

    def combine(norm: str, placement: str) -> RunSpec:
        one, other = (
            specified(*SMALL, name) for name in (f"norm={norm}", f"placement={placement}")
        )
        return replace(other, config=replace(other.config, norm=one.config.norm))

    return combine


@pytest.mark.parametrize(("norm", "placement"), SOME)
def test_weight_decay_is_for_projections_and_embeddings_only(
    norm: str, placement: str, pair: Callable[[str, str], RunSpec]
) -> None:
    """As conf/optimizer/adamw.yaml says; what has two dimensions or more is decayed."""
    model = build_model(pair(norm, placement).config, 11)
    decayed = {name for name, parameter in model.named_parameters() if parameter.dim() >= 2}
    assert (
        decayed
        == {
            f"{name}.weight"
            for name, module in model.named_modules()
            if isinstance(module, Linear | Embedding)
        }
        & dict(model.named_parameters()).keys()
    )


@pytest.fixture(scope="module")
def batches() -> list[Batch]:
    data = {"kind": "synthetic", "batch_size": 4, "source": "markov", "vocabulary": 8, "order": 1}
    source = build_source({**data, "concentration": 0.2, "validation_windows": 1}, 8)
    return [to_tensors(source.batch(0, index)) for index in range(STEPS)]


class Training:
    """A pair's model with its optimizer and schedule, taken step by step."""

    def __init__(self, config: TrainConfig) -> None:
        torch.manual_seed(0)
        self.module = LanguageModel(build_model(config, 8), config)
        made = self.module.configure_optimizers()
        self.optimizer, self.schedule = made["optimizer"], made["lr_scheduler"]["scheduler"]

    def steps(self, batches: list[Batch]) -> list[float]:
        losses = []
        for index, batch in enumerate(batches):
            self.optimizer.zero_grad()
            loss = self.module.training_step(batch, index)
            loss.backward()
            self.module.configure_gradient_clipping(self.optimizer)
            self.optimizer.step()
            self.schedule.step()
            losses.append(loss.item())
        return losses

    def saved(self) -> bytes:
        parts = (self.module, self.optimizer, self.schedule)
        stream = io.BytesIO()
        torch.save([part.state_dict() for part in parts], stream)
        return stream.getvalue()

    def load(self, checkpoint: bytes) -> None:
        states = torch.load(io.BytesIO(checkpoint), weights_only=True)
        for part, state in zip((self.module, self.optimizer, self.schedule), states, strict=True):
            part.load_state_dict(state)


def drawn(model: GPT) -> Iterator[tuple[str, Tensor]]:
    """What is drawn at random, turned back to the standard normal draw."""
    for name, module in model.named_modules():
        if isinstance(module, Linear | Embedding):
            parts = torch.split(module.weight, [rows for rows, _ in module.std])
            stds = [std for _, std in module.std]
            yield name, torch.cat([part / std for part, std in zip(parts, stds, strict=True)])


def hold(spec: RunSpec, batches: list[Batch], reference: dict[str, Tensor]) -> None:
    check_networks([spec])
    whole, first, second = (Training(spec.config) for _ in range(3))
    found = dict(drawn(whole.module.model))
    assert found.keys() == reference.keys()
    for name, weight in found.items():
        torch.testing.assert_close(weight, reference[name], rtol=1e-6, atol=1e-6)
    losses = whole.steps(batches)
    assert all(torch.tensor(losses).isfinite())
    half = len(batches) // 2
    begun = first.steps(batches[:half])
    second.load(first.saved())
    assert begun + second.steps(batches[half:]) == losses
    state = second.module.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in whole.module.state_dict().items())


@pytest.fixture
def reference(pair: Callable) -> dict[str, Tensor]:
    return dict(drawn(build_model(pair("none", "pre").config, 8)))


@pytest.mark.parametrize(("norm", "placement"), SOME, ids=["-".join(some) for some in SOME])
def test_a_norm_or_placement_trains_from_the_same_draw_and_resumes_exactly(
    norm: str, placement: str, pair: Callable, batches: list[Batch], reference: dict[str, Tensor]
) -> None:
    hold(pair(norm, placement), batches, reference)


@pytest.mark.slow
@pytest.mark.parametrize("placement", PLACEMENTS)
def test_all_pairs_train_from_the_same_draw_and_resume_exactly(
    placement: str, pair: Callable, batches: list[Batch], reference: dict[str, Tensor]
) -> None:
    for norm in NORMS:
        hold(pair(norm, placement), batches, reference)
