"""Our blocks with the weights of an x-transformers decoder are that decoder.

It has pre, post and sandwich norms; KEEL's two norms, but without KEEL's first block and final
norm; residual scales, fixed (DeepNorm's) and per feature (Admin's); scales of the branch, fixed and
per feature (LayerScale's); norms on q, k and v in each head; NormFormer without the norm after
its attention. It has none of the other placements: output, Sub-LN, Mix-LN, LayerNorm scaling, B2T,
HybridNorm as a whole, parallel, ReZero, GPAS, ResiDual, SiameseNorm.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from x_transformers import Decoder
from x_transformers.attend import Attend

from network_comparison import assert_same_function, call_with_weights, perturb_parameters
from normlab.model.gpt import GPT
from normlab.training.build import build_model
from oracles.weights import Weights, blocks
from tiny_run import TINY

DEPTH, WIDTH, HEADS = 3, 32, 4
SHAPE = (*TINY, f"model.depth={DEPTH}", f"model.width={WIDTH}", f"model.heads={HEADS}")


@dataclass(frozen=True)
class Oracle:
    """The settings of x-transformers that a placement, or what is left of it, should be."""

    placement: str
    settings: dict[str, Any]
    overrides: tuple[str, ...] = ()
    norm: str = "layernorm_nobias"


ORACLES = {
    "pre": Oracle("pre", {}),
    "post": Oracle("post", {"pre_norm": False}),
    "sandwich": Oracle("sandwich", {"sandwich_norm": True}),
    "deepnorm": Oracle(
        "deepnorm", {"pre_norm": False, "scale_residual_constant": (2 * DEPTH) ** 0.25}
    ),
    "admin": Oracle("admin", {"pre_norm": False, "scale_residual": True}),
    "keel": Oracle(
        "keel",
        {"pre_and_post_norm": True, "scale_residual_constant": 2 * DEPTH},
        ("placement.blocks.first.where='l < 1'", "placement.final=false"),
    ),
    "layerscale": Oracle("layerscale", {"use_layerscale": True}),
    "fixed-branch": Oracle("pre", {"depth_scale_residual": 0.3}, ("placement.branch=0.3",)),
    "normformer": Oracle(
        "normformer",
        {"attn_head_scale": True, "ff_post_act_ln": True},
        ("placement.attention.output=false",),
    ),
    # The RMSNorm of x-transformers has no eps, and its gain is per feature of each head.
    "qkv-normed": Oracle(
        "pre",
        {"use_rmsnorm": True, "attn_qk_rmsnorm": True, "attn_value_rmsnorm": True},
        ("placement.qk=true", "placement.attention.v=true", "norm.eps=0"),
        "rmsnorm",
    ),
}


def decoder(settings: dict[str, Any]) -> Decoder:
    ours = {"norm_add_unit_offset": False, "ff_no_bias": True, "attn_dim_head": WIDTH // HEADS}
    built = Decoder(dim=WIDTH, depth=DEPTH, heads=HEADS, **ours, **settings).double()
    for module in built.modules():
        if isinstance(module, Attend):
            module.attn_fn = partial(torch.softmax, dim=-1)  # its own goes through fp32
    return built


def sublayer(block: Weights, kind: str) -> Weights:
    """The gains around a sublayer."""
    gains = {
        "0.0.gamma": "input",
        "0.1.gamma": "output",
        "0.2.gamma": "stream",
        "1.gamma": "branch",
        "2.residual_scale": "skip",
    }
    found = {theirs: block.get(f"{kind}.{ours}.gain") for theirs, ours in gains.items()}
    return {name: gain for name, gain in found.items() if gain is not None}


def attention(block: Weights) -> Weights:
    at = "attention.sublayer."
    q, k, v = block[at + "qkv.weight"].chunk(3)
    theirs = {"to_q.weight": q, "to_k.weight": k, "to_v.weight": v}
    theirs["to_out.weight"] = block[at + "out.weight"]
    if at + "head_scale.gain" in block:
        theirs["head_scale_params"] = block[at + "head_scale.gain"][None, :, None, None]
    for site, name in (("q", "q_rmsnorm"), ("k", "k_rmsnorm"), ("v", "value_rmsnorm")):
        if (gain := block.get(f"{at}{site}_norm.gain")) is not None:
            theirs[f"{name}.gamma"] = (gain - 1).expand(HEADS, 1, -1)
    return theirs


def feedforward(block: Weights) -> Weights:
    at = "feedforward.sublayer."
    up, down = block[at + "up.weight"], block[at + "down.weight"]
    if at + "inner_norm.gain" not in block:
        return {"ff.0.0.weight": up, "ff.2.weight": down}
    inner = block[at + "inner_norm.gain"]
    return {"ff.0.0.weight": up, "ff.1.gamma": inner, "ff.3.weight": down}


def as_decoders(p: Weights, theirs: Decoder) -> Weights:
    """Our weights under their names: every sublayer is a layer of [norms, sublayer, residual]."""
    found = {"final_norm.gamma": p["final_norm.gain"]} if "final_norm.gain" in p else {}
    for l, block in enumerate(blocks(p)):
        layers = (("attention", attention(block)), ("feedforward", feedforward(block)))
        for i, (kind, inside) in enumerate(layers, 2 * l):
            found |= {f"layers.{i}.{name}": gain for name, gain in sublayer(block, kind).items()}
            found |= {f"layers.{i}.1.{name}": weight for name, weight in inside.items()}
    return {name: found.pop(plain(name)) for name, _ in theirs.named_parameters()} | found


def plain(name: str) -> str:
    """Their name without the wrapper of a scaled sublayer, and with one word for gains."""
    name = name.replace(".fn.", ".")
    return f"{name}amma" if name.endswith(".g") else name


def through(model: GPT, x: Tensor) -> Tensor:
    stream = model.residual.enter(x)
    for block in model.blocks:
        stream = block(stream)
    return model.residual.leave(stream, model.final_norm)


@pytest.mark.parametrize("name", ORACLES)
def test_a_stack_and_all_its_gradients_are_x_transformers(name: str, specified: Callable) -> None:
    oracle = ORACLES[name]
    run = (f"norm={oracle.norm}", f"placement={oracle.placement}", *oracle.overrides)
    ours = perturb_parameters(build_model(specified(*SHAPE, *run).config, 8)).double().eval()
    theirs = decoder(oracle.settings)
    x = torch.randn(2, 13, WIDTH, generator=torch.Generator().manual_seed(0)).double()
    x.requires_grad_()
    p = {
        name: parameter
        for name, parameter in ours.named_parameters()
        if name.startswith(("blocks", "final_norm"))
    }
    other = call_with_weights(theirs, as_decoders(p, theirs), x)
    assert_same_function(through(ours, x), other, [x, *p.values()], 1e-12)
