"""Our model's weights under the names, and in the layouts, of transformers' models.

Every map is differentiable: a transposed, split or reordered matrix still is ours.
"""

from collections.abc import Callable, Iterator, Mapping

from torch import Tensor

Weights = dict[str, Tensor]
Names = Mapping[str, str]  # theirs to ours

LLAMA = {"input_layernorm": "attention.input", "post_attention_layernorm": "feedforward.input"}
QWEN3 = {
    **LLAMA,
    "self_attn.q_norm": "attention.sublayer.q_norm",
    "self_attn.k_norm": "attention.sublayer.k_norm",
}
OLMO2 = {
    "post_attention_layernorm": "attention.output",
    "post_feedforward_layernorm": "feedforward.output",
    "self_attn.q_norm": "attention.sublayer.q_norm",
    "self_attn.k_norm": "attention.sublayer.k_norm",
}
GEMMA2 = {
    "input_layernorm": "attention.input",
    "post_attention_layernorm": "attention.output",
    "pre_feedforward_layernorm": "feedforward.input",
    "post_feedforward_layernorm": "feedforward.output",
}
BITNET = {
    **LLAMA,
    "self_attn.attn_sub_norm": "attention.sublayer.inner_norm",
    "mlp.ffn_sub_norm": "feedforward.sublayer.inner_norm",
}


def renamed(
    p: Weights, names: Names, layout: Callable[[Tensor], Tensor] = lambda tensor: tensor
) -> Weights:
    """The modules of `names` as theirs; a gain or an offset is what they call weight."""
    theirs = {}
    for their, our in names.items():
        for leaf in ("weight", "gain", "offset", "bias"):
            if (tensor := p.get(f"{our}.{leaf}")) is not None:
                theirs[f"{their}.{'bias' if leaf == 'bias' else 'weight'}"] = layout(tensor)
    return theirs


def blocks(p: Weights) -> Iterator[Weights]:
    """The weights of each block by their names inside it."""
    for l in range(len({name.split(".")[1] for name in p if name.startswith("blocks.")})):
        at = f"blocks.{l}."
        yield {name.removeprefix(at): value for name, value in p.items() if name.startswith(at)}


def inside(at: str, names: Names) -> Names:
    return {f"{at}.{their}": our for their, our in names.items()}


def gpt(p: Weights, ends: Names, norms: Names) -> Weights:
    """GPT and GPT-2: queries, keys and values in one matrix; all matrices are (in, out)."""
    projections = {
        "attn.c_attn": "attention.sublayer.qkv",
        "attn.c_proj": "attention.sublayer.out",
        "mlp.c_fc": "feedforward.sublayer.up",
        "mlp.c_proj": "feedforward.sublayer.down",
    }
    theirs = renamed(p, inside("transformer", ends))
    for l, block in enumerate(blocks(p)):
        at = f"transformer.h.{l}"
        theirs |= renamed(block, inside(at, norms))
        theirs |= renamed(block, inside(at, projections), lambda w: w.t())
    return theirs


def gpt1(p: Weights) -> Weights:
    ends = {"tokens_embed": "embedding", "positions_embed": "positions"}
    return gpt(p, ends, {"ln_1": "attention.stream", "ln_2": "feedforward.stream"})


def gpt2(p: Weights) -> Weights:
    ends = {"wte": "embedding", "wpe": "positions", "ln_f": "final_norm"}
    return gpt(p, ends, {"ln_1": "attention.input", "ln_2": "feedforward.input"})


def neox(p: Weights, heads: int) -> Weights:
    """GPT-NeoX: the rows of queries, keys and values lie together for each head."""
    names = {
        "input_layernorm": "attention.input",
        "post_attention_layernorm": "feedforward.input",
        "attention.dense": "attention.sublayer.out",
        "mlp.dense_h_to_4h": "feedforward.sublayer.up",
        "mlp.dense_4h_to_h": "feedforward.sublayer.down",
    }
    qkv = {"attention.query_key_value": "attention.sublayer.qkv"}

    def by_head(rows: Tensor) -> Tensor:
        return rows.unflatten(0, (3, heads, -1)).transpose(0, 1).flatten(0, 2)

    ends = {"embed_in": "embedding", "final_layer_norm": "final_norm"}
    theirs = renamed(p, {**inside("gpt_neox", ends), "lm_head": "head"})
    for l, block in enumerate(blocks(p)):
        at = f"gpt_neox.layers.{l}"
        theirs |= renamed(block, inside(at, names)) | renamed(block, inside(at, qkv), by_head)
    return theirs


def llama(p: Weights, norms: Names = LLAMA) -> Weights:
    """Llama and its kin, which differ in `norms`: a matrix each for q, k, v, gate and up."""
    projections = {
        "self_attn.o_proj": "attention.sublayer.out",
        "mlp.down_proj": "feedforward.sublayer.down",
    }
    ends = {"model.embed_tokens": "embedding", "model.norm": "final_norm", "lm_head": "head"}
    theirs = renamed(p, ends)
    for l, block in enumerate(blocks(p)):
        at = f"model.layers.{l}"
        theirs |= renamed(block, inside(at, {**norms, **projections}))
        qkv = block["attention.sublayer.qkv.weight"]
        gate, up = block["feedforward.sublayer.up.weight"].chunk(2)
        width = qkv.shape[1]
        q, k, v = qkv.split([width, (len(qkv) - width) // 2, (len(qkv) - width) // 2])
        for name, matrix in (("q", q), ("k", k), ("v", v)):
            theirs[f"{at}.self_attn.{name}_proj.weight"] = matrix
        theirs |= {f"{at}.mlp.gate_proj.weight": gate, f"{at}.mlp.up_proj.weight": up}
    return theirs


def gemma2(p: Weights) -> Weights:
    """Gemma 2, which multiplies the embedding by √width before the first block."""
    theirs = llama(p, GEMMA2)
    embedding = theirs["model.embed_tokens.weight"]
    return theirs | {"model.embed_tokens.weight": embedding / embedding.shape[1] ** 0.5}
