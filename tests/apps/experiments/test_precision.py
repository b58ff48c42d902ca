"""`precision`: formats against their definitions, errors against what rounding gives, sentences."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from example_measurements import SCALES, precision, precision_curve
from html_page import Page
from normlab.apps.experiments.precision import (
    DTYPES,
    NARROW,
    NORMS,
    WIDE,
    Precision,
    PrecisionCurve,
    PrecisionSettings,
)
from normlab.apps.experiments.precision_measurement import (
    FORMULAS,
    MODULES,
    compare_outputs,
    describe_format,
    measure_norm,
)
from normlab.apps.experiments.record import read_record

# Significant binary digits of each format, the leading one included.
DIGITS = {"fp32": 24, "bf16": 8, "fp16": 11}


@pytest.fixture
def normal() -> torch.Tensor:
    return torch.randn(16, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def measured(
    norm: str, normal: torch.Tensor, *scales: float, eps: float = 1e-5
) -> dict[tuple[str, str], PrecisionCurve]:
    curves = measure_norm(norm, eps, [scale * normal for scale in scales])
    return {(curve.dtype, curve.statistics): curve for curve in curves}


def test_the_formats_are_those_of_their_definitions() -> None:
    formats = {dtype: describe_format(dtype) for dtype in DTYPES}
    assert {dtype: one.unit for dtype, one in formats.items()} == {
        dtype: 2.0**-digits for dtype, digits in DIGITS.items()
    }
    assert formats["fp16"].largest == 65_504
    assert formats["fp16"].smallest == 2.0**-24
    assert formats["bf16"].smallest == 2.0**-133
    assert [formats[dtype].square for dtype in DTYPES] == [90_000, 90_112, None]


@pytest.mark.parametrize("norm", NORMS)
def test_the_formula_is_the_function_of_the_norm(norm: str, normal: torch.Tensor) -> None:
    x = 3 * normal + 1
    with torch.no_grad():
        expected = MODULES[norm](64, eps=1e-3).double()(x)
    torch.testing.assert_close(FORMULAS[norm](x, 1e-3), expected)


@pytest.mark.parametrize("norm", NORMS)
def test_statistics_in_fp32_leave_one_rounding_at_every_scale(
    norm: str, normal: torch.Tensor
) -> None:
    for (dtype, statistics), curve in measured(norm, normal, 1e-5, 1.0, 300.0, 1e4).items():
        if statistics == WIDE:
            assert curve.lost == (0.0,) * 4
            # Numbers that are spread evenly over a binade are off by 0.41 units in RMS.
            limit = 0.5 * 2.0 ** -DIGITS[dtype] if dtype != "fp32" else 2.0**-23
            assert max(error for error in curve.error if error is not None) < limit


def test_squares_overflow_in_fp16_and_the_output_is_zero(normal: torch.Tensor) -> None:
    spread = normal / normal.abs().amax(-1, keepdim=True)  # the largest number of a token is 1
    curves = measured("rmsnorm", spread, 240.0, 280.0)
    fp16, bf16 = curves["fp16", NARROW], curves["bf16", NARROW]
    assert fp16.lost == bf16.lost == (0.0, 0.0)
    assert fp16.error[0] < 4 * 2.0**-11  # type: ignore[operator]
    assert fp16.error[1] == 1.0
    assert max(bf16.error) < 4 * 2.0**-8  # type: ignore[type-var, operator]
    # 280² is infinite, and x / ∞ is 0.
    x = (280 * spread).half()
    assert FORMULAS["rmsnorm"](x, 1e-5).abs().max() == 0
    # ScaleNorm adds the squares up, and its sum overflows at a smaller input.
    length = 65_504**0.5
    unit = normal / normal.norm(dim=-1, keepdim=True)
    errors = measured("scalenorm", unit, 0.99 * length, 1.01 * length)["fp16", NARROW].error
    assert errors[0] < 4 * 2.0**-11  # type: ignore[operator]
    assert errors[1] == 1.0


def test_an_eps_that_is_zero_in_fp16_divides_by_zero(normal: torch.Tensor) -> None:
    small = {eps: measured("rmsnorm", normal, 1e-5, eps=eps) for eps in (1e-5, 1e-8)}
    assert small[1e-5]["fp16", NARROW].lost == (0.0,)
    assert small[1e-8]["fp16", NARROW].lost[0] == 1.0
    assert small[1e-8]["fp16", NARROW].error == (None,)
    assert small[1e-8]["fp16", WIDE].lost == small[1e-8]["bf16", NARROW].lost == (0.0,)


def test_layernorm_loses_digits_to_the_mean_in_bf16(normal: torch.Tensor) -> None:
    def errors(norm: str) -> dict[tuple[str, str], Any]:
        curves = measure_norm(norm, 1e-5, [normal, normal + 64])
        return {(curve.dtype, curve.statistics): curve.error for curve in curves}

    layer, rms = errors("layernorm"), errors("rmsnorm")
    assert layer["bf16", NARROW][1] > 5 * layer["bf16", NARROW][0]
    assert layer["bf16", WIDE][1] < 0.5 * 2.0**-8
    assert rms["bf16", NARROW][1] < 2 * 2.0**-8


def test_an_input_that_the_format_cannot_hold_has_no_error() -> None:
    x = torch.tensor([[70_000.0, 1.0]]).half()
    assert compare_outputs(x, x, x.double()) == (None, None)
    half_lost = torch.tensor([[math.inf, 2.0]])
    exact = torch.tensor([[1.0, 1.0]], dtype=torch.float64)
    assert compare_outputs(exact, half_lost, exact) == (1.0, 0.5)


def test_the_range_is_the_one_around_one() -> None:
    numbers = precision()
    assert numbers.exact_range(precision_curve()) == (1e-6, 10)
    assert numbers.wrong_scales(precision_curve()) == ([], [1e2, 1e3, 1e4])
    assert numbers.exact_range(precision_curve(eps=1e-8)) == (1e-3, 10)
    assert numbers.wrong_scales(precision_curve(eps=1e-8))[0] == [1e-6, 1e-5, 1e-4]
    off = replace(precision_curve(), error=(0.01,) * len(SCALES))
    assert numbers.exact_range(off) is None
    assert numbers.wrong_scales(off) == ([], [])


def said(numbers: Precision) -> str:
    sentences = numbers.write_sentences()
    assert all(sentence.endswith(".") for sentence in sentences)
    return " ".join(sentences)


def test_the_paragraph_says_where_each_format_is_exact_and_where_it_is_wrong() -> None:
    words = said(precision())
    assert "300² is 90,000 in fp32" in words
    assert "infinite in fp16" in words
    assert "the largest error is 3.0e-8 in fp32, 0.00195 in bf16 and 2.4e-4 in fp16" in words
    assert "exact to rounding in all (at most 4 units)" in words
    assert (
        "With statistics in bf16 and eps=1e-5: RMSNorm, LayerNorm, ScaleNorm and DyT exact to "
        "rounding at every scale." in words
    )
    assert (
        "RMSNorm, LayerNorm and ScaleNorm exact to rounding from 1.0e-6 to 10, wrong from 100 on "
        "(every output finite, the error 100 % at 1.0e4); DyT exact to rounding at every" in words
    )
    assert "RMSNorm not from mean 256 on (error 100 % at 256; 0.0244 % with statistics" in words
    assert (
        "With eps=1e-8 and statistics in the input's format, RMSNorm in fp16 is wrong up" in words
    )
    assert "(100 % of the outputs not finite at 1.0e-6)" in words
    assert "With eps=1e-5 and statistics" not in words
    assert "0.00100 for eps=1e-5 (√eps is 0.00316)" in words
    assert "at width" not in words


def test_the_paragraph_follows_other_numbers() -> None:
    numbers = precision((512, 128))
    off = tuple(
        replace(curve, error=(0.5,) * len(SCALES), lost=(0.25,) * len(SCALES))
        if (curve.dtype, curve.norm) == ("bf16", "layernorm")
        else curve
        for curve in numbers.curves
    )
    words = said(replace(numbers, curves=off))
    assert "0.50 in bf16" in words
    assert "not exact to rounding everywhere in bf16 (at" in words
    assert "LayerNorm not exact to rounding at scale 1, wrong from 1.00 on (25 % of the" in words
    assert (
        "RMSNorm with statistics in fp16 is wrong from 100 at width 128 and 100 at width 512."
        in words
    )


def test_the_command_measures_draws_and_tells(
    train_py: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PrecisionSettings.SIZES, "quick", (4, 1))
    answer = train_py("experiment=precision", "model.width=16", f"output_dir={tmp_path}")
    assert answer.code == 0, answer.err
    folder = tmp_path / "precision-quick"
    found = read_record(folder / "precision.json")
    assert found.settings["widths"] == [16]
    assert found.numbers.scales == pytest.approx(SCALES)
    assert len(found.numbers.curves) == 4 * 3 * 5
    assert (folder / "figures" / "precision.svg").stat().st_size > 10_000
    assert "300² is 90,000 in fp32" in answer.out
    formats, curves = Page(folder / "report.html").root.all("table")
    assert "65,504" in formats.text or "6.6e4" in formats.text
    assert "fp16, statistics in fp16" in curves.text


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["norm=rmsnorm"], "norm=rmsnorm means nothing to experiment=precision"),
        (["model.width=1"], "model.width=1 is not allowed; it must be a whole number from 2"),
        (["-m", "seed=0,1"], "seed=0,1 cannot be several in experiment=precision"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_cannot_be_measured_is_one_sentence(
    words: list[str], sentence: str, train_py: Callable, tmp_path: Path
) -> None:
    answer = train_py("experiment=precision", *words, f"output_dir={tmp_path}")
    assert answer.code == 2
    assert sentence in answer.err
    assert len(answer.err.strip().splitlines()) == 1
