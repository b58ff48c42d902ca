"""What every norm promises to a causal model, tried on a few tokens before anything is trained."""

import torch
from torch import Tensor, nn

from normlab.errors import ConfigError

_SHAPE = (3, 4)  # sequences and tokens; BatchNorm needs more than one of each


def check_contract(norm: nn.Module, width: int, name: str) -> None:
    """Refuse a norm that a causal model cannot hold: the first promise that it breaks.

    It takes (…, width) to (…, width) in the same dtype, starts with finite parameters, and treats
    every token by itself.

    Raises:
        ConfigError: naming the norm `name`, what it did, and what is allowed.
    """
    for parameter, value in norm.named_parameters():
        if not value.isfinite().all():
            raise ConfigError(
                f"norm {name} starts with {parameter} that is not finite at width {width}; "
                f"give it a finite start."
            )
    if isinstance(norm, nn.modules.batchnorm._BatchNorm):
        raise ConfigError(_leak(name))  # it would fail first over its own order of dimensions
    x = torch.randn(*_SHAPE, width, generator=torch.Generator().manual_seed(0))
    out = _output(norm, x, name, width)
    if out.shape != x.shape or out.dtype != x.dtype:
        raise ConfigError(
            f"norm {name} made {_words(out)} of {_words(x)}; a norm keeps shape and dtype."
        )
    if not _independent(norm, x, out):
        raise ConfigError(_leak(name))


def _output(norm: nn.Module, x: Tensor, name: str, width: int) -> Tensor:
    try:
        with torch.no_grad():
            out = norm(x)
    except Exception as error:
        said = " ".join(str(error).split())
        raise ConfigError(
            f"norm {name} cannot take {_words(x)}: {type(error).__name__}: {said[:200]}; "
            f"a norm takes (…, {width}) and keeps its shape."
        ) from error
    if not isinstance(out, Tensor):
        raise ConfigError(f"norm {name} gave a {type(out).__name__}; a norm gives a tensor.")
    return out


@torch.no_grad()
def _independent(norm: nn.Module, x: Tensor, out: Tensor) -> bool:
    """Whether other tokens, later ones or those of other sequences, leave a token alone."""
    changed = x.clone()
    changed[0, 0] *= -3
    changed[0, 0] += 1
    again = norm(changed)
    others = torch.ones(_SHAPE, dtype=torch.bool)
    others[0, 0] = False
    return torch.allclose(again[others], out[others], rtol=1e-4, atol=1e-5, equal_nan=True)


def _leak(name: str) -> str:
    return (
        f"norm {name} takes statistics over several tokens, so a token would see the future ones "
        f"it has to predict, and every loss would be wrong; take a norm of each token by itself, "
        f"such as layernorm or rmsnorm."
    )


def _words(x: Tensor) -> str:
    return f"{str(x.dtype).removeprefix('torch.')} {tuple(x.shape)}"
