"""What every model promises: a token's logits depend on it and on the earlier ones alone.

Tried on a few tokens before anything is trained. Attention and the norms are known to keep the
promise; a placement's own class may not, and its losses would be wrong without looking so.
"""

import math

import torch
from torch import Tensor

from normlab.errors import ConfigError, NormlabError, describe_error
from normlab.model.gpt import GPT

VOCABULARY, CONTEXT = 16, 32  # of the models to try; what needs more tokens to leak is not seen
_SEQUENCES = 3
# What tokens are changed to; its vector is long, as a maximum would see it.
_CHANGED_TOKEN = VOCABULARY - 1
# Matrices whose rows are the same give the same row, so the difference is 0; a class may order its
# sums over time in another way, as a Fourier transform does, and be off by a few roundings. So many
# are allowed: of a type that the model computes in itself, and under autocast.
_ROUNDINGS, _AUTOCAST_ROUNDINGS = 64, 4


def check_causal(model: GPT, name: str) -> None:
    """Refuse a model, of VOCABULARY and CONTEXT, whose logits depend on more than the past.

    It is tried as it starts and evaluates, and as it trains with other weights: at the start, what
    a gain of 0 stands before cannot be seen. The weights stay changed.

    Raises:
        ConfigError: naming the placement `name`, what it did, and what is allowed.
    """
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(_CHANGED_TOKEN, (_SEQUENCES, CONTEXT), generator=generator)
    _check_on_tokens(model.eval(), tokens, name)
    _perturb_parameters(model, generator)
    _check_on_tokens(model.train(), tokens, name)


def check_trained_causal(model: GPT, tokens: Tensor, autocast: torch.dtype | None) -> None:
    """Refuse the result of a model that has come to depend on later tokens while it trained.

    What `check_causal` cannot see: a class that changes with its calls, needs the whole context, or
    behaves in another way in half precision or with gradients.

    Args:
        model: as it is after its last step, on its device.
        tokens: (batch, time) on that device; two sequences of the whole context are enough.
        autocast: the type that it computed in as it trained, if not that of its weights.

    Raises:
        NormlabError: its logits of earlier tokens, or of another sequence, move.
    """
    length = tokens.shape[1]
    # Several, for a class may mix tokens in one part of the context alone.
    cuts = sorted({1, length // 3, length // 2, length - 1} & set(range(1, length)))
    was_training = model.training
    for training, dtype in ((False, None), (True, autocast)):
        model.train(training)
        with (
            torch.set_grad_enabled(training),
            torch.random.fork_rng([tokens.device] if tokens.is_cuda else []),
            torch.autocast(tokens.device.type, dtype or torch.bfloat16, enabled=dtype is not None),
        ):
            before = _evaluate(model, tokens)
            moved = torch.zeros_like(before)
            for cut in cuts:
                # Another token at every place of the first sequence from the cut on.
                changed = tokens.clone()
                changed[0, cut:] = (changed[0, cut:] + 1) % len(model.embedding.weight)
                change = _logit_changes(before, _evaluate(model, changed))
                change[0, cut:] = 0
                moved = moved.maximum(change)
        roundings = _ROUNDINGS if dtype is None else _AUTOCAST_ROUNDINGS
        tolerance = _compute_tolerance(before, dtype or torch.float32, roundings)
        if (most := moved.max().item()) > tolerance:
            raise NormlabError(
                f"the trained model moves the logits of earlier tokens or of other sequences by up "
                f"to {most:.2g} when later tokens change: it sees what it has to predict, so its "
                f"losses mean nothing; let the classes of its norm and placement mix no tokens"
            )
    model.train(was_training)


def _evaluate(model: GPT, tokens: Tensor) -> Tensor:
    torch.manual_seed(0)  # of dropout
    # Not through `model(…)`: a compiled model would be compiled anew for this shape.
    return model.forward(tokens).detach().float()


def _check_on_tokens(model: GPT, tokens: Tensor, name: str) -> None:
    logits = _compute_logits(model, tokens, name)
    tolerance = _compute_tolerance(logits, logits.dtype, _ROUNDINGS)
    if _logit_changes(logits, _compute_logits(model, tokens, name)).max() > tolerance:
        raise ConfigError(
            f"{name} gives different logits for the same tokens, so a run could not be repeated or "
            f"continued; its class must keep no state between calls and take random numbers from "
            f"torch alone."
        )
    for sequence, token in ((0, CONTEXT - 1), (0, 1), (1, CONTEXT // 3), (1, CONTEXT // 2)):
        changed = tokens.clone()
        changed[sequence, token:] = _CHANGED_TOKEN
        difference = _logit_changes(logits, _compute_logits(model, changed, name))
        earlier = difference[sequence, :token].max().item()
        difference[sequence] = 0
        if max(earlier, elsewhere := difference.max().item()) > tolerance:
            moved = "earlier tokens" if earlier > tolerance else "other sequences"
            raise ConfigError(
                f"{name} moves the logits of {moved} by up to {max(earlier, elsewhere):.2g} when a "
                f"token changes, so the model would see what it has to predict and every loss "
                f"would be wrong; let its class mix no tokens: each is a function of the stream at "
                f"the same token, and the sublayer alone reads the ones before it."
            )


@torch.no_grad()
def _compute_logits(model: GPT, tokens: Tensor, name: str) -> Tensor:
    """(batch, time, vocabulary), with the same random numbers each time."""
    expected = (*tokens.shape, VOCABULARY)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            logits: Tensor = model(tokens)
    except Exception as error:
        raise ConfigError(
            f"{name} cannot be run ({describe_error(error, 200)}); its class takes the stream "
            f"through a sublayer and gives the stream again, each token (batch, time, width)."
        ) from error
    if logits.shape != expected or not logits.is_floating_point():
        raise ConfigError(
            f"{name} gives logits of {tuple(logits.shape)} for tokens of {tuple(tokens.shape)}; "
            f"its class has to leave the shape of the stream as it is."
        )
    return logits


@torch.no_grad()
def _perturb_parameters(model: GPT, generator: torch.Generator) -> None:
    """Move every parameter, so that no gain of 0 hides what stands behind it."""
    for parameter in model.parameters():
        fan_in = parameter.shape[-1] if parameter.dim() > 1 else 16
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.add_(noise, alpha=1 / math.sqrt(fan_in))
    model.embedding.weight[_CHANGED_TOKEN] *= 30


def _compute_tolerance(logits: Tensor, dtype: torch.dtype, roundings: int) -> float:
    """So many roundings, in this type, of the largest finite logit."""
    finite = logits[logits.isfinite()].abs()
    largest = finite.max().item() if len(finite) else 0.0
    return roundings * torch.finfo(dtype).eps * largest


def _logit_changes(before: Tensor, after: Tensor) -> Tensor:
    """By how much each number has changed; 0 for what stays infinite or no number."""
    same = (before == after) | (before.isnan() & after.isnan())
    return (after - before).abs().masked_fill(same, 0.0).nan_to_num(nan=torch.inf)
