"""What flows through the model, measured in one pass of its own.

Shapes: B batch, T time, d width. Every reading is a scalar tensor on the model's device, so that
nothing waits for it before all is measured.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from normlab.archive import tags
from normlab.model.gpt import GPT, Attention
from normlab.training.probes import sites

Key = tuple[str, str]  # quantity, site
Readings = dict[Key, Tensor]

# |alpha x + shift| beyond it counts as saturated: tanh has 96 % of its range there, and 7 % of
# its steepest slope.
SATURATED = 2.0

# Attention is measured on as many sequences as have so many logits: all of a small model's.
_MOST_LOGITS = 2**24


@torch.no_grad()
def activations(model: GPT, tokens: Tensor) -> Readings:
    """Measure the pass of `tokens` (B, T), without dropout; the model is left as it was."""
    readings: Readings = {}
    with undisturbed(model), listening(model, readings):
        model.forward(tokens)  # not its __call__, which may be compiled
    return readings


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Have the model in evaluation, and what draws random numbers draw none of the run's."""
    modes = {module: module.training for module in model.modules()}
    device = next(model.parameters()).device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        model.eval()
        try:
            yield
        finally:
            for module, mode in modes.items():
                module.training = mode


@contextmanager
def listening(
    model: GPT,
    readings: Readings,
    on_stream: Callable[[str, str, Tensor], None] = lambda prefix, site, x: None,
) -> Iterator[None]:
    """Fill `readings` from the model's next pass, and from attention's weights after it.

    `on_stream` is called with each stream: its prefix (`stream`, `stream_2`), site and tensor.
    """
    heard = _Heard(readings, on_stream)
    with ExitStack() as hooks:
        for hook in _hooks(model, heard):
            hooks.callback(hook.remove)
        yield
    with torch.no_grad():
        for site, attention, x in heard.attentions:
            _measure_attention(readings, site, attention, x)


class _Heard:
    """Takes readings from what the hooks are given."""

    def __init__(self, readings: Readings, on_stream: Callable[[str, str, Tensor], None]) -> None:
        self.readings = readings
        self.on_stream = on_stream
        self.attentions: list[tuple[str, Attention, Tensor]] = []

    @torch.no_grad()
    def stream(self, site: str, value: Any) -> None:
        for prefix, x in streams(value):
            variance = x.float().var(-1, correction=0).mean()
            for kind, reading in (("rms", rms(x)), ("max", largest(x)), ("variance", variance)):
                self.readings[f"{prefix}_{kind}", site] = reading
            self.on_stream(prefix, site, x)

    @torch.no_grad()
    def block(self, site: str, before: Any, after: Any) -> None:
        for (_, x), (_, y) in list(zip(streams(before), streams(after), strict=True))[:1]:
            # Rounding may leave a cosine just above 1.
            cosine = nn.functional.cosine_similarity(x.float(), y.float(), dim=-1).clamp(-1, 1)
            self.readings[tags.ANGLE, site] = cosine.acos().mean() / torch.pi

    @torch.no_grad()
    def sublayer(self, site: str, module: nn.Module, read: Any, gave: Any) -> None:
        if not (isinstance(read, Tensor) and isinstance(gave, Tensor)):
            return
        self.readings[tags.INPUT_RMS, site] = rms(read)
        self.readings[tags.OUTPUT_RMS, site] = rms(gave)
        self.readings[tags.OUTPUT_MAX, site] = largest(gave)
        if isinstance(module, Attention):
            self.attentions.append((site, module, read.detach()))

    @torch.no_grad()
    def norm(self, site: str, alpha: Tensor, shift: Any, x: Tensor) -> None:
        inner = alpha * x + shift
        self.readings[tags.SATURATION, site] = (inner.abs() > SATURATED).float().mean()


def _hooks(model: GPT, heard: _Heard) -> Iterator[Any]:
    yield model.blocks[0].register_forward_pre_hook(
        lambda module, given: heard.stream("embedding", given[0])
    )
    for site, block in sites.blocks(model):
        yield block.register_forward_hook(
            lambda module, given, out, at=site: heard.block(at, given[0], out)
        )
    for site, residual in sites.residuals(model):
        yield residual.register_forward_hook(
            lambda module, given, out, at=site: heard.stream(at, out)
        )
        yield residual.sublayer.register_forward_hook(
            lambda module, given, out, at=site: heard.sublayer(at, module, given[0], out)
        )
    for site, norm in sites.norms(model):
        alpha = getattr(norm, "alpha", None)
        if isinstance(alpha, nn.Parameter) and alpha.numel() == 1:
            yield norm.register_forward_hook(
                lambda module, given, out, at=site, alpha=alpha: heard.norm(
                    at, alpha, getattr(module, "shift", 0.0), given[0]
                )
            )


def streams(value: Any) -> list[tuple[str, Tensor]]:
    """The residual stream, or each of several, with the prefix of its quantities."""
    several = value if isinstance(value, tuple) else (value,)
    if not all(isinstance(one, Tensor) for one in several):
        return []
    return [("stream" if n == 1 else f"stream_{n}", one) for n, one in enumerate(several, 1)]


def rms(x: Tensor) -> Tensor:
    """Root of the mean square over all of x."""
    root: Tensor = length(x) / x.numel() ** 0.5
    return root


def largest(x: Tensor) -> Tensor:
    """The largest magnitude in x."""
    return length(x, torch.inf)


def length(x: Tensor, order: float = 2.0) -> Tensor:
    """A vector norm over all of x, added up in fp32 at least."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    norm: Tensor = torch.linalg.vector_norm(x, order, dtype=dtype)
    return norm


def _measure_attention(readings: Readings, site: str, attention: Attention, x: Tensor) -> None:
    time = x.shape[1]
    some = x[: max(1, _MOST_LOGITS // (attention.heads * time * time))]
    q, k, _ = attention.project_heads(some)
    if attention.heads != attention.kv_heads:
        k = k.repeat_interleave(attention.heads // attention.kv_heads, dim=0)
    with torch.autocast(x.device.type, enabled=False):
        logits = (q.float() @ k.float().transpose(-2, -1)) / attention.head_width**0.5
    future = torch.ones(time, time, dtype=torch.bool, device=x.device).triu(1)
    logits = logits.masked_fill(future, -torch.inf)
    weights = logits.softmax(-1)
    readings[tags.ATTENTION_ENTROPY, site] = torch.special.entr(weights).sum(-1).mean()
    readings[tags.ATTENTION_LOGIT, site] = logits.max()


def plain(readings: Mapping[Key, Tensor]) -> dict[Key, float]:
    """The readings as numbers: the one wait for the device."""
    if not readings:
        return {}
    values = torch.stack([value.float() for value in readings.values()]).tolist()
    return dict(zip(readings, values, strict=True))
