"""Every placement in conf/placement is the equation that its file states."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from normlab import config
from normlab.training.build import build_model
from tiny import TINY

FILES = sorted(path.stem for path in (config.folder() / "placement").glob("*.yaml"))

Map = Callable[[Tensor], Tensor]

# x, f and the norm n to the stream after one sublayer, and whether a norm stands before the head.
EQUATIONS: dict[str, tuple[Callable[[Tensor, Map, Map], Tensor], bool]] = {
    "pre": (lambda x, f, n: x + f(n(x)), True),
    "post": (lambda x, f, n: n(x + f(x)), False),
    "sandwich": (lambda x, f, n: x + n(f(n(x))), True),
    "output": (lambda x, f, n: x + n(f(x)), True),
    "layerscale": (lambda x, f, n: x + 0.1 * f(n(x)), True),
}


def test_every_file_has_an_equation_to_be_held_to() -> None:
    assert sorted(EQUATIONS) == FILES


@pytest.mark.parametrize("placement", FILES)
def test_a_sublayer_is_its_files_equation(placement: str, specified: Callable) -> None:
    equation, final = EQUATIONS[placement]
    spec = specified(*TINY, "norm=layernorm", f"placement={placement}")
    model = build_model(spec.config, 8).eval()
    x = torch.randn(2, 16, 16, generator=torch.Generator().manual_seed(0))
    for block in model.blocks:
        for residual in (block.attention, block.feedforward):
            expected = equation(x, residual.sublayer, torch.nn.LayerNorm(16))
            torch.testing.assert_close(residual(x), expected)
    assert isinstance(model.final_norm, torch.nn.Identity) != final
