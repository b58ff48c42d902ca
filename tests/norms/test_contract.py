"""A norm lets no token see a later one, nor another sequence; and what else it promises."""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from normlab.config import conf_folder
from normlab.errors import ConfigError
from normlab.norms.build import check_contract, find_untrained, norm_factory

WIDTH = 8


class Of(nn.Module):
    """A function as a norm."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def rms(x: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt()


def shifted(x: Tensor, by: int) -> Tensor:
    return nn.functional.pad(x, (0, 0, max(by, 0), max(-by, 0)))[:, max(-by, 0) :][:, : x.shape[1]]


def in_chunks(x: Tensor) -> Tensor:
    return rms(torch.cat([part + 0.1 * part.roll(-1, 1) for part in x.split(64, dim=1)], 1))


LEAKS = {
    "the next token": lambda x: rms(x) + shifted(rms(x), -1),
    "the last token": lambda x: rms(x) + rms(x)[:, -1:],
    "a little of the last token": lambda x: rms(x) + 1e-4 * rms(x)[:, -1:],
    "this token and all later ones": lambda x: x - x.flip(1).cumsum(1).flip(1),
    "the next token within chunks of 64": lambda x: rms(x) if x.shape[1] < 64 else in_chunks(x),
    "the mean over tokens": lambda x: x - x.mean(1, keepdim=True),
    "the mean over sequences": lambda x: x - x.mean(0, keepdim=True),
    "the next sequence": lambda x: x + x.roll(-1, 0),
    "the sequence before": lambda x: x + x.roll(1, 0),
    "the size of everything": lambda x: x / x.abs().max(),
}


@pytest.mark.parametrize("leak", LEAKS.values(), ids=LEAKS)
def test_a_norm_that_sees_what_is_to_be_predicted_is_refused(leak) -> None:
    with pytest.raises(ConfigError, match="future"):
        check_contract(Of(leak), WIDTH, "it")


def test_random_numbers_that_depend_on_the_input_are_named() -> None:
    rrelu = Of(lambda x: nn.functional.rrelu(x, training=True))
    with pytest.raises(ConfigError, match="it draws random numbers"):
        check_contract(rrelu, WIDTH, "it")
    check_contract(nn.Dropout(0.1), WIDTH, "it")  # as many for every input


class Gated(nn.Module):
    """A leak behind a gain that starts at 0."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return rms(x) + self.gain * x.mean(1, keepdim=True)


class Evaluated(nn.Module):
    """A leak that training does not have."""

    def forward(self, x: Tensor) -> Tensor:
        return rms(x) if self.training else rms(x) - x.mean(1, keepdim=True)


@pytest.mark.parametrize("norm", [Gated(), Evaluated()], ids=["at a gain of 0", "in evaluation"])
def test_a_leak_that_the_first_call_does_not_show_is_refused(norm: nn.Module) -> None:
    with pytest.raises(ConfigError, match="future"):
        check_contract(norm, WIDTH, "it")


@pytest.mark.parametrize("norm", [nn.BatchNorm1d(4), nn.LocalResponseNorm(3)], ids=str)
def test_torchs_norms_over_other_dimensions_are_refused(norm: nn.Module) -> None:
    with pytest.raises(ConfigError, match="future"):
        check_contract(norm, WIDTH, "it")


def test_what_looks_back_only_may_stand_in_a_causal_model() -> None:
    check_contract(Of(lambda x: rms(x.cumsum(1))), WIDTH, "it")
    check_contract(Of(lambda x: x + shifted(x, 1)), WIDTH, "it")


def test_random_numbers_of_its_own_are_no_leak() -> None:
    check_contract(Of(lambda x: rms(x) * (1 + 0.1 * torch.randn_like(x))), WIDTH, "it")
    state = torch.get_rng_state()
    check_contract(Of(lambda x: rms(x) + torch.rand_like(x)), WIDTH, "it")
    assert torch.equal(torch.get_rng_state(), state)


BROKEN = {
    "in place": (Of(lambda x: x.mul_(0.5)), "in place"),
    "not finite": (Of(lambda x: x.sqrt()), "not finite"),
    "another shape": (Of(lambda x: x[..., 1:]), r"\(3, 4, 7\)"),
    "another dtype": (Of(lambda x: x.double()), "float64"),
    "no tensor": (Of(lambda x: (x,)), "tuple"),
    "fails": (Of(lambda x: x @ x), "cannot take"),
    "on another device": (nn.Linear(WIDTH, WIDTH, device="meta"), "built on the CPU"),
    "an open size": (nn.LazyLinear(WIDTH), "does not fix the size of weight"),
}


@pytest.mark.parametrize(("norm", "word"), BROKEN.values(), ids=BROKEN)
def test_any_other_broken_promise_is_named(norm: nn.Module, word: str) -> None:
    with pytest.raises(ConfigError, match=word) as refusal:
        check_contract(norm, WIDTH, "norm._target_=mine.Norm")
    assert str(refusal.value).startswith("norm._target_=mine.Norm ")
    assert "\n" not in str(refusal.value)


def with_gain(forward: Callable[[nn.Module, Tensor], Tensor], **attributes: object) -> nn.Module:
    """A norm with a learnable gain, these attributes and this forward pass."""

    class Norm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gain = nn.Parameter(torch.ones(WIDTH))
            for name, value in attributes.items():
                setattr(self, name, value)

        def forward(self, x: Tensor) -> Tensor:
            return forward(self, x)

    return Norm()


@torch.no_grad()
def without_gradient(norm: nn.Module, x: Tensor) -> Tensor:
    return norm.gain * rms(x)


def multiply(norm: nn.Module, x: Tensor) -> Tensor:
    return norm.gain * rms(x)


ones = partial(torch.ones, WIDTH)
UNTRAINED = {
    "detached": (with_gain(lambda n, x: n.gain.detach() * rms(x)), ["reach gain,"]),
    "data": (with_gain(lambda n, x: n.gain.data * rms(x)), ["reach gain,"]),
    "not used": (with_gain(lambda n, x: rms(x)), ["reach gain,"]),
    "of two": (
        with_gain(lambda n, x: n.a * rms(x), a=nn.Parameter(ones()), b=nn.Parameter(ones())),
        ["reach gain and b,"],
    ),
    "within": (with_gain(multiply, part=nn.Linear(2, 2, bias=False)), ["reach part.weight,"]),
    "the input": (with_gain(lambda n, x: n.gain * rms(x.detach())), ["reach its input,"]),
    "everything": (with_gain(without_gradient), ["reach its input,", "reach gain,"]),
    "a plain tensor": (with_gain(multiply, scale=ones()), ["holds scale outside"]),
    "a plain tensor with a gradient": (
        with_gain(lambda n, x: n.scale * multiply(n, x), scale=ones(requires_grad=True)),
        ["holds scale outside"],
    ),
    "a list of parameters": (
        with_gain(multiply, gains=[nn.Parameter(ones())]),
        ["holds gains outside"],
    ),
    "a mapping of modules": (
        with_gain(multiply, parts={"a": nn.LayerNorm(WIDTH)}),
        ["holds parts outside"],
    ),
    "of a module within": (
        with_gain(multiply, part=with_gain(multiply, scale=ones()).requires_grad_(False)),
        ["holds part.scale outside"],
    ),
}


@pytest.mark.parametrize(("norm", "words"), UNTRAINED.values(), ids=UNTRAINED)
def test_what_looks_as_if_it_were_trained_and_is_not_is_named(
    norm: nn.Module, words: list[str]
) -> None:
    sentences = find_untrained(norm, WIDTH, "norm._target_=mine.Norm")
    assert len(sentences) == len(words)
    for sentence, word in zip(sentences, words, strict=True):
        assert sentence.startswith("norm._target_=mine.Norm ")
        assert word in sentence
        assert "\n" not in sentence


def frozen(norm: nn.Module) -> nn.Module:
    return norm.requires_grad_(False)


def with_buffer() -> nn.Module:
    norm = with_gain(lambda n, x: n.scale * multiply(n, x))
    norm.register_buffer("scale", ones(), persistent=False)
    return norm


@pytest.mark.filterwarnings("ignore:.*weight_norm")
def test_what_is_fixed_on_purpose_or_known_to_torch_gives_no_warning() -> None:
    linear = partial(nn.Linear, WIDTH, WIDTH)
    for norm in (
        frozen(with_gain(lambda n, x: rms(x))),
        with_buffer(),
        with_gain(multiply, index=torch.arange(WIDTH), eps=1e-5, names=["a"]),
        nn.utils.weight_norm(linear()),
        nn.utils.spectral_norm(linear()),
        nn.utils.parametrizations.weight_norm(linear()),
        nn.utils.parametrizations.spectral_norm(linear()),
        nn.Dropout(0.5),
    ):
        assert find_untrained(norm, WIDTH, "it") == [], norm


def test_an_attribute_that_names_a_registered_tensor_gives_no_warning() -> None:
    norm = with_gain(multiply)
    norm.all = [norm.gain]
    assert find_untrained(norm, WIDTH, "it") == []


@pytest.mark.filterwarnings("ignore")
def test_no_norm_of_torch_gives_a_warning() -> None:
    """Every class of torch.nn that a model may hold, built from the width and one more number."""
    tried = set()
    for name, kind in vars(nn).items():
        if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
            continue
        for arguments in ((), (WIDTH,), (WIDTH, WIDTH), (2, WIDTH)):
            try:
                check_contract(kind(*arguments), WIDTH, name)
            except (ConfigError, TypeError, ValueError, AssertionError, RuntimeError):
                continue
            assert find_untrained(kind(*arguments), WIDTH, name) == []
            tried.add(name)
    assert tried >= {"LayerNorm", "RMSNorm", "Linear", "PReLU", "SiLU", "Dropout"}


@pytest.mark.parametrize("path", sorted((conf_folder() / "norm").glob("*.yaml")), ids=str)
def test_no_norm_of_the_catalogue_gives_a_warning(path: Path) -> None:
    norm = norm_factory(OmegaConf.load(path))(16)
    assert find_untrained(norm, 16, path.stem) == []


@pytest.mark.parametrize("persistent", [True, False])
def test_a_buffer_that_no_saved_state_may_hold_is_refused(persistent: bool) -> None:
    """A state with such numbers is taken for a damaged one, and the run begins anew."""
    norm = nn.Identity()
    norm.register_buffer("limit", torch.tensor(math.inf), persistent=persistent)
    if not persistent:
        check_contract(norm, 8, "norm=mine")
        return
    with pytest.raises(ConfigError, match="norm=mine starts with limit that is not finite"):
        check_contract(norm, 8, "norm=mine")
