"""What every norm promises to a causal model, tried on a few tokens before anything is trained."""

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from normlab.errors import ConfigError

_SHAPE = (3, 4)  # sequences and tokens; BatchNorm needs more than one of each


def check_contract(norm: nn.Module, width: int, name: str) -> None:
    """Refuse a norm that a causal model cannot hold: the first promise that it breaks.

    It takes (…, width) to (…, width) in the same dtype, leaves its input alone, gives finite
    numbers from finite parameters, and lets no token see a later one or another sequence. Its
    parameters stay changed.

    Raises:
        ConfigError: naming the norm `name`, what it did, and what is allowed.
    """
    check_kind(norm, width, name)
    x = torch.randn(*_SHAPE, width, generator=torch.Generator().manual_seed(0))
    kept = x.clone()
    out = _output(norm, x, name, width)
    if out.shape != x.shape or out.dtype != x.dtype:
        raise ConfigError(
            f"{name} made {_words(out)} of {_words(x)}; a norm keeps shape and dtype."
        )
    if not torch.equal(x, kept):
        raise ConfigError(f"{name} changes its input in place; a norm gives a new tensor.")
    if not out.isfinite().all():
        raise ConfigError(
            f"{name} gives numbers that are not finite for a token of ordinary numbers, N(0, 1) at "
            f"width {width}; a norm is defined for those."
        )
    if _leaks(norm, x):
        raise ConfigError(_leak(name))
    _perturb(norm)
    if _leaks(norm.train(), x) or _leaks(norm.eval(), x):
        raise ConfigError(_leak(name))


def check_kind(norm: nn.Module, width: int, name: str) -> None:
    """Refuse what needs no trying: open or infinite parameters, and BatchNorm.

    Raises:
        ConfigError: naming the norm `name`, and why.
    """
    if isinstance(norm, nn.modules.batchnorm._BatchNorm):
        raise ConfigError(_leak(name))  # it would fail first over its own order of dimensions
    for parameter, value in norm.named_parameters():
        if isinstance(value, UninitializedParameter):
            raise ConfigError(
                f"{name} leaves the size of {parameter} open; a norm has its size from the width."
            )
        if not value.isfinite().all():
            raise ConfigError(
                f"{name} starts with {parameter} that is not finite at width {width}; "
                f"give it a finite start."
            )


def _output(norm: nn.Module, x: Tensor, name: str, width: int) -> Tensor:
    try:
        out = _applied(norm, x)
    except Exception as error:
        said = " ".join(str(error).split())
        raise ConfigError(
            f"{name} cannot take {_words(x)} ({type(error).__name__}: {said[:200]}); "
            f"a norm takes (…, {width}) and keeps its shape."
        ) from error
    if not isinstance(out, Tensor):
        raise ConfigError(f"{name} gave a {type(out).__name__}; a norm gives a tensor.")
    return out


@torch.no_grad()
def _applied(norm: nn.Module, x: Tensor) -> Tensor:
    """The output, with the same random numbers each time for a norm that draws some."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return norm(x)  # type: ignore[no-any-return]


@torch.no_grad()
def _perturb(norm: nn.Module) -> None:
    """Move every parameter: a gain that starts at 0 hides what stands behind it."""
    generator = torch.Generator().manual_seed(0)
    for parameter in norm.parameters():
        parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.25)


def _leaks(norm: nn.Module, x: Tensor) -> bool:
    changes = ((0, 1), (0, 2), (0, 3), (2, 0))
    return any(_sees(norm, x, sequence, token) for sequence, token in changes)


def _sees(norm: nn.Module, x: Tensor, sequence: int, token: int) -> bool:
    """Whether a token's vector reaches an earlier token of its sequence, or another sequence."""
    changed = x.clone()
    changed[sequence, token] = -100 * changed[sequence, token] + 3
    before, after = _applied(norm, x.clone()), _applied(norm, changed)
    spared = torch.ones(_SHAPE, dtype=torch.bool)
    spared[sequence, token:] = False
    return not torch.allclose(after[spared], before[spared], rtol=1e-6, atol=1e-7, equal_nan=True)


def _leak(name: str) -> str:
    return (
        f"{name} takes statistics over several tokens, so a token would see the future ones that "
        f"it has to predict, or another sequence, and every loss would be wrong; take a norm of "
        f"each token by itself, such as layernorm or rmsnorm."
    )


def _words(x: Tensor) -> str:
    return f"{str(x.dtype).removeprefix('torch.')} {tuple(x.shape)}"
