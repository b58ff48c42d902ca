"""Measurements inside the model, in training and at initialization; they change nothing.

    readings = probe_initialization(model, (tokens, targets))
    readings["stream_rms", "block_03/attention"]

gives every quantity of `normlab.archive.tags.QUANTITIES` that needs no update, by (quantity,
site). Tokens and targets are (B, T) int64 tensors, the model a `normlab.model.gpt.GPT`. In
training, `Probes` measures before the update of every so many steps, and writes the same under
`probe/<quantity>/<site>`. Blocks are counted from 1. Shapes: B batch, T time, d width.

Activations are measured in a forward pass of their own, without dropout, whatever compiles or
checkpoints the training: that it draws no random numbers and leaves no trace is tested, to the bit.
Where the residual is two streams (ResiDual, SiameseNorm), `stream_…` is the one that is normalized
as it goes, and `stream_2_…` the one that is not; a stream that is no tensor and no tuple of them
is passed over.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from normlab.archive import tags
from normlab.data import IGNORED
from normlab.model.gpt import GPT, Attention, Block
from normlab.model.placement import Residual
from normlab.training.lightning import pl
from normlab.training.recorder import Recorder

Key = tuple[str, str]  # quantity, site
Readings = dict[Key, Tensor]  # scalars on the model's device: nothing waits until all is measured
Weights = dict[str, list[Tensor]]  # by site
StreamHook = Callable[[str, str, Tensor], None]  # prefix of the quantity, site, stream

# |alpha x + shift| beyond it counts as saturated: tanh has 96 % of its range there, and 7 % of
# its steepest slope.
SATURATION_THRESHOLD = 2.0
# Attention is measured on as many sequences as have so many logits: all of a small model's.
MAXIMAL_LOGITS = 2**24

# Where norms are: attributes of the model, of a residual sublayer, and of what it wraps.
_END_NORMS = {"embedding_norm": "embedding", "final_norm": "final"}
_RESIDUAL_NORMS = ("input", "output", "stream")
_INNER_NORMS = {"q_norm": "q", "k_norm": "k", "v_norm": "v", "inner_norm": "inner"}
# The usual names of a norm's gain.
_GAIN_NAMES = {"weight": "gain", "gamma": "gain", "g": "gain"}


def named_blocks(model: GPT) -> Iterator[tuple[str, nn.Module]]:
    """Every block with its site; the first is `block_01`."""
    for number, block in enumerate(model.blocks, 1):
        yield f"block_{number:02d}", block


def named_residuals(model: GPT) -> Iterator[tuple[str, Residual]]:
    """Every residual sublayer in the order of depth, with its site, as `block_01/attention`."""
    for site, block in named_blocks(model):
        for sublayer in cast(Block, block).order:
            yield f"{site}/{sublayer}", getattr(block, sublayer)


def named_norms(model: GPT) -> Iterator[tuple[str, nn.Module]]:
    """Every norm in the order of depth: `embedding`, `block_01/attention/input`, …, `final`."""
    candidates: list[tuple[str, Any]] = []
    for site, residual in named_residuals(model):
        owners: list[tuple[str, Any]] = [(attribute, residual) for attribute in _RESIDUAL_NORMS]
        owners[1:1] = [(attribute, residual.sublayer) for attribute in _INNER_NORMS]
        for attribute, module in owners:
            name = _INNER_NORMS.get(attribute, attribute)
            candidates.append((f"{site}/{name}", getattr(module, attribute, None)))
    ends = [(site, getattr(model, attribute)) for attribute, site in _END_NORMS.items()]
    for site, norm in [ends[0], *candidates, ends[1]]:
        if isinstance(norm, nn.Module) and not isinstance(norm, nn.Identity):
            yield site, norm


def group_weights(model: GPT) -> dict[str, list[nn.Parameter]]:
    """The trained weights of each sublayer, of the embeddings, and of an untied head, by site."""
    modules: dict[str, list[nn.Module]] = {"embedding": [model.embedding]}
    if model.positions is not None:
        modules["embedding"].append(model.positions)
    modules |= {site: [residual.sublayer] for site, residual in named_residuals(model)}
    if model.head is not None:
        modules["head"] = [model.head]
    weights = {
        site: [p for module in parts for p in module.parameters() if p.requires_grad]
        for site, parts in modules.items()
    }
    return {site: parameters for site, parameters in weights.items() if parameters}


@torch.no_grad()
def probe_activations(model: GPT, tokens: Tensor) -> Readings:
    """Measure a forward pass of `tokens` (B, T), without dropout; the model is left as it was."""
    readings: Readings = {}
    with evaluation_mode(model), collect_readings(model, readings):
        model.forward(tokens)  # not its __call__, which may be compiled
    return readings


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Put the model in evaluation mode, and give back modes and the state of random numbers."""
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
def collect_readings(
    model: GPT, readings: Readings, on_stream: StreamHook = lambda prefix, site, x: None
) -> Iterator[None]:
    """Fill `readings` from the model's next forward pass, and from attention's weights after it.

    `on_stream` is called with each stream: its prefix (`stream`, `stream_2`), site and tensor.
    """
    reader = _ActivationReader(readings, on_stream)
    with ExitStack() as hooks:
        for hook in reader.register_hooks(model):
            hooks.callback(hook.remove)
        yield
    with torch.no_grad():
        for site, attention, x in reader.attention_inputs:
            _read_attention(readings, site, attention, x)


class _ActivationReader:
    """Takes readings from what the forward hooks of a model are called with."""

    def __init__(self, readings: Readings, on_stream: StreamHook) -> None:
        self.readings = readings
        self.on_stream = on_stream
        self.attention_inputs: list[tuple[str, Attention, Tensor]] = []

    def register_hooks(self, model: GPT) -> Iterator[Any]:
        yield model.blocks[0].register_forward_pre_hook(
            lambda module, inputs: self.read_stream("embedding", inputs[0])
        )
        for site, block in named_blocks(model):
            yield block.register_forward_hook(
                lambda module, inputs, out, site=site: self.read_angle(site, inputs[0], out)
            )
        for site, residual in named_residuals(model):
            yield residual.register_forward_hook(
                lambda module, inputs, out, site=site: self.read_stream(site, out)
            )
            yield residual.sublayer.register_forward_hook(
                lambda module, inputs, out, site=site: self.read_sublayer(
                    site, module, inputs[0], out
                )
            )
        for site, norm in named_norms(model):
            alpha = getattr(norm, "alpha", None)
            if isinstance(alpha, nn.Parameter) and alpha.numel() == 1:
                yield norm.register_forward_hook(
                    lambda module, inputs, out, site=site, alpha=alpha: self.read_saturation(
                        site, alpha, getattr(module, "shift", 0.0), inputs[0]
                    )
                )

    @torch.no_grad()
    def read_stream(self, site: str, value: Any) -> None:
        for prefix, x in split_streams(value):
            self.readings[f"{prefix}_rms", site] = root_mean_square(x)
            self.readings[f"{prefix}_max", site] = vector_length(x, torch.inf)
            self.readings[f"{prefix}_variance", site] = x.float().var(-1, correction=0).mean()
            self.on_stream(prefix, site, x)

    @torch.no_grad()
    def read_angle(self, site: str, before: Any, after: Any) -> None:
        pairs = list(zip(split_streams(before), split_streams(after), strict=True))
        if not pairs:
            return
        (_, x), (_, y) = pairs[0]
        # Rounding may leave a cosine just above 1.
        cosine = F.cosine_similarity(x.float(), y.float(), dim=-1).clamp(-1, 1)
        self.readings[tags.ANGLE, site] = cosine.acos().mean() / torch.pi

    @torch.no_grad()
    def read_sublayer(self, site: str, module: nn.Module, x: Any, out: Any) -> None:
        if not (isinstance(x, Tensor) and isinstance(out, Tensor)):
            return
        self.readings[tags.INPUT_RMS, site] = root_mean_square(x)
        self.readings[tags.OUTPUT_RMS, site] = root_mean_square(out)
        self.readings[tags.OUTPUT_MAX, site] = vector_length(out, torch.inf)
        if isinstance(module, Attention):
            self.attention_inputs.append((site, module, x.detach()))

    @torch.no_grad()
    def read_saturation(self, site: str, alpha: Tensor, shift: Any, x: Tensor) -> None:
        saturated = (alpha * x + shift).abs() > SATURATION_THRESHOLD
        self.readings[tags.SATURATION, site] = saturated.float().mean()


def split_streams(value: Any) -> list[tuple[str, Tensor]]:
    """The residual stream, or each of several, with the prefix of its quantities."""
    streams = value if isinstance(value, tuple) else (value,)
    if not all(isinstance(x, Tensor) for x in streams):
        return []
    return [("stream" if n == 1 else f"stream_{n}", x) for n, x in enumerate(streams, 1)]


def root_mean_square(x: Tensor) -> Tensor:
    """Root of the mean square over all of x."""
    return cast(Tensor, vector_length(x) / x.numel() ** 0.5)


def vector_length(x: Tensor, order: float = 2.0) -> Tensor:
    """A vector norm over all of x, added up in fp32 at least."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    return cast(Tensor, torch.linalg.vector_norm(x, order, dtype=dtype))


def _read_attention(readings: Readings, site: str, attention: Attention, x: Tensor) -> None:
    time = x.shape[1]
    sequences = x[: max(1, MAXIMAL_LOGITS // (attention.heads * time * time))]
    q, k, _ = attention.project_heads(sequences)
    if attention.heads != attention.kv_heads:
        k = k.repeat_interleave(attention.heads // attention.kv_heads, dim=0)
    # (H, B, T, T) in fp32: at the logits of 1e4 that come before divergence (2309.14322) the
    # numbers of bf16 are 64 apart.
    with torch.autocast(x.device.type, enabled=False):
        logits = (q.float() @ k.float().transpose(-2, -1)) / attention.head_width**0.5
    future = torch.ones(time, time, dtype=torch.bool, device=x.device).triu(1)
    logits = logits.masked_fill(future, -torch.inf)
    # entr(0) is 0, where -p log p would be NaN: the future has weight 0.
    entropy = torch.special.entr(logits.softmax(-1)).sum(-1)
    readings[tags.ATTENTION_ENTROPY, site] = entropy.mean()
    readings[tags.ATTENTION_LOGIT, site] = logits.max()


def gradient_norms(model: GPT) -> Readings:
    """The length of the gradient that each site's weights hold now."""
    gradients = {
        site: [p.grad for p in parameters if p.grad is not None]
        for site, parameters in group_weights(model).items()
    }
    lengths = _lengths_by_site(gradients)
    return {(tags.PARAMETER_GRADIENT, site): length for site, length in lengths.items()}


@torch.no_grad()
def update_ratios(model: GPT, before: Weights) -> Readings:
    """The length of what was added to each site's weights since `before`, over their length."""
    updates = {
        site: [p - old for p, old in zip(parameters, before[site], strict=True)]
        for site, parameters in group_weights(model).items()
    }
    lengths, update_lengths = _lengths_by_site(before), _lengths_by_site(updates)
    return {(tags.UPDATE_RATIO, site): update_lengths[site] / lengths[site] for site in lengths}


@torch.no_grad()
def norm_parameters(model: GPT) -> tuple[Readings, dict[Key, Tensor]]:
    """Mean and spread of every norm's parameters, or the value of a scalar one.

    Also the parameters that are vectors themselves, by (`gain_distribution`, site), for histograms.
    """
    readings: Readings = {}
    vectors: dict[Key, Tensor] = {}
    for site, norm in named_norms(model):
        for attribute, parameter in norm.named_parameters():
            name = _GAIN_NAMES.get(attribute, attribute).replace(".", "_")
            values = parameter.detach().float().clone()
            if values.numel() == 1:
                readings[name, site] = values.squeeze()
                continue
            readings[f"{name}_mean", site] = values.mean()
            readings[f"{name}_std", site] = values.std(correction=0)
            vectors[f"{name}_distribution", site] = values
    return readings, vectors


def _lengths_by_site(tensors_by_site: Mapping[str, Sequence[Tensor]]) -> dict[str, Tensor]:
    """√Σx² over the tensors of each site."""
    tensors = [x for site_tensors in tensors_by_site.values() for x in site_tensors]
    if not tensors:
        return {}
    # In one call for all: a launch for each tensor would be slow on a GPU. The public way,
    # `torch.nn.utils.get_total_norm`, rounds in another order.
    squares = torch.stack(torch._foreach_norm(tensors)).float().square()
    parts = torch.split(squares, [len(group) for group in tensors_by_site.values()])
    return {
        site: part.sum().sqrt()
        for site, part in zip(tensors_by_site, parts, strict=True)
        if part.numel()
    }


def read_numbers(readings: Mapping[Key, Tensor]) -> dict[Key, float]:
    """The readings as numbers: the only wait for the device."""
    if not readings:
        return {}
    values = torch.stack([value.float() for value in readings.values()]).tolist()
    return dict(zip(readings, values, strict=True))


def probe_initialization(model: GPT, batch: tuple[Tensor, Tensor]) -> dict[Key, float]:
    """Everything that can be measured without an update, and the loss as (`loss`, `model`).

    The batch is tokens and targets, (B, T) int64. Gradients are those of its mean loss, in nats per
    token. Dropout is off; weights, gradients and random numbers are left as they were.
    """
    tokens, targets = batch
    gradients_before = {name: p.grad for name, p in model.named_parameters()}
    readings: Readings = {}
    streams: list[tuple[Key, Tensor]] = []

    def retain_gradient(prefix: str, site: str, x: Tensor) -> None:
        x.retain_grad()
        streams.append(((f"{prefix}_gradient", site), x))

    model.zero_grad(set_to_none=True)
    try:
        hooks = collect_readings(model, readings, retain_gradient)
        with evaluation_mode(model), torch.enable_grad(), hooks:
            logits = model.forward(tokens).flatten(0, 1).float()
            loss = F.cross_entropy(logits, targets.flatten(), ignore_index=IGNORED)
            torch.autograd.backward(loss)
        for key, x in streams:
            if x.grad is not None:  # of a stream that nothing reads after
                readings[key] = vector_length(x.grad)
        readings |= {**gradient_norms(model), **norm_parameters(model)[0]}
        readings["loss", "model"] = loss.detach()
    finally:
        for name, parameter in model.named_parameters():
            parameter.grad = gradients_before[name]
    return read_numbers(readings)


@torch.no_grad()
def output_change(model: GPT, tokens: Tensor, delta: float, seed: int = 0) -> float:
    """Mean ‖Δlogits‖² of a token when the blocks' matrices move by delta · their RMS · N(0, 1).

    The perturbation of 2004.08249, whose output change grows with depth: O(L) for post,
    O(log L) for pre. Embeddings and head stay: what they would change does not depend on L, and
    hides the law of the blocks. Tokens are (B, T). The model is left as it was.
    """
    generator = torch.Generator().manual_seed(seed)
    matrices = [p for p in model.blocks.parameters() if p.dim() >= 2]
    before = [p.clone() for p in matrices]
    with evaluation_mode(model):
        logits = model.forward(tokens)
        try:
            for p in matrices:
                noise = torch.randn(p.shape, generator=generator).to(p)
                p.add_(delta * p.square().mean().sqrt() * noise)
            perturbed = model.forward(tokens)
        finally:
            for p, old in zip(matrices, before, strict=True):
                p.copy_(old)
    return float((perturbed - logits).square().sum(-1).mean())


class Probes(pl.Callback):
    """Measures at steps 0, `interval`, 2 · `interval`, … and the last, and writes to TensorBoard.

    All of a step's points are written between two optimizer steps, and nothing is carried over, so
    a run that goes on from a saved state writes each of them once. Comes after the recorder, whose
    clock it stops: speed is that of training.
    """

    def __init__(self, interval: int, steps: int, recorder: Recorder) -> None:
        self.interval = interval
        self.last_step = steps - 1
        self.recorder = recorder
        self._step: int | None = None  # the step that is being measured
        self._readings: Readings = {}
        self._vectors: dict[Key, Tensor] = {}
        self._weights: Weights = {}

    def on_train_batch_start(
        self, trainer: pl.Trainer, module: Any, batch: Any, batch_idx: int
    ) -> None:
        """Measure the weights that the step begins with, on its first batch."""
        step = trainer.global_step
        if not self.recorder.between_steps or (step % self.interval and step != self.last_step):
            return
        with self.recorder.clock_stopped():
            with trainer.precision_plugin.forward_context():
                self._readings = probe_activations(module.model, batch[0])
            readings, self._vectors = norm_parameters(module.model)
            self._readings |= readings
            self._weights = {
                site: [p.detach().clone() for p in parameters]
                for site, parameters in group_weights(module.model).items()
            }
        self._step = step

    def on_before_optimizer_step(self, trainer: pl.Trainer, module: Any, optimizer: Any) -> None:
        """Measure the gradients of the full step, before clipping."""
        if self._step is not None:
            with self.recorder.clock_stopped():
                self._readings |= gradient_norms(module.model)

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Measure the update, and write everything."""
        if self._step is None or not self.recorder.between_steps:
            return
        with self.recorder.clock_stopped():
            self._readings |= update_ratios(module.model, self._weights)
            logger = self.recorder.logger
            logger.write_probes(read_numbers(self._readings), self._step)
            for (quantity, site), values in self._vectors.items():
                logger.write_histogram(quantity, site, values, self._step)
        self._step, self._readings, self._vectors, self._weights = None, {}, {}, {}
