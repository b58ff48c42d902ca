"""Evidence for the questions of lesson 1: signal, information and gradient through depth."""

import functools
import math

import torch
from torch import Tensor, nn

from learn_content.evidence import Evidence, evidence
from normlab.apps.experiments.signal_theory import expected_signal, rms_floor
from normlab.norms import LayerNorm, RMSNorm

WIDTH, INPUTS = 512, 256


@functools.cache
def stack_signals(depth: int) -> tuple[list[Tensor], float]:
    """Activations (inputs, width) after every Linear and ReLU; first gradient over last."""
    torch.manual_seed(0)
    first = x = torch.randn(INPUTS, WIDTH, requires_grad=True)
    layers = []
    for _ in range(depth):
        x = torch.relu(nn.Linear(WIDTH, WIDTH)(x))
        layers.append(x)
    x.retain_grad()
    (x * torch.randn_like(x)).sum().backward()
    ratio = first.grad.norm() / x.grad.norm()  # type: ignore[union-attr]
    return [layer.detach() for layer in layers], ratio.item()


def information_share(x: Tensor) -> float:
    """The part of the variance of (inputs, width) that is variance across inputs."""
    return (x.var(0).mean() / x.var()).item()


@evidence("vanishing-cause")
def lost_in_the_stack() -> Evidence:
    layers, gradient = stack_signals(8)
    deeper = expected_signal(24, 1 / 3, 1 / (3 * WIDTH))[-1].std
    std = layers[7].std().item()
    std_stays = abs(deeper / std - 1) < 0.1
    lost = information_share(layers[7]) < 0.01 and gradient < 0.01
    return Evidence(
        [False, not std_stays, not lost, lost], numbers={"0.016": std, "24": 24, "8": 8}
    )


@evidence("gradient-per-layer")
def gradient_per_layer() -> Evidence:
    _, gradient = stack_signals(8)
    return Evidence(answer=gradient ** (1 / 8), numbers={"0.408": math.sqrt(1 / 6), "6": 6})


@evidence("floor-of-another-width")
def floor_of_another_width() -> Evidence:
    measured = expected_signal(40, 1 / 3, 1 / (3 * 128))[-1].rms
    assert math.isclose(measured, rms_floor(128), rel_tol=1e-3)
    std = expected_signal(40, 1 / 3, 1 / (3 * WIDTH))[-1].std
    numbers = {"0.0395": measured, "512": WIDTH, "0.0198": rms_floor(WIDTH), "0.016": std}
    return Evidence(answer=measured, numbers=numbers)


@evidence("twenty-layers")
def twenty_layers() -> Evidence:
    with_bias = expected_signal(20, 1 / 3, 1 / (3 * WIDTH))
    without = expected_signal(20, 1 / 3, 0)
    ratio, ratio_without = (signal[20].std / signal[8].std for signal in (with_bias, without))
    assert ratio_without < 1e-3
    return Evidence(
        [abs(ratio - 1) < 0.05, ratio < 1e-2, with_bias[20].std == 0],
        numbers={"0.016": with_bias[20].std},
    )


@evidence("layernorm-instead")
def layernorm_instead() -> Evidence:
    stds, means = [], []
    for kind in (RMSNorm, LayerNorm):
        torch.manual_seed(0)
        x = torch.randn(INPUTS, WIDTH)
        for _ in range(8):
            before = kind(WIDTH)(nn.Linear(WIDTH, WIDTH)(x))
            x = torch.relu(before).detach()
        stds.append(x.std().item())
        means.append(abs(before.mean().item()))
    alike = abs(stds[0] / stds[1] - 1) < 0.05
    return Evidence(
        [alike, not alike, means[1] > 0.5],
        numbers={"0.58": math.sqrt(0.5 - 1 / (2 * math.pi)), "8": 8, "5": 5},
    )


@evidence("logarithmic-axis")
def logarithmic_axis() -> Evidence:
    torch.manual_seed(0)
    x = torch.randn(INPUTS, WIDTH, requires_grad=True)
    layers = [x]
    for _ in range(8):
        layers.append(torch.relu(nn.Linear(WIDTH, WIDTH)(layers[-1])))
        layers[-1].retain_grad()
    (layers[-1] * torch.randn_like(layers[-1])).sum().backward()
    logs = torch.tensor([layer.grad.norm().log() for layer in layers])  # type: ignore[union-attr]
    correlation = torch.corrcoef(torch.stack((torch.arange(9.0), logs)))[0, 1].item()
    assert correlation**2 > 0.99
    return Evidence([False, False, correlation**2 > 0.99], numbers={"0.99": 0.99})


@evidence("skip-or-norm")
def skip_or_norm() -> Evidence:
    grown, bounded = (residual_growth(norm) for norm in (nn.Identity(), RMSNorm(WIDTH)))
    layers, _ = stack_signals(8)
    information_falls = information_share(layers[7]) < information_share(layers[0])
    return Evidence(
        [grown > 100 and bounded < 5, grown < 10, not information_falls],
        numbers={"100": 100, "16": 16, "17": 17, "4.1": bounded},
    )


def residual_growth(norm: nn.Module) -> float:
    """RMS of a stream after 16 layers x + W N(x), weights of variance 1/width, from RMS 1."""
    torch.manual_seed(0)
    x = torch.randn(INPUTS, WIDTH)
    for _ in range(16):
        x = x + norm(x) @ (torch.randn(WIDTH, WIDTH) / math.sqrt(WIDTH))
    return x.square().mean().sqrt().item()


@evidence("fp16-overflow-depth")
def fp16_overflow_depth() -> Evidence:
    torch.manual_seed(0)
    x = torch.randn(WIDTH).half()
    layers = 0
    while x.isfinite().all():
        x = (torch.randn(WIDTH, WIDTH) @ x.float()).half()
        layers += 1
    factor = math.sqrt(WIDTH)
    return Evidence(
        answer=layers,
        numbers={"22.6": factor, "11,585": factor**3, "262,144": factor**4, "3": 3, "4": 4},
    )


@evidence("norm-after-the-loss")
def norm_after_the_loss() -> Evidence:
    layers, _ = stack_signals(8)
    normed = RMSNorm(WIDTH, eps=1e-12)(layers[7]).detach()
    std_back, share_back = normed.std() > 0.8, information_share(normed) > 0.01
    return Evidence(
        [bool(std_back and share_back), not std_back, bool(std_back and not share_back)],
        numbers={"0.8": 0.8},
    )


@evidence("analogy")
def analogy() -> Evidence:
    torch.manual_seed(0)
    norm = RMSNorm(64, eps=1e-12)
    x = torch.randn(64)
    cosine = torch.cosine_similarity(norm(x), x, dim=0).item()
    same = torch.allclose(norm(10 * x), norm(x), atol=1e-5)
    gradients = []
    for scale in (1, 10):
        scaled = (scale * x).requires_grad_()
        (norm(scaled) * torch.arange(64.0)).sum().backward()
        gradients.append(scaled.grad.norm().item())  # type: ignore[union-attr]
    backward_acts = math.isclose(gradients[0], 10 * gradients[1], rel_tol=1e-4)
    return Evidence([cosine > 1 - 1e-6, not same, not backward_acts], numbers={"10": 10})
