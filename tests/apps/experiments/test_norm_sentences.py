"""The paragraph of layernorm_vs_rmsnorm follows its numbers: other numbers, other sentences."""

from dataclasses import replace

from example_measurements import norm_comparison, norm_times, normalized_input
from normlab.apps.experiments.layernorm_vs_rmsnorm import LayerNormVsRmsNorm, NormTimes


def said(numbers: LayerNormVsRmsNorm) -> str:
    return " ".join(numbers.write_sentences())


def both(way: str, layer: float, rms: float, width: int = 512) -> list[NormTimes]:
    return [norm_times(way, "layernorm", layer, width), norm_times(way, "rmsnorm", rms, width)]


def test_what_each_does_to_a_token() -> None:
    text = said(norm_comparison())
    assert (
        "LayerNorm's output has a mean of at most 0.00, and a cosine with its input of at least "
        "0.45." in text
    )
    assert (
        "RMSNorm's output has a mean of at most 1.00, and a cosine with its input of at least "
        "1.00." in text
    )
    assert "Their outputs differ by 0.0 % (mean 0) and 105 % (mean 2)." in text
    other = norm_comparison()
    turned = replace(
        normalized_input("mean 2", 2.0, 1.05), cosine={"layernorm": 1.0, "rmsnorm": 0.3}
    )
    text = said(replace(other, inputs=(turned,)))
    assert "mean of at most 0.00, and a cosine with its input of at least 1.00." in text
    assert "mean of at most 1.00, and a cosine with its input of at least 0.30." in text
    assert "(mean 0)" not in text


def test_what_neither_output_depends_on_and_what_one_does() -> None:
    text = said(norm_comparison())
    assert "Neither output depends on weight scale (N((cW)h) = N(Wh)): it changes by" in text
    assert "at most 1.0e-15 RMS at eps=0, by 6.0e-4 with the default eps" in text
    assert (
        "The output of RMSNorm alone depends on weight shift (N((W + 1cᵀ)h) = N(Wh)): it changes "
        "by at most 5.00 RMS at eps=0" in text
    )
    swapped = norm_comparison()
    names = {"layernorm": "rmsnorm", "rmsnorm": "layernorm"}
    invariances = {
        key.replace(norm, names[norm]): several
        for key, several in swapped.invariances.items()
        for norm in [key.split()[0]]
    }
    text = said(replace(swapped, invariances=invariances))
    assert "The output of LayerNorm alone depends on weight shift" in text


def test_the_parameters_and_their_bytes() -> None:
    text = said(norm_comparison())
    assert "LayerNorm learns 1,024 numbers (4,096 bytes) and RMSNorm learns 512" in text


def test_the_tutorials_speed_is_held_against_every_comparison() -> None:
    text = said(norm_comparison())
    assert "0.80 in normlab's kernels, 4.00 in torch's functions and 0.50 written out" in text
    comparisons = (
        "Of 6 comparisons within one implementation RMSNorm is faster in 4 and slower in 2;"
    )
    assert f"{comparisons} in 0 the" in text
    assert "In 4 it takes 7–64 % less time, the range that the RMSNorm paper measured" in text
    assert (
        "factor of 68; within one implementation the largest, forward or with backward, is ×2.00"
        in text
    )


def test_the_papers_range_is_a_share_of_the_time_saved() -> None:
    within = norm_comparison([*both("torch", 1.0, 0.92), *both("fused", 1.0, 0.37)])
    assert "faster in 2 and slower in 0;" in said(within)
    assert "In 2 it takes 7–64 % less time" in said(within)
    outside = norm_comparison([*both("torch", 1.0, 0.94), *both("fused", 1.0, 0.35)])
    assert "faster in 2 and slower in 0;" in said(outside)
    assert "In 0 it takes 7–64 % less time" in said(outside)
    slower = norm_comparison(both("torch", 1.0, 2.0))
    assert "faster in 0 and slower in 1; in 0 the quartiles" in said(slower)
    assert "In 0 it takes 7–64 % less time" in said(slower)


def test_what_the_rounds_cannot_tell_is_said_so() -> None:
    noisy = replace(norm_times("torch", "rmsnorm", 1.0), both=(0.95, 1.05) * 7 + (1.0,))
    text = said(norm_comparison([norm_times("torch", "layernorm", 1.0), noisy]))
    assert "faster in 0 and slower in 0; in 1 the quartiles of 15 rounds cannot tell" in text


def test_times_that_vary_over_the_measurement_are_in_no_sentence() -> None:
    noisy = norm_times("torch", "rmsnorm", 1.0)
    noisy = replace(noisy, both=(1.0,) * 8 + (1.5,) * 7, forward=(1e-4,) * 8 + (1.0,) * 7)
    text = said(
        norm_comparison([norm_times("torch", "layernorm", 1.0), noisy, *both("fused", 1.0, 0.8)])
    )
    assert "1 of 2 comparisons of times are not comparable" in text
    assert "Of 1 comparisons within one implementation RMSNorm is faster in 1" in text
    assert "×1.25" in text  # and not the 10,000 of the first rounds
    only = said(norm_comparison([norm_times("torch", "layernorm", 1.0), noisy]))
    assert "not comparable" in only
    assert "faster in" not in only


def test_the_scripts_factor_is_beside_the_largest_of_any_comparison() -> None:
    fast = norm_comparison(both("torch", 68.0, 1.0))
    assert (
        "a factor of 68; within one implementation the largest, forward or with backward, is ×68"
        in said(fast)
    )
    assert "x.var" not in said(fast)
    naive = [norm_times("x.var", "layernorm", 90.0, forward=150.0), *both("composite", 6.0, 3.0)]
    text = said(norm_comparison([*both("torch", 1.0, 4.0), *naive]))
    assert "with x.var the written-out RMSNorm is up to ×150 faster forward, ×30 with" in text


def test_a_way_that_was_not_timed_says_why() -> None:
    text = said(
        replace(norm_comparison(), not_timed={"compiled": "torch.compile does not work here"})
    )
    assert "with torch.compile: not timed, torch.compile does not work here." in text
