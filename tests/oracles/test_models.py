"""Our model with the weights of transformers' models is those models: placements, attention, all.

Where transformers works in fp32 whatever it is given (RMSNorm, rotary angles, Gemma's softmax), the
two agree to fp32; the rest is float64. Norms have an eps that is large enough to be seen.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from network_comparison import assert_same_function, call_with_weights, perturb_parameters
from normlab.config.schema import ModelConfig
from normlab.model.gpt import GPT
from normlab.training.build import build_model
from oracles import weights
from tiny_run import TINY

VOCABULARY, TIME, EPS = 11, 13, 0.01
DOUBLE, SINGLE = 1e-12, 1e-5
WIDE = (*TINY, "model.width=32", "model.heads=4", f"norm.eps={EPS}")
GPT2 = ("model=nanogpt", "model.bias=true", *WIDE, "norm=layernorm")
BARE = ("model=nanogpt", *WIDE, "norm=layernorm_nobias")
LLAMA = ("model=minimind", *WIDE, "model.kv_heads=2", "model.rotary_base=100")

Build = Callable[[ModelConfig], nn.Module]


def early(shape: ModelConfig) -> dict[str, Any]:
    """What the configurations of GPT and GPT-2 share."""
    return {
        "vocab_size": VOCABULARY,
        "n_embd": shape.width,
        "n_layer": shape.depth,
        "n_head": shape.heads,
        "n_positions": shape.context,
        "layer_norm_epsilon": EPS,
        "bos_token_id": None,
        "eos_token_id": None,
    }


def gpt1(shape: ModelConfig) -> nn.Module:
    model = transformers.OpenAIGPTLMHeadModel(transformers.OpenAIGPTConfig(**early(shape)))
    for block in model.transformer.h:
        block.mlp.act = nn.GELU()  # its own is the tanh approximation
    return model


def gpt2(shape: ModelConfig) -> nn.Module:
    configuration = transformers.GPT2Config(**early(shape), activation_function="gelu")
    return transformers.GPT2LMHeadModel(configuration)


def later(kind: str, eps: str = "rms_norm_eps", **settings: Any) -> Build:
    """A model of Llama's time, by the name that transformers gives it."""

    def build(shape: ModelConfig) -> nn.Module:
        configuration = getattr(transformers, f"{kind}Config")(
            vocab_size=VOCABULARY,
            hidden_size=shape.width,
            intermediate_size=shape.hidden_width,
            num_hidden_layers=shape.depth,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.kv_heads,
            head_dim=shape.width // shape.heads,
            max_position_embeddings=shape.context,
            rope_parameters={
                "rope_type": "default",
                "rope_theta": shape.rotary_base,
                "partial_rotary_factor": 1.0,
            },
            tie_word_embeddings=shape.tie,
            pad_token_id=None,
            bos_token_id=None,
            eos_token_id=None,
            **{eps: EPS, **settings},
        )
        return getattr(transformers, f"{kind}ForCausalLM")(configuration)

    return build


@dataclass(frozen=True)
class Oracle:
    """A run's overrides, the model that it should be, and that model's weights made of ours."""

    overrides: tuple[str, ...]
    build: Build
    weights: Callable[[dict[str, Tensor]], dict[str, Tensor]]
    tolerance: float


ORACLES = {
    "gpt2": Oracle(GPT2, gpt2, weights.gpt2, DOUBLE),
    "gpt2-without-biases": Oracle(BARE, gpt2, weights.gpt2, DOUBLE),
    "gpt1-post": Oracle((*GPT2, "placement=post"), gpt1, weights.gpt1, DOUBLE),
    "neox-parallel": Oracle(
        (*GPT2, "placement=parallel", "model.positions=rotary", "model.rotary_base=100"),
        later("GPTNeoX", eps="layer_norm_eps"),
        partial(weights.neox, heads=4),
        SINGLE,
    ),
    "llama": Oracle(LLAMA, later("Llama"), weights.llama, SINGLE),
    "qwen3-heads-normed": Oracle(
        (*LLAMA, "placement.qk=true"),
        later("Qwen3"),
        partial(weights.llama, norms=weights.QWEN3),
        SINGLE,
    ),
    "olmo2-output": Oracle(
        (*LLAMA, "placement=output", "placement.qk=true", "placement.head_norm=all"),
        later("Olmo2"),
        partial(weights.llama, norms=weights.OLMO2),
        SINGLE,
    ),
    "gemma2-sandwich": Oracle(
        (*LLAMA, "placement=sandwich", "norm=gemma_rmsnorm", "model.tie=false"),
        later(
            "Gemma2",
            hidden_activation="silu",
            query_pre_attn_scalar=8,
            attn_logit_softcapping=None,
            final_logit_softcapping=None,
        ),
        weights.gemma2,
        SINGLE,
    ),
    "bitnet-subln": Oracle(
        (*LLAMA, "placement=subln"),
        later("BitNet", hidden_act="silu"),
        partial(weights.llama, norms=weights.BITNET),
        SINGLE,
    ),
    "granite-branch": Oracle(
        (*LLAMA, "placement.branch=0.4"),
        later("Granite", residual_multiplier=0.4, attention_multiplier=8**-0.5),
        weights.llama,
        SINGLE,
    ),
}
KERNELS = pytest.mark.parametrize("kernel", ["sdpa", "explicit"])


@pytest.fixture(params=ORACLES)
def oracle(request: pytest.FixtureRequest) -> Oracle:
    return ORACLES[request.param]


@pytest.fixture
def tokens() -> Tensor:
    return torch.randint(VOCABULARY, (2, TIME), generator=torch.Generator().manual_seed(0))


def pair(oracle: Oracle, specified: Callable, kernel: str) -> tuple[GPT, nn.Module]:
    config = specified(*oracle.overrides, f"model.attention={kernel}").config
    ours = perturb_parameters(build_model(config, VOCABULARY)).double().eval()
    return ours, oracle.build(config.model).double().eval()


@KERNELS
def test_logits_and_gradients_of_all_weights_are_another_packages(
    oracle: Oracle, kernel: str, specified: Callable, tokens: Tensor
) -> None:
    ours, theirs = pair(oracle, specified, kernel)
    p = dict(ours.named_parameters())
    other = call_with_weights(theirs, oracle.weights(p), tokens).logits
    assert_same_function(ours(tokens), other, list(p.values()), oracle.tolerance)


@KERNELS
def test_both_see_the_past_alone(
    oracle: Oracle, kernel: str, specified: Callable, tokens: Tensor
) -> None:
    ours, theirs = pair(oracle, specified, kernel)
    p = oracle.weights(dict(ours.named_parameters()))
    changed = tokens.clone()
    changed[:, TIME // 2] = (changed[:, TIME // 2] + 1) % VOCABULARY
    for model in (ours, lambda tokens: call_with_weights(theirs, p, tokens).logits):
        moved = (model(changed) - model(tokens)).abs().amax((0, -1))
        assert (moved[: TIME // 2] == 0).all()
        assert (moved[TIME // 2 :] > 1e-3).all()
