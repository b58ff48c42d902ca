"""The factory that builds a norm from its config, and the contract that each norm is held to."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from normlab.errors import ConfigError, describe_error
from normlab.text import join_words, suggest_closest

_MOST_NAMES = 20  # of classes, in a message
_MOST_OTHER_NUMBERS = 2**20  # of a norm, besides matrices of its width
_SHAPE = (3, 4)  # sequences and tokens; BatchNorm needs more than one of each
_LONG = 150  # tokens of a sequence that is longer than a class's chunks of 32, 64 or 128


def norm_factory(config: Mapping[str, Any], key: str = "norm") -> Callable[[int], nn.Module]:
    """A function from width to a fresh norm, from `_target_` and its arguments.

    The target is any callable that takes the width first and gives an `nn.Module`; `key` is where
    the config stands, for messages.

    Raises:
        ConfigError: by the returned function, when the target cannot be imported or built.
    """
    arguments = {name: value for name, value in config.items() if name != "_partial_"}
    checked: set[int] = set()

    def build_norm(width: int) -> nn.Module:
        if width not in checked:
            _check_size(arguments, width, key)
            checked.add(width)
        try:
            # Lists and mappings as Python's own: a class cannot be expected to take OmegaConf's.
            norm = instantiate(arguments, width, _convert_="all")
        except InstantiationException as error:
            if isinstance(error.__cause__, ConfigError):
                raise ConfigError(f"{key}: {error.__cause__}") from error
            target = str(arguments.get("_target_"))
            module, _, name = target.rpartition(".")
            classes = _class_names(module)
            if classes and name not in classes:
                more = " and others" if len(classes) > _MOST_NAMES else ""
                raise ConfigError(
                    f"{key}._target_={target} does not exist; "
                    f"{suggest_closest(name, classes, f'{module}.')}{module} has "
                    f"{', '.join(classes[:_MOST_NAMES])}{more}."
                ) from error
            reason = describe_error(_root_cause(error))
            advice = "its arguments are the other keys beside _target_"
            if "multiple values for argument" in reason:
                advice = "it is given the width first, so leave the key of that argument out"
            raise ConfigError(
                f"{key}._target_={target} cannot be built for width {width} ({reason}); {advice}."
            ) from error
        if not isinstance(norm, nn.Module):
            raise ConfigError(
                f"{key}._target_={arguments['_target_']} gave a {type(norm).__name__}; "
                f"a norm is a torch.nn.Module built from the width."
            )
        return norm

    return build_norm


def _check_size(arguments: Mapping[str, Any], width: int, key: str) -> None:
    """Refuse a norm that is larger than any function of a token has to be, before it is built."""
    try:
        with torch.device("meta"):  # which has no memory
            norm = instantiate(arguments, width, _convert_="all")
        count = sum(tensor.numel() for tensor in (*norm.parameters(), *norm.buffers()))
    except Exception:  # of anybody's class: what is wrong is said where it is really built
        return
    # A Linear with a large out_features took 10 GB before its shape was refused.
    most = 16 * width**2 + _MOST_OTHER_NUMBERS
    if count > most:
        raise ConfigError(
            f"{key}._target_={arguments['_target_']} has {count:,} parameters for width {width}, "
            f"and a norm may have {most:,}; it maps a token of that width to one of the same width."
        )


def _class_names(module: str) -> list[str]:
    """The classes of modules that an imported Python module offers."""
    members = vars(sys.modules[module]) if module in sys.modules else {}
    return sorted(
        name
        for name, item in members.items()
        if isinstance(item, type) and issubclass(item, nn.Module) and not name.startswith("_")
    )


def _root_cause(error: BaseException) -> BaseException:
    """The first error of a chain."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def check_contract(norm: nn.Module, width: int, name: str) -> None:
    """Refuse a norm that a causal model cannot hold: the first promise that it breaks.

    It takes (…, width) to (…, width) in the same dtype, leaves its input alone, gives finite
    numbers from finite parameters, and lets no token see a later one or another sequence. Its
    parameters stay changed.

    Raises:
        ConfigError: naming the norm `name`, what it did, and what is allowed.
    """
    check_parameters(norm, width, name)
    x = torch.randn(*_SHAPE, width, generator=torch.Generator().manual_seed(0))
    before = x.clone()
    out = _apply_norm(norm, x, name)
    if not isinstance(out, Tensor):
        raise ConfigError(f"{name} gave a {type(out).__name__}; a norm gives a tensor.")
    if out.shape != x.shape or out.dtype != x.dtype:
        raise ConfigError(
            f"{name} made {_describe_tensor(out)} of {_describe_tensor(x)}; "
            f"a norm keeps shape and dtype."
        )
    if not torch.equal(x, before):
        raise ConfigError(f"{name} changes its input in place; a norm gives a new tensor.")
    if not out.isfinite().all():
        raise ConfigError(
            f"{name} gives numbers that are not finite for a token of ordinary numbers, N(0, 1) at "
            f"width {width}; a norm is defined for those."
        )
    if _leaks_tokens(norm, x, name):
        raise ConfigError(_explain_leak(norm, x, name))
    _perturb_parameters(norm)
    if _leaks_tokens(norm.train(), x, name) or _leaks_tokens(norm.eval(), x, name):
        raise ConfigError(_explain_leak(norm, x, name))


def check_parameters(norm: nn.Module, width: int, name: str) -> None:
    """Refuse what is wrong without a call: open or infinite parameters, and BatchNorm.

    Raises:
        ConfigError: naming the norm `name`, and why.
    """
    if isinstance(norm, nn.modules.batchnorm._BatchNorm):
        raise ConfigError(_leak_message(name))  # else its order of dimensions would fail first
    devices = {str(tensor.device) for tensor in (*norm.parameters(), *norm.buffers())} - {"cpu"}
    if devices:
        raise ConfigError(
            f"{name} puts its parameters on {', '.join(sorted(devices))}; a norm is built on the "
            f"CPU, and moved with its model: leave device out of its arguments."
        )
    for parameter, value in norm.named_parameters():
        if isinstance(value, UninitializedParameter):
            raise ConfigError(
                f"{name} does not fix the size of {parameter}; a norm takes its size from the "
                f"width."
            )
    for key, value in norm.state_dict().items():
        # Of a module's own extra state nothing is known.
        if isinstance(value, Tensor) and not value.isfinite().all():
            raise ConfigError(
                f"{name} starts with {key} that is not finite at width {width}; give it a finite "
                f"start, or of a buffer leave it out of the saved states, with persistent=False."
            )


@torch.no_grad()
def _apply_norm(norm: nn.Module, x: Tensor, name: str, seed: int = 0) -> Tensor:
    """The output, with the same random numbers each time for a norm that draws some."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            return norm(x)  # type: ignore[no-any-return]
        except Exception as error:  # whatever a user's own class raises
            raise ConfigError(
                f"{name} cannot take {_describe_tensor(x)} ({describe_error(error, 200)}); a norm "
                f"takes (…, {x.shape[-1]}) and keeps its shape."
            ) from error


@torch.no_grad()
def _perturb_parameters(norm: nn.Module) -> None:
    """Move every parameter: a gain that starts at 0 hides what stands behind it."""
    generator = torch.Generator().manual_seed(0)
    for parameter in norm.parameters():
        parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.25)


def _leaks_tokens(norm: nn.Module, x: Tensor, name: str) -> bool:
    # Each later token and another sequence. A check that changed the first token alone passed a
    # norm that added the next one: it saw what goes forward in time, and not what comes back.
    changes = ((0, 1), (0, 2), (0, 3), (2, 0))
    if any(_reaches_other_tokens(norm, x, name, sequence, token) for sequence, token in changes):
        return True
    # A class may treat short sequences otherwise, as one that works on chunks of them.
    long = torch.randn(2, _LONG, x.shape[-1], generator=torch.Generator().manual_seed(0))
    tokens = (1, _LONG // 2, _LONG - 1)
    return any(_reaches_other_tokens(norm, long, name, 0, token) for token in tokens)


def _reaches_other_tokens(norm: nn.Module, x: Tensor, name: str, sequence: int, token: int) -> bool:
    """Whether a token's vector reaches an earlier token of its sequence, or another sequence."""
    changed = x.clone()
    changed[sequence, token] = -100 * changed[sequence, token] + 3
    before, after = _apply_norm(norm, x.clone(), name), _apply_norm(norm, changed, name)
    spared = torch.ones(x.shape[:-1], dtype=torch.bool)
    spared[sequence, token:] = False
    return not torch.allclose(after[spared], before[spared], rtol=1e-6, atol=1e-7, equal_nan=True)


def find_untrained(norm: nn.Module, width: int, name: str) -> list[str]:
    """Sentences about what of a norm is not trained, though it looks so; none if all of it is.

    That is what no gradient reaches, and tensors that are neither parameters nor buffers. Nothing
    of this is refused, for it may be meant. A parameter with `requires_grad=False` is frozen on
    purpose.

    Raises:
        ConfigError: the norm `name` cannot be differentiated.
    """
    unknown = _unknown_tensors(norm)
    x = torch.randn(*_SHAPE, width, generator=torch.Generator().manual_seed(0)).requires_grad_()
    trained = {key: value for key, value in norm.named_parameters() if value.requires_grad}
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            out = norm.train()(x * 1)  # no leaf, as in a model: it could be changed in place
            # Not the plain sum, which is constant for LayerNorm.
            loss = (out * torch.randn(out.shape)).sum()
        gradients: Sequence[Tensor | None] = [None] * (1 + len(trained))
        if loss.requires_grad:
            gradients = torch.autograd.grad(loss, [x, *trained.values()], allow_unused=True)
    except Exception as error:  # of a user's own class, whose backward pass may be its own
        raise ConfigError(
            f"{name} cannot be differentiated ({describe_error(error, 200)}); a norm is trained "
            f"by the gradient of its output."
        ) from error
    sentences = []
    of_input, *of_parameters = gradients
    if of_input is None:
        sentences.append(
            f"{name} lets no gradient reach its input, so what stands before it is not trained "
            f"through it; compute the output without torch.no_grad() and without detach()."
        )
    if unreached := [key for key, g in zip(trained, of_parameters, strict=True) if g is None]:
        sentences.append(
            f"{name} lets no gradient reach {join_words(unreached)}, and a parameter that none "
            f"reaches is not trained; use it without torch.no_grad() and without detach(), or give "
            f"it requires_grad=False if it is fixed on purpose."
        )
    # Those that the call has computed anew from parameters are no state: weight_norm keeps one.
    unknown = [key for key in unknown if key in _unknown_tensors(norm)]
    if unknown:
        sentences.append(
            f"{name} holds {join_words(unknown)} outside its parameters and buffers: such a tensor "
            f"is not trained, not saved and not moved to the device of the model; make it a "
            f"torch.nn.Parameter, or with register_buffer a buffer if it is constant."
        )
    return sentences


def _unknown_tensors(norm: nn.Module) -> list[str]:
    """The attributes of a module with floating-point tensors that it has not registered."""
    registered = {id(tensor) for tensor in (*norm.parameters(), *norm.buffers())}
    return [
        f"{prefix}.{key}".lstrip(".")
        for prefix, module in norm.named_modules()
        for key, value in vars(module).items()
        if any(
            tensor.is_floating_point() and tensor.is_leaf and id(tensor) not in registered
            for tensor in _list_tensors(value)
        )
    ]


def _list_tensors(value: Any) -> Iterator[Tensor]:
    """The tensors of an attribute, also in a list or a mapping, and those of modules in it."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, nn.Module):
        yield from (*value.parameters(), *value.buffers())
    elif isinstance(value, list | tuple | Mapping):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _list_tensors(item)


def _explain_leak(norm: nn.Module, x: Tensor, name: str) -> str:
    """Why another token's output changed; how many numbers a norm draws may depend on its input."""
    for mode in (norm.train(), norm.eval()):
        first, second = _apply_norm(mode, x, name), _apply_norm(mode, x, name, seed=1)
        if not torch.allclose(first, second, equal_nan=True):
            return (
                f"{name} draws random numbers, and which ones a token gets depends on the other "
                f"tokens, so nothing can tell whether it sees future ones; use a norm without "
                f"random numbers, or one that draws as many for every input."
            )
    return _leak_message(name)


def _leak_message(name: str) -> str:
    return (
        f"{name} takes statistics over several tokens, so a token would see the future ones that "
        f"it has to predict, or another sequence, and every loss would be wrong; use a norm that "
        f"treats each token by itself, such as layernorm or rmsnorm."
    )


def name_dtype(dtype: torch.dtype) -> str:
    """`float64` for `torch.float64`."""
    return str(dtype).removeprefix("torch.")


def _describe_tensor(x: Tensor) -> str:
    return f"{name_dtype(x.dtype)} {tuple(x.shape)}"
