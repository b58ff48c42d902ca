"""card.py --against: the same function or not, and where it is another."""

from pathlib import Path

import pytest
import torch
from torch import nn

from normlab.apps.card.main import main
from normlab.apps.card.same_function import (
    FunctionComparison,
    compare_functions,
    describe_comparison,
)
from normlab.norms import LayerNorm, RMSNorm

WIDTH = 16
(GAIN,) = (name for name, _ in RMSNorm(WIDTH).named_parameters())


class OwnRMSNorm(nn.Module):
    """RMSNorm written another way, with one mistake at most."""

    def __init__(self, width: int, mistake: str = "") -> None:
        super().__init__()
        self.register_parameter(GAIN, nn.Parameter(torch.ones(width)))
        self.mistake = mistake

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        axis = 1 if self.mistake == "axis" else -1
        square = (x**2).mean(axis, keepdim=True)
        if self.mistake == "eps outside":
            size = square.sqrt() + 1e-5
        elif self.mistake == "unbiased":
            size = (square * x.shape[-1] / (x.shape[-1] - 1) + 1e-5).sqrt()
        else:
            size = (square + 1e-5).sqrt()
        if self.mistake == "gradient":
            size = size.detach()
        return x / size if self.mistake == "gain" else self.get_parameter(GAIN) * (x / size)


def compared(mistake: str) -> FunctionComparison:
    norms = OwnRMSNorm(WIDTH, mistake), RMSNorm(WIDTH, eps=1e-5)
    return compare_functions(*norms, WIDTH, ("own", "rmsnorm"))


def test_another_way_to_write_it_is_the_same_function() -> None:
    comparison = compared("")
    assert comparison.is_same
    assert comparison.has_moved
    assert "own and rmsnorm are the same function" in describe_comparison(comparison)


@pytest.mark.parametrize(
    ("mistake", "where"),
    [
        ("eps outside", "RMS 1e-3"), ("unbiased", ""), ("axis", "one feature 100"),
        ("gradient", "gradient"), ("gain", ""),
    ],
)  # fmt: skip
def test_a_mistake_is_another_function_and_where(mistake: str, where: str) -> None:
    comparison = compared(mistake)
    assert not comparison.is_same
    sentence = describe_comparison(comparison)
    assert "are not the same function" in sentence
    assert where in sentence


def test_a_detached_statistic_differs_in_the_gradient_alone() -> None:
    comparison = compared("gradient")
    assert max(deviation.relative for deviation in comparison.outputs.values()) < 1e-12


def test_other_parameters_are_compared_as_they_start() -> None:
    comparison = compare_functions(LayerNorm(WIDTH), RMSNorm(WIDTH), WIDTH, ("ln", "rms"))
    assert not comparison.has_moved
    assert comparison.outputs["mean 3"].relative > 1


class Affine(nn.Module):
    """gain · x + bias, registered in either order."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__()
        for name in (first, second):
            self.register_parameter(name, nn.Parameter(torch.ones(WIDTH)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.get_parameter("gain") * x + self.get_parameter("bias")


def test_the_order_of_registration_makes_no_other_function() -> None:
    norms = Affine("gain", "bias"), Affine("bias", "gain")
    comparison = compare_functions(*norms, WIDTH, ("one", "other"))
    assert comparison.has_moved
    assert comparison.is_same
    assert "the same function with equal parameters off their start: over 6" in describe_comparison(
        comparison
    )


class Scaled(nn.Module):
    """x times a number, without parameters."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.factor * x


def test_norms_without_parameters_are_compared_without_a_word_about_them() -> None:
    same = compare_functions(Scaled(1.0), nn.Identity(), WIDTH, ("one", "none"))
    assert "one and none are the same function: over 6" in describe_comparison(same)
    other = compare_functions(Scaled(2.0), nn.Identity(), WIDTH, ("two", "none"))
    assert "two and none are not the same function: the output" in describe_comparison(other)


def test_an_output_without_a_finite_value_differs_most() -> None:
    class Overflowing(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x / (x.abs().max() < 100)

    comparison = compare_functions(nn.Identity(), Overflowing(), WIDTH, ("none", "broken"))
    assert comparison.outputs["RMS 1e3"].relative == float("inf")
    assert "the output differs most for the input 'RMS 1e3'" in describe_comparison(comparison)


def test_the_command_says_it(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "norm").mkdir()
    (tmp_path / "norm" / "mine.yaml").write_text(
        "_target_: normlab.norms.Formula\nexpression: gain * x / sqrt(mean(x**2) + 1e-5)\n"
        "parameters: {gain: {init: 1, per: feature}}\n"
    )
    main(["--config-dir", str(tmp_path), "norm=mine", "--against", "rmsnorm", "--width", "16"])
    assert "mine and rmsnorm are the same function" in " ".join(capsys.readouterr().out.split())
    with pytest.raises(SystemExit) as stop:
        main(["norm=rmsnorm", "--against", "rmsnorm,dyt"])
    assert stop.value.code == 2
    assert "names several norms" in capsys.readouterr().err
