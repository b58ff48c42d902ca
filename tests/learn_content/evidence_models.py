"""Evidence for the questions of lesson 4: norms in a built model, and its gradients by depth."""

import functools
import math
import re

import torch
from torch import nn

from learn_content.evidence import Evidence, evidence
from learn_content.evidence_studies import DOCS, assert_recorded, stated_difference
from learn_content.learn_pages import LEARN, compose_overrides
from normlab.apps.probe.main import probe_models
from normlab.archive import tags
from normlab.model.gpt import GPT, count_parameters
from normlab.norms import RMSNorm
from normlab.training.build import build_model
from normlab.training.probes import named_norms

SMALL = ["model.width=16", "model.heads=2", "model.context=8"]


def small_model(*overrides: str) -> GPT:
    (spec,) = compose_overrides([*SMALL, *overrides])
    return build_model(spec.config, 8)


def count_norms(*overrides: str) -> int:
    return len(list(named_norms(small_model(*overrides))))


@evidence("norms-in-eight-blocks")
def norms_in_eight_blocks() -> Evidence:
    count = count_norms("placement=pre", "model.depth=8")
    return Evidence(answer=count, numbers={"16": count - 1, "17": count})


@evidence("norms-in-a-sandwich")
def norms_in_a_sandwich() -> Evidence:
    count = count_norms("placement=sandwich", "model.depth=8")
    return Evidence(answer=count, numbers={"32": count - 1, "33": count})


def block_without_branches(placement: str) -> tuple[torch.Tensor, torch.Tensor]:
    """A stream (1, 8, 16), and what a block makes of it whose sublayers give zeros."""
    model = small_model(f"placement={placement}", "model.depth=1")
    block = model.blocks[0]
    for name, parameter in block.named_parameters():
        if name.endswith(("out.weight", "down.weight")):
            parameter.data.zero_()
    x = 3 * torch.randn(1, 8, 16)
    return x, block(x).detach()


@evidence("where-on-the-skip-path")
def where_on_the_skip_path() -> Evidence:
    x, pre = block_without_branches("pre")
    _, post = block_without_branches("post")
    clear = torch.equal(pre, x)
    normed = torch.allclose(post.square().mean(-1), torch.ones(1, 8), atol=1e-3)
    counts = {name: count_norms(f"placement={name}", "model.depth=8") for name in ("pre", "post")}
    return Evidence(
        [clear and normed, counts["pre"] < counts["post"], False],
        numbers={"17": counts["pre"], "16": counts["post"]},
    )


@evidence("what-pre-ln-gains")
def what_pre_ln_gains() -> Evidence:
    x, out = block_without_branches("pre")
    parameters = [
        count_parameters(small_model(f"placement={name}", "model.depth=8"))
        for name in ("pre", "post")
    ]
    final_norm = 16
    assert parameters[0] == parameters[1] + final_norm
    return Evidence([False, parameters[0] < parameters[1], torch.equal(out, x)])


@functools.cache
def last_gradients() -> dict[tuple[str, int], float]:
    """The last feed-forward's gradient by placement and depth, at the theory's initialization."""
    result = probe_models(
        [
            *("experiment=theory_init", "placement=pre,post", "model.width=32"),
            *("model.depth=2,8", "data.batch_size=16"),
        ]
    )
    return {(model.placement, model.depth): model.last_gradient for model in result.measurements}


@evidence("last-gradient-by-depth")
def last_gradient_by_depth() -> Evidence:
    gradients = last_gradients()
    ratios = {name: gradients[name, 8] / gradients[name, 2] for name in ("pre", "post")}
    halved = {name: 0.4 < ratio < 0.65 for name, ratio in ratios.items()}
    stays = {name: 0.8 < ratio < 1.25 for name, ratio in ratios.items()}
    return Evidence(
        [
            halved["pre"] and stays["post"],
            halved["post"] and stays["pre"],
            halved["pre"] and halved["post"],
        ],
        numbers={"4": 8 / 2},
    )


@evidence("why-a-smaller-rate")
def why_a_smaller_rate() -> Evidence:
    gradients = last_gradients()
    larger = gradients["post", 8] / gradients["pre", 8]
    stays = gradients["post", 8] / gradients["post", 2] > 0.8
    return Evidence([False, larger < 0.5, larger > 2 and stays], numbers={"8": 8})


@evidence("two-blocks-or-eight")
def two_blocks_or_eight() -> Evidence:
    gradients = last_gradients()
    two, eight = (gradients["post", depth] / gradients["pre", depth] for depth in (2, 8))
    return Evidence([eight < 1.5, two < 1.5 and eight > 2, False], numbers={"1.5": 1.5, "8": 8})


@evidence("sixteen-and-thirty-two-blocks")
def sixteen_and_thirty_two_blocks() -> Evidence:
    recorded = {4: (0.1806, 0.0259), 8: (0.1717, 0.0273), 16: (0.4246, 0.5593)}
    assert_recorded("experiments.md", *(f"{mean} ± {half}" for mean, half in recorded.values()))
    differences = [stated_difference(mean, half) for mean, half in recorded.values()]
    low = max(difference.mean - difference.half for difference in differences)
    high = min(difference.mean + difference.half for difference in differences)
    grows = low > high
    same = differences[-1].outcome_within(0.01) == "the same"
    assert_recorded("../conf/experiment/prenorm_vs_postnorm.yaml", "max_steps: 300")
    return Evidence(
        [grows, same, not grows and not same], numbers={"4": 4, "8": 8, "16": 16, "300": 300}
    )


@evidence("drawback-of-pre-ln")
def drawback_of_pre_ln() -> Evidence:
    model = small_model("placement=pre", "model.depth=4")
    out: list[torch.Tensor] = []
    model.final_norm.register_forward_hook(lambda _, inputs, output: out.append(output))
    model(torch.zeros(1, 8, dtype=torch.int64))
    normalized = isinstance(model.final_norm, RMSNorm) and math.isclose(
        out[0].square().mean().item(), 1, abs_tol=0.1
    )
    result = probe_models(
        ["experiment=theory_init", "placement=pre", "model.width=32", "model.depth=8"]
    )
    squares = [rms**2 for rms in result.measurements[0].by_block(tags.STREAM_RMS)]
    per_block = (squares[-1] - squares[0]) / 7
    gradients = last_gradients()
    needs_warm_up = gradients["pre", 8] > gradients["pre", 2]
    return Evidence([0.4 < per_block < 1.6, not normalized, needs_warm_up])


@evidence("why-modern-models")
def why_modern_models() -> Evidence:
    rows = re.findall(
        r"^\| ([^|]+)\| ([^|]+)\| ([^|]+)\|",
        (LEARN / "models_of_today.md").read_text(encoding="utf-8"),
        re.MULTILINE,
    )[2:]
    norms, placements = [row[1] for row in rows], [row[2] for row in rows]
    root, layer = (sum(name in norm for norm in norms) for name in ("RMSNorm", "LayerNorm"))
    pre, post = (
        sum(placement.strip().startswith(name) for placement in placements)
        for name in ("pre", "post")
    )
    others = len(rows) - pre
    counts = {
        name: sum(placement.strip().startswith(name) for placement in placements)
        for name in {placement.strip().split(",")[0] for placement in placements}
    }
    assert len(rows) >= 20
    return Evidence(
        [others == 0 and layer == 0, root > layer and pre == max(counts.values()), post > pre]
    )


@evidence("no-norm-and-a-small-rate")
def no_norm_and_a_small_rate() -> Evidence:
    model = small_model("norm=none", "model.depth=4")
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    losses = []
    for seed in range(40):
        tokens = torch.randint(0, 8, (4, 9), generator=torch.Generator().manual_seed(seed))
        logits = model(tokens[:, :-1])
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    finite = all(math.isfinite(loss) for loss in losses)
    assert_recorded("claims.md", "its own script run unchanged ends at 6.946")
    return Evidence([not finite, finite, False], numbers={"6.946": 6.946, "40": len(losses)})


@evidence("doubled-embedding")
def doubled_embedding() -> Evidence:
    model = small_model("model.depth=1", "model.tie=false", "norm.eps=0", "model.init.std=0.5")
    tokens = torch.arange(8)[None]
    outputs: list[torch.Tensor] = []
    block = model.blocks[0]
    for module in (block.attention.input, block, model):
        module.register_forward_hook(lambda _, inputs, output: outputs.append(output.detach()))
    model(tokens)
    for embedding in (model.embedding, model.positions):
        embedding.weight.data *= 2
    model(tokens)
    (norm, stream, logits), (new_norm, new_stream, new_logits) = outputs[:3], outputs[3:]
    norm_stays = torch.allclose(norm, new_norm, atol=1e-5)
    stream_doubles = torch.allclose(2 * stream, new_stream, rtol=1e-3)
    logits_stay = torch.allclose(logits, new_logits, atol=1e-3)
    logits_double = torch.allclose(2 * logits, new_logits, atol=1e-3)
    return Evidence(
        [
            norm_stays and logits_stay,
            norm_stays and not stream_doubles and not logits_stay,
            stream_doubles and logits_double,
        ]
    )


@evidence("deepnorm-alpha")
def deepnorm_alpha() -> Evidence:
    model = small_model("placement=deepnorm", "model.depth=8")
    skip = model.blocks[0].attention.skip.value
    return Evidence(answer=skip, numbers={"2": skip, "8": 8, "16": 16})


@evidence("figure-with-three-rows")
def figure_with_three_rows() -> Evidence:
    text = (DOCS / "experiments.md").read_text(encoding="utf-8")
    table = text.split("the stream from block 1 to 16")[1]
    arms = ("layernorm · pre", "layernorm · post", "dyt · pre", "dyt · post")
    streams = {
        arm: float(re.findall(rf"^\| {arm} \| (\S+) \|", table, re.MULTILINE)[0]) for arm in arms
    }
    return Evidence(
        [factor == max(streams.values()) for factor in streams.values()],
        numbers={
            "4.52": streams["layernorm · pre"],
            "46": streams["dyt · pre"],
            "6.69": streams["dyt · post"],
        },
    )
