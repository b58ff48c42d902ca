"""Any class or function that takes the width and gives a module is a norm; the rest is refused."""

import sys
from types import ModuleType

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn
from torch.testing import assert_close

from normlab.errors import ConfigError
from normlab.norms import LayerNorm, RMSNorm, norm_factory


class PickyNorm(nn.Module):
    """Refuses every width, at length."""

    def __init__(self, width):
        super().__init__()
        raise ValueError(f"{width} is too wide\nand there is more to say")


class SilentNorm(nn.Module):
    """Refuses every width without a word, as a bare assert does."""

    def __init__(self, width):
        super().__init__()
        raise AssertionError


@pytest.fixture(autouse=True)
def outside(monkeypatch):
    """A package that is not the lab's, with norms of its own."""
    package = ModuleType("outside_norms")
    package.PickyNorm, package.SilentNorm = PickyNorm, SilentNorm
    package.make = lambda width, eps: nn.LayerNorm(width, eps=2 * eps)
    package.count = lambda width: width
    package.number = 7
    monkeypatch.setitem(sys.modules, "outside_norms", package)


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        ({"_target_": "normlab.norms.LayerNorm"}, LayerNorm),
        ({"_target_": "normlab.norms.RMSNorm"}, RMSNorm),
        ({"_target_": "torch.nn.LayerNorm"}, nn.LayerNorm),
        ({"_target_": "torch.nn.RMSNorm"}, nn.RMSNorm),
        ({"_target_": "torch.nn.Identity"}, nn.Identity),
        ({"_target_": "torch.nn.BatchNorm1d"}, nn.BatchNorm1d),
        ({"_target_": "outside_norms.make", "eps": 0.5}, nn.LayerNorm),
    ],
    ids=lambda value: value["_target_"] if isinstance(value, dict) else "",
)
def test_a_norm_is_any_callable_that_takes_the_width_first(config, kind):
    norm = norm_factory(config)(12)
    assert type(norm) is kind
    assert all(parameter.shape == (12,) for parameter in norm.parameters())


def test_what_stands_beside_the_target_are_its_arguments():
    norm = norm_factory({"_target_": "normlab.norms.LayerNorm", "eps": 0.75, "bias": False})(4)
    assert norm.bias is None
    # mean 2.5, population variance 1.25, with eps 2.
    by_hand = torch.tensor([-1.5, -0.5, 0.5, 1.5]) / 2**0.5
    assert_close(norm(torch.tensor([1.0, 2.0, 3.0, 4.0])), by_hand)


def test_a_function_of_the_users_own_gets_its_arguments():
    assert norm_factory({"_target_": "outside_norms.make", "eps": 0.5})(8).eps == 1.0


@pytest.mark.parametrize("partial", [True, False])
def test_a_partial_is_accepted_and_means_nothing(partial):
    norm = norm_factory({"_target_": "normlab.norms.RMSNorm", "eps": 0.1, "_partial_": partial})(8)
    assert isinstance(norm, RMSNorm)
    assert norm.eps == 0.1


def test_a_config_node_builds_as_a_plain_mapping_does():
    node = OmegaConf.create({"eps": 0.1, "_target_": "normlab.norms.RMSNorm", "_partial_": True})
    norm = norm_factory(node)(8)
    assert isinstance(norm, RMSNorm)
    assert norm.eps == 0.1
    assert node._partial_ is True


def test_every_site_gets_a_norm_of_its_own_at_its_own_width():
    build = norm_factory({"_target_": "normlab.norms.RMSNorm"})
    first, second, narrow = build(8), build(8), build(2)
    assert first is not second
    assert first.gain.data_ptr() != second.gain.data_ptr()
    assert narrow.gain.shape == (2,)


REFUSED = {
    "unknown class": {"_target_": "torch.nn.NoSuchNorm"},
    "unknown package": {"_target_": "no_such_package.Norm"},
    "no path": {"_target_": "..."},
    "argument it does not have": {"_target_": "normlab.norms.RMSNorm", "bias": True},
    "argument it misses": {"_target_": "torch.nn.GroupNorm"},
    "the width again": {"_target_": "normlab.norms.RMSNorm", "width": 3},
    "its own refusal": {"_target_": "outside_norms.PickyNorm"},
    "a number": {"_target_": "outside_norms.number"},
    "a package": {"_target_": "torch.nn"},
    "not a norm": {"_target_": "outside_norms.count"},
    "a function of tensors": {"_target_": "torch.nn.functional.relu"},
}


@pytest.mark.parametrize("config", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_built_is_refused_in_one_line_that_names_the_target(config):
    build = norm_factory(config)
    with pytest.raises(ConfigError) as refusal:
        build(16)
    sentence = str(refusal.value)
    assert config["_target_"] in sentence
    assert "\n" not in sentence


def test_a_refusal_without_a_word_is_still_a_sentence():
    with pytest.raises(ConfigError, match="SilentNorm"):
        norm_factory({"_target_": "outside_norms.SilentNorm"})(16)


def test_a_refusal_says_which_argument_which_width_and_which_type():
    with pytest.raises(ConfigError, match=r"16.*'bias'"):
        norm_factory(REFUSED["argument it does not have"])(16)
    with pytest.raises(ConfigError, match="16 is too wide"):
        norm_factory(REFUSED["its own refusal"])(16)
    with pytest.raises(ConfigError, match="gave a int"):
        norm_factory(REFUSED["not a norm"])(16)


def test_a_norm_that_no_memory_holds_is_refused_before_it_is_built() -> None:
    build = norm_factory({"_target_": "torch.nn.Linear", "out_features": 10**15})
    with pytest.raises(ConfigError, match="parameters for width 16, and a norm may have 1,052,672"):
        build(16)
    # A matrix of the width is no more than a norm may have.
    square = norm_factory({"_target_": "torch.nn.Linear", "out_features": 512})(512)
    assert square.weight.device.type == "cpu"


def test_an_argument_that_is_the_width_is_explained() -> None:
    build = norm_factory({"_target_": "torch.nn.LayerNorm", "normalized_shape": 16})
    with pytest.raises(ConfigError, match="given the width first, so leave the key of that arg"):
        build(16)
