"""Every figure: inside the page, no word on another, the same bytes each time."""

from dataclasses import replace
from pathlib import Path

import matplotlib
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from example_measurements import (
    gradient_vanishing,
    measurement_record,
    norm_comparison,
    norm_times,
    precision,
    stack_profile,
    stream_profile,
)
from figure_texts import overlapping_words, visible_words, words_outside
from normlab.analysis.sheet import fix_layout
from normlab.analysis.style import RC
from normlab.apps.experiments import (
    gradient_vanishing_figure,
    layernorm_vs_rmsnorm_figure,
    precision_figure,
)
from normlab.apps.experiments.gradient_vanishing import GradientVanishing
from normlab.apps.experiments.gradient_vanishing_figure import separate_heights
from normlab.apps.experiments.layernorm_vs_rmsnorm import LayerNormVsRmsNorm
from normlab.apps.experiments.precision import Precision
from normlab.apps.experiments.report import draw_figure

MANY = ("rmsnorm", "layernorm", "dyt", "scalenorm")
WAYS = ("fused", "torch", "compiled", "composite")


def drawn(numbers: GradientVanishing | LayerNormVsRmsNorm | Precision) -> Figure:
    sheets = {
        GradientVanishing: gradient_vanishing_figure.draw_figure,
        LayerNormVsRmsNorm: layernorm_vs_rmsnorm_figure.draw_figure,
        Precision: precision_figure.draw_figure,
    }
    with matplotlib.rc_context(RC):
        figure = sheets[type(numbers)](measurement_record(numbers))
        fix_layout(figure)  # as where it is written: it labels the ticks
        figure.draw_without_rendering()  # where texts stand is known once they are drawn
    return figure


def every_way(widths: tuple[int, ...]) -> LayerNormVsRmsNorm:
    times = [
        norm_times(way, norm, time * width**0.5, width)
        for width in widths
        for at, way in enumerate(WAYS)
        for norm, time in (("layernorm", 1.0 + at), ("rmsnorm", 0.7 + 2 * at))
    ]
    times += [norm_times("x.var", "layernorm", 90.0 * width**0.5, width) for width in widths]
    return norm_comparison(times)


@pytest.mark.parametrize(
    "numbers",
    [
        gradient_vanishing(),
        gradient_vanishing(MANY[:3], depth=32),
        replace(
            gradient_vanishing(),
            stacks=(
                *gradient_vanishing().stacks,
                stack_profile(width=128),
                stack_profile(width=2048),
            ),
        ),
        norm_comparison(),
        every_way((128, 512, 1024, 2048, 4096)),
        precision(),
    ],
    ids=["ordinary", "deep", "widths", "two shapes", "five shapes", "precision"],
)
def test_nothing_lies_on_another_or_beyond_the_page(
    numbers: GradientVanishing | LayerNormVsRmsNorm | Precision,
) -> None:
    sheet = drawn(numbers)
    assert words_outside(sheet) == []
    assert overlapping_words(sheet) == []


def test_twenty_arms_and_what_is_not_finite_are_drawn() -> None:
    arms = tuple(stream_profile(f"norm_{at}", "pre", 1 + at / 10) for at in range(20))
    gone = replace(stream_profile("none", "any", 2.0), rms=(None,) * 9, std=(None,) * 9)
    sheet = drawn(replace(gradient_vanishing(), transformers=(*arms, gone)))
    assert words_outside(sheet) == []


def test_measurement_and_theory_are_both_there_and_agree_where_numbers_do() -> None:
    axes = drawn(gradient_vanishing()).axes[0]
    lines = [line for line in axes.lines if len(line.get_xdata()) == 9]
    points = [line for line in lines if line.get_linestyle() == "None"]
    theory = [line for line in lines if line.get_linestyle() != "None"]
    assert len(points) == len(theory) == 3
    for one, other in zip(points, theory, strict=True):
        assert list(one.get_ydata()) == pytest.approx(list(other.get_ydata()))


def test_the_note_says_what_the_numbers_are_from() -> None:
    for numbers in (gradient_vanishing(), norm_comparison(), precision()):
        said = " ".join(one.get_text() for one in visible_words(drawn(numbers)))
        for word in ("a processor", "torch 2.13.0", "2026-11-24"):
            assert word in said
    assert "60 seeds from 0" in " ".join(
        one.get_text() for one in visible_words(drawn(gradient_vanishing()))
    )


@pytest.mark.parametrize(
    "numbers",
    [pytest.param(gradient_vanishing(), marks=pytest.mark.slow), norm_comparison()],
    ids=["vanishing", "comparison"],
)
def test_the_same_numbers_give_the_same_files(
    numbers: GradientVanishing | LayerNormVsRmsNorm, tmp_path: Path
) -> None:
    once, again = (
        draw_figure(measurement_record(numbers), tmp_path / name) for name in ("once", "again")
    )
    assert imread(once[0]).shape[1] == 1760
    assert [path.read_bytes() for path in once] == [path.read_bytes() for path in again]


def test_names_are_moved_apart_and_no_farther() -> None:
    assert separate_heights([0.2, 0.8], 0.1) == pytest.approx([0.2, 0.8])
    assert separate_heights([0.5, 0.5], 0.1) == pytest.approx([0.45, 0.55])
    assert separate_heights([0.0, 0.0, 1.0], 0.2) == pytest.approx([0.1, 0.3, 0.9])
    crowd = separate_heights([0.4, 0.41, 0.42, 0.9], 0.15)
    assert min(b - a for a, b in zip(sorted(crowd), sorted(crowd)[1:], strict=False)) > 0.149
    assert crowd == sorted(crowd)
