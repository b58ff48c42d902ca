"""What is compared is the same: shapes, parameters, causality, and the products of the limit."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from models import NANO, PEERS, RECIPE, SHAPES, TINY, Shape, is_installed
from normlab.model.gpt import GPT, count_parameters
from normlab.training.build import build_model
from training_loops import DTYPES, compose_run, make_operands

# Biases and norms: GPT-2 and the tutorial have biases, x-transformers and we have few or none.
TOLERANCE = 0.015


def ours(shape: Shape) -> GPT:
    return build_model(compose_run(shape.overrides).config, shape.vocabulary)


@pytest.fixture(params=list(PEERS))
def peer(request: pytest.FixtureRequest) -> str:
    package, _ = PEERS[request.param]
    if not is_installed(package):
        pytest.skip(f"{package} is not installed")
    return str(request.param)


@pytest.mark.parametrize("shape", [NANO, RECIPE], ids=lambda shape: shape.name)
def test_a_peer_has_as_many_parameters_as_our_model(peer: str, shape: Shape) -> None:
    with torch.device("meta"):
        there = count_parameters(PEERS[peer][1](shape))
    assert there == pytest.approx(count_parameters(ours(shape)), rel=TOLERANCE)


def test_a_peer_gives_logits_and_sees_no_future(peer: str) -> None:
    model: nn.Module = PEERS[peer][1](TINY).eval()
    tokens = torch.randint(TINY.vocabulary, (2, TINY.context))
    changed = tokens.clone()
    changed[:, -1] = (changed[:, -1] + 1) % TINY.vocabulary
    before, after = model(tokens), model(changed)
    assert before.shape == (2, TINY.context, TINY.vocabulary)
    torch.testing.assert_close(before[:, :-1], after[:, :-1])
    assert not torch.allclose(before[:, -1], after[:, -1])


def test_a_peer_reads_the_past(peer: str) -> None:
    model: nn.Module = PEERS[peer][1](TINY).eval()
    tokens = torch.randint(TINY.vocabulary, (1, TINY.context))
    changed = tokens.clone()
    changed[:, 0] = (changed[:, 0] + 1) % TINY.vocabulary
    difference = (model(tokens) - model(changed)).abs().amax(-1)
    assert (difference > 0).all()


@pytest.mark.parametrize("shape", list(SHAPES.values()), ids=lambda shape: shape.name)
def test_our_configuration_of_a_shape_is_that_shape(shape: Shape) -> None:
    config = compose_run(shape.overrides).config
    model = config.model
    assert (model.depth, model.heads, model.width, model.context) == (
        shape.depth,
        shape.heads,
        shape.width,
        shape.context,
    )
    assert config.data.batch_size * model.context == shape.tokens


def test_the_recipe_has_its_ten_million_parameters() -> None:
    assert count_parameters(ours(RECIPE)) == pytest.approx(10.8e6, rel=0.02)


def test_the_products_of_the_limit_are_those_that_our_model_makes() -> None:
    """Torch's own counter, on the explicit way through attention."""
    overrides = [*TINY.overrides, "model.attention=explicit"]
    model = build_model(compose_run(overrides).config, TINY.vocabulary)
    tokens = torch.randint(TINY.vocabulary, (TINY.batch, TINY.context))
    with FlopCounterMode(display=False) as counter:
        model(tokens).sum().backward()
    assert sum(product.flops for product in TINY.list_products()) == counter.get_total_flops()


@pytest.mark.parametrize("dtype", list(DTYPES.values()), ids=str)
def test_the_limit_multiplies_what_its_flops_say(dtype: torch.dtype) -> None:
    for product in TINY.list_products():
        triples = make_operands(product, dtype)
        flops = 0
        for left, right, out in triples:
            assert torch.matmul(left, right).shape == out.shape
            assert left.dtype == right.dtype == out.dtype == dtype
            flops += 2 * out.numel() * left.shape[-1]
        assert product.repeats * flops == product.flops
