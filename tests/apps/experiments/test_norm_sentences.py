"""The paragraph of layernorm_vs_rmsnorm follows its numbers: other numbers, other sentences."""

from dataclasses import replace

from example_measurements import norm_comparison, norm_times, normalized_input
from normlab.apps.experiments.measured_sentences import describe_layernorm_vs_rmsnorm
from normlab.apps.experiments.record import LayerNormVsRmsNorm, NormTimes


def said(numbers: LayerNormVsRmsNorm) -> str:
    return " ".join(describe_layernorm_vs_rmsnorm(numbers))


def both(way: str, layer: float, rms: float, width: int = 512) -> list[NormTimes]:
    return [norm_times(way, "layernorm", layer, width), norm_times(way, "rmsnorm", rms, width)]


def test_what_each_does_to_a_token() -> None:
    text = said(norm_comparison())
    assert (
        "LayerNorm takes the mean out of every input and turns tokens (cosine down to 0.45)" in text
    )
    assert "RMSNorm leaves a mean of up to 1.00 and keeps every token's direction" in text
    assert "the same for inputs of mean 0, and apart by 105 % (mean 2)" in text
    other = norm_comparison()
    turned = replace(
        normalized_input("mean 2", 2.0, 1.05), cosine={"layernorm": 1.0, "rmsnorm": 0.3}
    )
    text = said(replace(other, inputs=(turned,)))
    assert "LayerNorm takes the mean out of every input and keeps every token's direction" in text
    assert "turns tokens (cosine down to 0.30)" in text
    assert "the same for" not in text


def test_what_neither_feels_and_what_one_does() -> None:
    text = said(norm_comparison())
    assert "Neither feels weight scale (N((cW)h) = N(Wh)): at eps=0" in text
    assert "with the default eps by 6.0e-4" in text
    assert (
        "RMSNorm alone feels weight shift (N((W + 1cᵀ)h) = N(Wh)): its output changes by 5.00"
        in text
    )
    swapped = norm_comparison()
    names = {"layernorm": "rmsnorm", "rmsnorm": "layernorm"}
    invariances = {
        key.replace(norm, names[norm]): several
        for key, several in swapped.invariances.items()
        for norm in [key.split()[0]]
    }
    text = said(replace(swapped, invariances=invariances))
    assert "LayerNorm alone feels weight shift" in text


def test_the_parameters_and_their_bytes() -> None:
    text = said(norm_comparison())
    assert "LayerNorm learns 1,024 numbers (4,096 bytes) and RMSNorm learns 512" in text


def test_the_tutorials_speed_is_held_against_every_comparison() -> None:
    text = said(norm_comparison())
    assert "0.80 in normlab's kernels, 4.00 in torch's functions and 0.50 written out" in text
    assert "Of 6 comparisons like for like RMSNorm is faster in 4 and slower in 2" in text
    assert "“7–64 % faster” fits 2 of them" in text
    assert "factor of 68; like for like the largest, forward or with backward, is ×2.00" in text


def test_it_holds_where_all_are_within_and_fits_none_where_none_is() -> None:
    within = norm_comparison([*both("torch", 1.0, 0.8), *both("fused", 1.0, 0.7)])
    assert "“7–64 % faster” holds for all of them" in said(within)
    slower = norm_comparison(both("torch", 1.0, 2.0))
    assert "faster in 0 and slower in 1; the tutorial's “7–64 % faster” fits none" in said(slower)


def test_what_the_rounds_cannot_tell_is_said_so() -> None:
    noisy = replace(norm_times("torch", "rmsnorm", 1.0), both=(0.95, 1.05) * 7 + (1.0,))
    text = said(norm_comparison([norm_times("torch", "layernorm", 1.0), noisy]))
    assert "faster in 0, slower in 0 and in 1 the quartiles of 15 rounds cannot tell" in text


def test_times_that_vary_over_the_measurement_are_in_no_sentence() -> None:
    noisy = norm_times("torch", "rmsnorm", 1.0)
    noisy = replace(noisy, both=(1.0,) * 8 + (1.5,) * 7, forward=(1e-4,) * 8 + (1.0,) * 7)
    text = said(
        norm_comparison([norm_times("torch", "layernorm", 1.0), noisy, *both("fused", 1.0, 0.8)])
    )
    assert "1 of 2 comparisons of times are not comparable" in text
    assert "Of 1 comparisons like for like RMSNorm is faster in 1" in text
    assert "×1.25" in text  # and not the 10,000 of the first rounds
    only = said(norm_comparison([norm_times("torch", "layernorm", 1.0), noisy]))
    assert "not comparable" in only
    assert "faster in" not in only


def test_a_factor_like_the_scripts_is_admitted_where_it_is_measured() -> None:
    fast = norm_comparison(both("torch", 68.0, 1.0))
    assert "like for like ×68 is reached" in said(fast)
    naive = [norm_times("x.var", "layernorm", 90.0, forward=150.0), *both("composite", 6.0, 3.0)]
    text = said(norm_comparison([*both("torch", 1.0, 4.0), *naive]))
    assert "with x.var comes near it: the written-out RMSNorm is up to ×150" in text
    near = [norm_times("x.var", "layernorm", 7.0), *both("composite", 6.0, 3.0)]
    assert "with x.var is not so slow either" in said(
        norm_comparison([*both("torch", 1.0, 4.0), *near])
    )


def test_a_way_that_was_not_timed_says_why() -> None:
    text = said(
        replace(norm_comparison(), not_timed={"compiled": "torch.compile does not work here"})
    )
    assert "with torch.compile: not timed, torch.compile does not work here." in text
