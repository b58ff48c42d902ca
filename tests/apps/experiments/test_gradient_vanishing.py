"""What is measured at initialization, against theory and against a second way to compute it."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from normlab.apps.experiments.gradient_vanishing import DepthProfile, theory_deviation
from normlab.apps.experiments.gradient_vanishing_measurement import (
    PLAIN_STACK,
    STACKS_WITHOUT_NORM,
    StackVariant,
    average_seeds,
    draw_stack,
    layer_moments,
    profile_stacks,
    profile_streams,
    run_stack,
    run_stream,
)
from normlab.apps.experiments.signal_theory import expected_signal
from normlab.config.run_spec import RunSpec
from normlab.norms import RMSNorm

WIDTH, DEPTH, SEEDS = 128, 6, range(40)


def quiet(_: str) -> None:
    pass


@pytest.fixture(scope="module")
def measured() -> dict[str, DepthProfile]:
    variants = [*STACKS_WITHOUT_NORM, StackVariant("rmsnorm", "rmsnorm", "PyTorch", RMSNorm)]
    found = profile_stacks(variants, WIDTH, DEPTH, SEEDS, 64, quiet)
    return {one.name: one for one in found}


@pytest.mark.parametrize("name", ["no norm", "without biases", "Kaiming"])
def test_theory_is_within_five_percent_of_every_layer(
    name: str, measured: dict[str, DepthProfile]
) -> None:
    apart, layer = theory_deviation(measured[name])
    assert apart < 0.05, layer


@pytest.mark.parametrize("name", ["no norm", "without biases", "Kaiming", "rmsnorm"])
@pytest.mark.parametrize("quantity", ["share", "gradient"])
def test_information_and_gradient_are_theorys(
    name: str, quantity: str, measured: dict[str, DepthProfile]
) -> None:
    profile = measured[name]
    found = np.array(getattr(profile, quantity), float)
    assert found == pytest.approx(profile.expected_by_layer(quantity), rel=0.08)


def test_a_mistake_in_the_variances_would_be_seen(measured: dict[str, DepthProfile]) -> None:
    """Theory with weights of 1/n, as one might remember PyTorch's, is far off."""
    wrong = expected_signal(DEPTH, 1.0, 1 / WIDTH)
    assert abs(wrong[1].std / float(measured["no norm"].std[1] or 0) - 1) > 0.5


def test_information_is_what_is_left_when_each_neurons_mean_is_taken_away() -> None:
    """Total variance = variance of neurons' means + mean of their variances, by plain loops."""
    torch.manual_seed(1)
    layers = [[torch.randn(9, 5).exp() for _ in range(2)] for _ in range(3)]
    profile = average_seeds([layer_moments(activations, []) for activations in layers])
    for at in range(2):
        all_numbers = np.concatenate([one[at].numpy().ravel() for one in layers]).astype(float)
        columns = [one[at].numpy()[:, n].astype(float) for one in layers for n in range(5)]
        across = np.mean([sum((c - c.mean()) ** 2) / 8 for c in columns])
        assert profile["share"][at] == pytest.approx(across / all_numbers.var(), rel=1e-6)
        assert profile["std"][at] == pytest.approx(all_numbers.std(), rel=1e-6)
        assert profile["rms"][at] == pytest.approx(math.sqrt(np.mean(all_numbers**2)), rel=1e-6)
    assert profile["gradient"] == (None, None)


def test_the_error_is_that_of_the_mean_over_seeds() -> None:
    profile = average_seeds(
        [
            layer_moments([torch.full((2, 2), math.sqrt(value))], [torch.ones(2, 2)])
            for value in (1.0, 2.0, 3.0)
        ]
    )
    # Mean square 2, standard error 1/√3; of its root, half of that, relatively.
    assert profile["rms_error"][0] == pytest.approx(0.25 / math.sqrt(3))
    single_seed = average_seeds([layer_moments([torch.ones(2, 2)], [torch.ones(2, 2)])])
    assert single_seed["rms_error"] == (None,)


def test_the_stack_is_pytorchs_own() -> None:
    """The same numbers as nn.Sequential of nn.Linear and nn.ReLU under the same seed."""
    layers, x, above = draw_stack(16, 3, 5, 4)
    activations, gradients = run_stack(PLAIN_STACK, layers, x, above)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        linears = [nn.Linear(16, 16, dtype=torch.float64) for _ in range(3)]
    model = nn.Sequential(*(part for one in linears for part in (one, nn.ReLU())))
    given = x.clone().requires_grad_()
    out = model(given)
    (gradient,) = torch.autograd.grad(out, given, above)
    assert torch.equal(activations[-1], out)
    assert torch.allclose(gradients[0], gradient)


def test_variants_share_their_weights() -> None:
    bare, kaiming = profile_stacks(STACKS_WITHOUT_NORM[1:], 16, 4, [0], 8, quiet)
    factors = np.divide(kaiming.rms, bare.rms)
    assert factors == pytest.approx([6 ** (layer / 2) for layer in range(5)])


def test_a_stream_is_that_of_the_model(specified: Callable[..., RunSpec]) -> None:
    shape = ("model.width=32", "model.depth=3", "model.context=8")
    spec = specified("norm=rmsnorm", "placement=post", *shape)
    activations, gradients = run_stream(spec, 0.3, 1.0, 0)
    assert [tuple(one.shape) for one in activations] == [(4 * 8, 32)] * 4
    assert [float(one.square().mean()) for one in activations[1:]] == pytest.approx(
        [1.0] * 3, rel=1e-3
    )
    assert all(one.shape == other.shape for one, other in zip(activations, gradients, strict=True))
    assert float(gradients[1].norm()) > 0


def test_without_a_norm_the_stream_grows_and_post_holds_it(
    specified: Callable[..., RunSpec],
) -> None:
    shape = ("model.width=64", "model.depth=6", "model.context=16")
    specs = [
        specified("norm=none", "placement=pre", *shape),
        specified("norm=layernorm", "placement=post", *shape),
    ]
    none, post = profile_streams(specs, "1/√width", 1 / 8, 1.0, [0], quiet)
    assert (none.name, post.name) == ("none", "layernorm · post")
    assert (none.rms[-1] or 0) / (none.rms[1] or 1) > 20
    assert (post.rms[-1] or 0) / (post.rms[1] or 1) == pytest.approx(1.0, rel=1e-3)
    assert (none.gradient[1] or 0) > 20


def test_two_streams_and_gpt2s_initialization(specified: Callable[..., RunSpec]) -> None:
    spec = specified("norm=rmsnorm", "placement=residual", "model.width=16", "model.depth=2")
    (one,) = profile_streams([spec], "GPT-2", 0.02, "1/sqrt(2*L)", [0, 1], quiet)
    assert one.depth == 2
    assert one.seeds == 2
    assert all(value is not None for value in one.rms)
