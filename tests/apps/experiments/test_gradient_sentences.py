"""The paragraph of gradient_vanishing follows its numbers: other numbers, other sentences."""

from dataclasses import replace

from example_measurements import gradient_vanishing, stack_profile, stream_profile
from normlab.apps.experiments.gradient_vanishing import (
    DepthProfile,
    GradientVanishing,
    theory_deviation,
)


def said(numbers: GradientVanishing) -> str:
    return " ".join(numbers.write_sentences())


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
    assert "from 1 at the input to 0.0159 at layer 8; theory differs most" in text
    assert "by 0.0 % (60 seeds, standard error 0.5 %)" in text
    assert "With further depth it does not change: layer 80 has 0.0159." in text
    assert "the biases hold an RMS of 1/√(5n) = 0.0198" in text
    assert (
        "“0.016 at layer 8” is measured, but is no sign of decay: the std is 0.0159 there and "
        "0.0159 at layer 80." in text
    )
    assert "6.9e-4 of the variance at layer 8 depends on the input (theory 6.9e-4)" in text
    assert "changes by ×0.408 a layer (theory 0.408), ×7.7e-4 over all 8" in text
    assert "With Kaiming's weights the std is 0.83 to 0.83, the gradient changes by ×1.00" in text
    assert "stay within a factor of 2 with rmsnorm (std 0.58," in text
    assert "layernorm (std 0.58, gradient ×0.70, information 0.24)." in text


def test_a_layer_that_theory_misses_is_named_with_the_error_of_its_measurement() -> None:
    off = scaled(stack_profile(), 5, 1.2)
    assert theory_deviation(off) == (1 - 1 / 1.2, 5)
    text = said(changed(gradient_vanishing(), off))
    assert "differs most at layer 5, by 17 % (60 seeds, standard error 0.5 %)" in text
    noisy = replace(off, seeds=2, rms_error=(0.1,) * 9)
    text = said(changed(gradient_vanishing(), noisy))
    assert "by 17 % (2 seeds, standard error 10 %)" in text
    one = replace(off, seeds=1, rms_error=(None,) * 9)
    assert "by 17 % (1 seed, standard error unknown)" in said(changed(gradient_vanishing(), one))


def test_a_std_that_goes_on_falling_is_no_floor() -> None:
    numbers = gradient_vanishing()
    deep = scaled(numbers.deep, 80, 0.01)
    text = said(replace(numbers, deep=deep))
    assert "With further depth it changes: layer 80 has 1.6e-4" in text
    assert "is measured, and it goes on changing: the std is 0.0159 there and 1.6e-4" in text


def test_a_floor_that_needs_no_biases_shows_it() -> None:
    numbers = gradient_vanishing()
    bare = replace(numbers.stacks[1], std=numbers.stacks[0].std)
    text = said(replace(numbers, stacks=(numbers.stacks[0], bare, *numbers.stacks[2:])))
    assert "does not change: layer 80 has 0.0159. Without biases layer 8 has 0.0159;" in text
    assert "Without biases layer 8 has 6.4e-4;" in said(numbers)


def test_another_number_at_layer_eight_refutes_the_tutorials() -> None:
    text = said(changed(gradient_vanishing(), scaled(stack_profile(), 8, 2.0)))
    assert "“0.016 at layer 8” is not what is measured: the std is 0.0318 there" in text


def test_the_tutorials_number_is_not_judged_at_another_width() -> None:
    narrow = tuple(stack_profile(init, width=64) for init in ("PyTorch", "no biases", "Kaiming"))
    assert "tutorial" not in said(replace(gradient_vanishing(), stacks=narrow))


def test_the_share_from_the_input_and_the_gradient_are_those_of_the_last_layer() -> None:
    kept = replace(stack_profile(), share=(1.0,) + (0.5,) * 8, gradient=(1.0,) * 9)
    text = said(changed(gradient_vanishing(), kept))
    assert "0.50 of the variance at layer 8 depends on the input (theory 6.9e-4)" in text
    assert "changes by ×1.000 a layer (theory 0.408), ×1.00 over all 8" in text
    lost = replace(stack_profile(), share=(1.0,) + (0.0,) * 8)
    assert "Nothing that float64 could tell" in said(changed(gradient_vanishing(), lost))


def test_a_norm_that_does_not_preserve_them_is_in_a_sentence_of_its_own() -> None:
    numbers = gradient_vanishing()
    fallen = replace(numbers.stacks[0], norm="dyt", name="dyt")
    text = said(replace(numbers, stacks=(*numbers.stacks, fallen)))
    assert (
        "std and gradient do not stay within a factor of 2 with dyt (std 0.0159, gradient ×7.7e-4, "
        "information 6.9e-4)." in text
    )
    assert "do not stay" not in said(numbers)
    bad = replace(numbers.stacks[2], gradient=(0.001,) + (1.0,) * 8)
    text = said(replace(numbers, stacks=(*numbers.stacks[:2], bad, *numbers.stacks[3:])))
    assert (
        "With Kaiming's weights the std is 0.83 to 0.83, the gradient changes by ×0.00100" in text
    )


def test_the_transformers_say_their_factors_and_what_is_not_finite() -> None:
    text = said(gradient_vanishing())
    assert "by ×128 and ×128 with none; ×1.15 and ×1.15 with rmsnorm · pre" in text
    assert "the largest change is ×128 and ×128 with none." in text
    gone = stream_profile("none", "any", 2.0)
    gone = replace(gone, rms=(1.0,) * 8 + (None,), gradient=(None,) * 9)
    text = said(replace(gradient_vanishing(), transformers=(gone,)))
    assert "by not finite and not finite with none" in text
