"""The paragraph of gradient_vanishing follows its numbers: other numbers, other sentences."""

from dataclasses import replace

from example_measurements import gradient_vanishing, stack_profile, stream_profile
from normlab.apps.experiments.measured_sentences import (
    describe_gradient_vanishing,
    theory_deviation,
)
from normlab.apps.experiments.record import DepthProfile, GradientVanishing


def said(numbers: GradientVanishing) -> str:
    return " ".join(describe_gradient_vanishing(numbers))


def changed(numbers: GradientVanishing, profile: DepthProfile) -> GradientVanishing:
    """The numbers with another plain stack."""
    return replace(numbers, stacks=(profile, *numbers.stacks[1:]))


def scaled(profile: DepthProfile, layer: int, factor: float) -> DepthProfile:
    values = {
        name: tuple(v * factor if at == layer else v for at, v in enumerate(getattr(profile, name)))
        for name in ("rms", "std")
    }
    return replace(profile, **values)


def test_numbers_as_theory_has_them_confirm_it_and_the_floor() -> None:
    text = said(gradient_vanishing())
    assert "theory is within 0.0 % of that at every layer" in text
    assert "a floor that the biases hold up (RMS 1/√(5n) = 0.0198)" in text
    assert "right as a number and wrong as a sign of decay: it is 0.0159 there, and 0.0159" in text
    assert "What is lost is information" in text
    assert "falls by ×0.408 a layer" in text
    assert "Kaiming's weights hold both" in text
    assert "layernorm (std 0.58, gradient ×0.70, information 0.24)." in text


def test_a_layer_that_theory_misses_is_named_and_chance_is_told_from_it() -> None:
    off = scaled(stack_profile(), 5, 1.2)
    assert theory_deviation(off) == (1 - 1 / 1.2, 5)
    assert "theory is 17 % off at layer 5 (60 seeds), more than the 5.0 %" in said(
        changed(gradient_vanishing(), off)
    )
    noisy = replace(off, seeds=2, rms_error=(0.1,) * 9)
    assert "2 seeds cannot tell that from chance" in said(changed(gradient_vanishing(), noisy))
    one = replace(off, seeds=1, rms_error=(None,) * 9)
    assert "1 seed cannot tell that from chance" in said(changed(gradient_vanishing(), one))


def test_a_std_that_goes_on_falling_is_no_floor() -> None:
    numbers = gradient_vanishing()
    deep = scaled(numbers.deep, 80, 0.01)
    text = said(replace(numbers, deep=deep))
    assert "goes on falling from there: layer 80 has 1.6e-4" in text
    assert "is right: it is 0.0159 there, and it goes on changing" in text
    assert "floor" not in text


def test_a_floor_that_needs_no_biases_is_not_theirs() -> None:
    numbers = gradient_vanishing()
    bare = replace(numbers.stacks[1], std=numbers.stacks[0].std)
    text = said(replace(numbers, stacks=(numbers.stacks[0], bare, *numbers.stacks[2:])))
    assert "does not change with depth (layer 80 has 0.0159), nor without biases" in text


def test_another_number_at_layer_eight_refutes_the_tutorials() -> None:
    text = said(changed(gradient_vanishing(), scaled(stack_profile(), 8, 2.0)))
    assert "“0.016 at layer 8” is not what is measured: 0.0318" in text


def test_the_tutorials_number_is_not_judged_at_another_width() -> None:
    narrow = tuple(stack_profile(init, width=64) for init in ("PyTorch", "no biases", "Kaiming"))
    assert "tutorial" not in said(replace(gradient_vanishing(), stacks=narrow))


def test_information_and_gradient_that_are_kept_are_said_to_be() -> None:
    kept = replace(stack_profile(), share=(1.0,) + (0.5,) * 8, gradient=(1.0,) * 9)
    text = said(changed(gradient_vanishing(), kept))
    assert "Information is not lost yet: 0.50" in text
    assert "gradient stays by ×1.000 a layer" in text
    lost = replace(stack_profile(), share=(1.0,) + (0.0,) * 8)
    assert "Nothing that float64 could tell" in said(changed(gradient_vanishing(), lost))


def test_a_norm_that_does_not_hold_them_is_told_apart() -> None:
    numbers = gradient_vanishing()
    fallen = replace(numbers.stacks[0], norm="dyt", name="dyt")
    text = said(replace(numbers, stacks=(*numbers.stacks, fallen)))
    assert "do not hold with dyt (std 0.0159, gradient ×7.7e-4, information 6.9e-4)." in text
    bad = replace(numbers.stacks[2], gradient=(0.001,) + (1.0,) * 8)
    text = said(replace(numbers, stacks=(*numbers.stacks[:2], bad, *numbers.stacks[3:])))
    assert "Kaiming's weights do not hold both" in text


def test_the_transformers_say_their_factors_and_what_is_not_finite() -> None:
    text = said(gradient_vanishing())
    assert "by ×128 and ×128 with none; ×1.15 and ×1.15 with rmsnorm · pre" in text
    assert "farther from ×1 than none (×128 and ×128)" in text
    gone = stream_profile("none", "any", 2.0)
    gone = replace(gone, rms=(1.0,) * 8 + (None,), gradient=(None,) * 9)
    text = said(replace(gradient_vanishing(), transformers=(gone,)))
    assert "by not finite and not finite with none" in text
