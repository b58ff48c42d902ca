"""On a card rmsnorm and layernorm take half precision as it is: as exact as their output's type."""

import pytest
import torch

from normlab.norms import LayerNorm, RMSNorm, UnitOffsetRMSNorm, norms

WIDTH = 256


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
@pytest.mark.parametrize("kind", [RMSNorm, LayerNorm, UnitOffsetRMSNorm])
def test_the_direct_norm_is_that_of_float64_to_rounding(
    kind: type, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    norm = kind(WIDTH)
    with torch.no_grad():
        for parameter in norm.parameters():
            # As the norm has them: rounded like the matrices of a layer.
            parameter.add_(0.3 * torch.randn(WIDTH)).copy_(parameter.to(dtype))
    x = (3 + 2 * torch.randn(64, WIDTH)).to(dtype)
    above = torch.randn(64, WIDTH).to(dtype)

    def compute(values: torch.Tensor, gradient: torch.Tensor) -> list[torch.Tensor]:
        values = values.clone().requires_grad_()
        y = norm._compute_with_torch(values, *norm.parameters())
        return [y.detach(), *torch.autograd.grad(y, [values], gradient.to(y.dtype))]

    monkeypatch.setattr(norms, "accumulates_in_fp32", lambda x: x.dtype is dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
        ours = compute(x, above)
    norm.double()
    exact = compute(x.double(), above.double())
    rounding = torch.finfo(dtype).eps
    for values, expected in zip(ours, exact, strict=True):
        assert values.dtype is dtype
        scale = float(expected.abs().max())
        assert float((values.double() - expected).abs().max()) < 3 * rounding * scale


def test_a_small_offset_from_1_is_not_rounded_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """In bf16 1.001 is 1, so the product is taken in fp32 and rounded once."""
    torch.manual_seed(0)
    norm = UnitOffsetRMSNorm(WIDTH)
    x = torch.randn(64, WIDTH).to(torch.bfloat16)
    with torch.no_grad():
        norm.offset.fill_(1e-3)
        plain = x.float() / (x.float().square().mean(-1, keepdim=True) + norm.eps).sqrt()
        expected = (1.001 * plain).to(torch.bfloat16)
        assert not torch.equal(expected, plain.to(torch.bfloat16))
        monkeypatch.setattr(norms, "accumulates_in_fp32", lambda x: x.dtype is torch.bfloat16)
        y = norm._compute_with_torch(x, norm.offset)
    assert y.dtype is torch.bfloat16
    different = (y != expected).float().mean()  # a tie of two fp32 results may round either way
    assert different < 0.01


def test_on_a_cpu_half_precision_is_widened() -> None:
    assert not norms.accumulates_in_fp32(torch.zeros(1, dtype=torch.bfloat16))
    assert not norms.accumulates_in_fp32(torch.zeros(1, dtype=torch.float32, device="meta"))
