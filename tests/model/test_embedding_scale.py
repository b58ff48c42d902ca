"""The learned factor of what enters the first block, as in DyT's and Derf's language models."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from normlab.config.schema import InitConfig, ModelConfig
from normlab.model.gpt import GPT
from normlab.study.composition import compose_specs
from uniform_placement import uniform_placement

SHAPE = ModelConfig(depth=1, width=8, heads=2, context=4, tie=False)
TOKENS = torch.tensor([[1, 2, 3, 4]])


def build(scale: float | None) -> GPT:
    shape = replace(SHAPE, init=InitConfig(embedding_scale=scale))
    placement = uniform_placement(input=nn.Identity, final=nn.Identity)
    return GPT(shape, placement, 11, seed=0)


def test_it_multiplies_embeddings_and_positions() -> None:
    scaled, plain = build(3.0), build(None)
    with torch.no_grad():
        for table in (plain.embedding, plain.positions):
            assert table is not None
            table.weight *= 3.0
    assert torch.allclose(scaled(TOKENS), plain(TOKENS), rtol=1e-6)
    assert not torch.allclose(scaled(TOKENS), build(1.0)(TOKENS))


def test_it_is_learned_and_changes_no_other_weight() -> None:
    scaled, plain = build(2.0), build(None)
    scaled(TOKENS).square().sum().backward()
    assert scaled.embedding_scale is not None
    assert float(scaled.embedding_scale.grad) != 0
    others = dict(plain.named_parameters())
    names = {name for name, _ in scaled.named_parameters()}
    assert names == {*others, "embedding_scale"}
    for name, parameter in scaled.named_parameters():
        assert name == "embedding_scale" or torch.equal(parameter, others[name])


def test_without_it_a_run_has_the_id_that_it_always_had() -> None:
    key = "model.init.embedding_scale"
    plain, neutral, scaled = compose_specs([], [f"{key}=null"], [f"{key}=8"])
    assert "embedding_scale" not in plain.plain["model"]["init"]
    assert plain.id == neutral.id != scaled.id


@pytest.mark.parametrize("norm", ["derf_gpt2", "dyt_nobias"])
def test_the_papers_language_models_have_norms_without_bias_that_start_alpha_at_one(
    norm: str,
) -> None:
    parameters = compose_specs([f"norm={norm}"])[0].plain["norm"]["parameters"]
    assert parameters["alpha"]["init"] == 1
    assert "bias" not in parameters
