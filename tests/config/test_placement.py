"""A placement written out: every site of every block says which norm and which scale it has."""

from collections.abc import Callable

import pytest

from normlab.config import conf_folder
from normlab.config.placement import ResolvedPlacement, Scale, resolve_placement
from normlab.config.run_spec import RunSpec

SIX = ("model.depth=6",)


def network(spec: RunSpec) -> ResolvedPlacement:
    config = spec.config
    return resolve_placement(config.placement, config.norm, config.model.depth)


def sites(spec: RunSpec, site: str) -> list[tuple[bool, bool]]:
    """By block, whether attention and the feed-forward have a norm at a site."""
    return [
        tuple(b[kind].norms[site] is not None for kind in ("attention", "feedforward"))
        for b in network(spec).blocks
    ]  # type: ignore[misc]


def test_a_scale_may_depend_on_the_block_and_on_the_depth(specified: Callable) -> None:
    spec = specified(*SIX, "placement.skip='(2*L)**0.25'", "placement.branch='1/sqrt(l)'")
    for number, block in enumerate(network(spec).blocks, 1):
        for wiring in block.values():
            assert wiring.scales["skip"] == Scale(12**0.25)
            assert wiring.scales["branch"] == Scale(1 / number**0.5)


def test_a_learnable_scale_starts_at_its_value_for_the_block(specified: Callable) -> None:
    spec = specified(*SIX, "placement.branch={init: 1/l, per: feature}")
    starts = [block["attention"].scales["branch"] for block in network(spec).blocks]
    assert starts == [Scale(1 / number, "feature") for number in range(1, 7)]


def test_a_word_about_attention_says_nothing_of_the_feedforward(specified: Callable) -> None:
    spec = specified(*SIX, "placement.attention.output=true", "placement.attention.input=false")
    assert sites(spec, "output") == [(True, False)] * 6
    assert sites(spec, "input") == [(False, True)] * 6


def test_queries_and_keys_may_differ_and_the_feedforward_has_neither(specified: Callable) -> None:
    spec = specified(*SIX, "placement.qk=true", "placement.k=false", "placement.v=true")
    assert sites(spec, "q") == [(True, False)] * 6
    assert sites(spec, "k") == [(False, False)] * 6
    assert sites(spec, "v") == [(True, False)] * 6


@pytest.mark.parametrize(
    ("where", "blocks"),
    [("l <= L/4", [1]), ("l == 1 or l == L", [1, 6]), ("l > 2 and l < 5", [3, 4]), ("l >= 9", [])],
)
def test_a_rule_holds_in_the_blocks_where_its_condition_does(
    where: str, blocks: list[int], specified: Callable
) -> None:
    rule = "+placement.blocks.some"
    spec = specified(*SIX, f"{rule}.where='{where}'", f"{rule}.stream=true", f"{rule}.input=false")
    inside = [(number in blocks,) * 2 for number in range(1, 7)]
    assert sites(spec, "stream") == inside
    assert sites(spec, "input") == [(not a, not b) for a, b in inside]


def test_a_later_rule_wins_and_a_rule_may_speak_of_one_sublayer(specified: Callable) -> None:
    spec = specified(
        *SIX,
        "+placement.blocks.a={where: 'l<=4', output: true}",
        "+placement.blocks.b={where: 'l>=3', feedforward: {output: false}}",
    )
    assert sites(spec, "output") == [(True, True)] * 2 + [(True, False)] * 2 + [(False, False)] * 2


def test_a_norm_of_its_own_per_block_stands_in_that_blocks_sites(specified: Callable) -> None:
    spec = specified(
        *SIX,
        "+placement.blocks.late.where='l > L/2'",
        "+norm@placement.blocks.late.norm=dyt",
    )
    names = [b["attention"].norms["input"]["_target_"] for b in network(spec).blocks]  # type: ignore[index]
    assert names == ["normlab.norms.RMSNorm"] * 3 + ["normlab.norms.DynamicTanh"] * 3
    assert network(spec).ends["final"]["_target_"] == "normlab.norms.RMSNorm"  # type: ignore[index]


def test_one_sublayer_may_have_a_norm_of_its_own(specified: Callable) -> None:
    spec = specified(*SIX, "+norm@placement.attention.norm=dyt")
    for block in network(spec).blocks:
        assert block["attention"].norms["input"]["alpha"] == 1.0  # type: ignore[index]
        assert block["feedforward"].norms["input"]["eps"] == 1e-5  # type: ignore[index]


SAME = {
    "mix-ln of three blocks is pre": (
        ["placement=mixln", "model.depth=3"],
        ["placement=pre", "model.depth=3"],
    ),
    "rezero holds no norm": (
        ["placement=rezero", "norm=rmsnorm"],
        ["placement=rezero", "norm=dyt"],
    ),
    "rezero without a norm": (
        ["placement=rezero", "norm=none"],
        ["placement=rezero", "norm=layernorm"],
    ),
    "no norm, wherever it is not": (
        ["placement=hybridnorm", "norm=none"],
        ["placement=sandwich", "norm=none"],
    ),
    "no norm in both streams": (
        ["placement=siamese", "norm=none"],
        ["placement=residual", "norm=none"],
    ),
    "no site at all": (
        ["placement.input=false", "placement.final=false"],
        ["placement=post", "norm=none"],
    ),
    "one written as an expression": (["placement.skip='2-1'"], ["placement.skip=1"]),
    "the usual order": (["placement.order=attention_first"], ["placement=pre"]),
    "head norms that are not there": (["placement.head_norm=all"], ["placement.head_norm=head"]),
}


@pytest.mark.parametrize(("one", "other"), SAME.values(), ids=SAME)
def test_the_same_network_is_the_same_run(
    one: list[str], other: list[str], specified: Callable
) -> None:
    assert specified(*one).id == specified(*other).id


@pytest.mark.parametrize(
    "overrides",
    [
        ["placement=mixln", "model.depth=4"],
        ["placement=parallel"],
        ["placement=subln", "norm=none"],
        ["placement=keel", "norm=none"],
        ["placement=b2t", "norm=none"],
        ["placement=rezero"],
        ["placement.attention.input=false"],
        ["placement.order=feedforward_first"],
        ["+placement.blocks.one={where: 'l==1', input: false}"],
    ],
    ids=lambda overrides: " ".join(overrides),
)
def test_another_network_is_another_run(overrides: list[str], specified: Callable) -> None:
    assert specified(*overrides).id not in {specified().id, specified("norm=none").id}


@pytest.mark.parametrize(
    ("overrides", "norm", "placement"),
    [
        (["placement=rezero"], "any", "rezero"),
        (["norm=none", "placement=mixln"], "none", "any"),
        (["norm=none", "placement=deepnorm"], "none", "deepnorm"),
        (["placement.input=false", "placement.final=false"], "none", "any"),
        (["placement=gpas"], "rmsnorm", "gpas"),
    ],
)
def test_a_choice_that_makes_no_difference_is_called_any(
    overrides: list[str], norm: str, placement: str, specified: Callable
) -> None:
    choices = specified(*overrides).choices
    assert (choices["norm"], choices["placement"]) == (norm, placement)


@pytest.mark.parametrize("key", ["skip", "branch", "input_scale", "heads", "reads", "qk"])
def test_null_leaves_to_the_placement_what_it_would_be_unsaid(
    key: str, specified: Callable
) -> None:
    assert network(specified(f"placement.{key}=null", "placement=post")) == network(
        specified("placement=post")
    )


# What each file of conf/placement/pre changes of Pre-LN, by overrides of pre itself.
VARIANTS_OF_PRE = {
    "no_skip": ["placement.skip=0"],
    "no_attention_skip": ["placement.attention.skip=0"],
    "no_feedforward_skip": ["placement.feedforward.skip=0"],
    "no_attention_norm": ["placement.attention.input=false"],
    "no_feedforward_norm": ["placement.feedforward.input=false"],
    "no_final_norm": ["placement.final=false"],
    "only_final_norm": ["placement.input=false"],
    "feedforward_first": ["placement.order=feedforward_first"],
}


def test_every_variant_of_pre_differs_from_it_in_what_its_name_says(specified: Callable) -> None:
    files = {path.stem for path in (conf_folder() / "placement" / "pre").glob("*.yaml")}
    assert files == VARIANTS_OF_PRE.keys()
    for name, overrides in VARIANTS_OF_PRE.items():
        variant = specified(f"placement=pre/{name}")
        assert network(variant) == network(specified("placement=pre", *overrides)), name
        assert variant.choices["placement"] == f"pre/{name}"
        assert "/" not in variant.name
