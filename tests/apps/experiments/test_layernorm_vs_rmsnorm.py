"""What LayerNorm and RMSNorm do, against formulas; and that every way computes the same norm."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from normlab.apps.experiments import layernorm_vs_rmsnorm_measurement
from normlab.apps.experiments.layernorm_vs_rmsnorm_measurement import (
    distribution_moments,
    measure_invariances,
    normalize_inputs,
    time_norms,
)


def test_layernorm_takes_the_mean_out_and_rmsnorm_keeps_the_direction() -> None:
    for shown in normalize_inputs(32, 64, 0):
        layer, rms = shown.after["layernorm"], shown.after["rmsnorm"]
        assert layer.mean == pytest.approx(0, abs=1e-9)
        assert layer.rms == pytest.approx(1, rel=1e-3)
        assert rms.rms == pytest.approx(1, rel=1e-3)
        assert shown.cosine["rmsnorm"] == pytest.approx(1)
        square = shown.before.mean**2 + shown.before.std**2
        assert shown.before.rms == pytest.approx(math.sqrt(square), rel=1e-3)


def test_they_are_the_same_where_the_mean_is_zero_and_a_known_angle_apart_elsewhere() -> None:
    found = {one.input: one for one in normalize_inputs(512, 256, 0)}
    assert found["mean 0"].apart < 1e-12
    shifted = found["mean 2"]
    # A token of mean m and variance 1: cos of x and x − m is 1/√(1 + m²).
    assert shifted.cosine["layernorm"] == pytest.approx(1 / math.sqrt(5), rel=0.02)
    assert shifted.after["rmsnorm"].mean == pytest.approx(2 / math.sqrt(5), rel=0.02)
    # ‖x/√5 − (x − 2)‖² of unit vectors at that angle, a feature: 2 − 2 cos.
    assert shifted.apart == pytest.approx(math.sqrt(2 - 2 / math.sqrt(5)), rel=0.02)


def test_the_bins_hold_what_is_within_them() -> None:
    torch.manual_seed(0)
    x = torch.randn(50, 40, dtype=torch.float64) * 3
    edges = torch.linspace(-4, 6, 51, dtype=torch.float64)
    found = distribution_moments(x, edges)
    counts, _ = np.histogram(x.numpy().ravel(), edges.numpy())
    assert found.shares == pytest.approx(counts / x.numel())
    assert sum(found.shares) < 1


def test_both_are_blind_to_scales_and_layernorm_alone_to_shifts() -> None:
    verdicts = {
        key: {one.name: one.verdict for one in several}
        for key, several in measure_invariances(16).items()
    }
    blind = {"input scale": "yes", "weight scale": "yes"}
    shifts = {"input shift", "weight shift"}
    assert verdicts["layernorm eps=0"] == blind | dict.fromkeys(shifts, "yes")
    assert verdicts["rmsnorm eps=0"] == blind | dict.fromkeys(shifts, "no")
    for norm in ("layernorm", "rmsnorm"):
        assert verdicts[norm]["input scale"] == verdicts[norm]["weight scale"] == "to eps"


def test_what_is_timed_is_the_norm() -> None:
    x, gain, bias = torch.randn(8, 16), torch.randn(16), torch.randn(16)
    layer = F.layer_norm(x, (16,), gain, bias, layernorm_vs_rmsnorm_measurement.EPS)
    for written in (
        layernorm_vs_rmsnorm_measurement.layer_norm,
        layernorm_vs_rmsnorm_measurement.naive_layer_norm,
    ):
        assert torch.allclose(written(x, gain, bias), layer, atol=1e-5)
    assert torch.allclose(
        layernorm_vs_rmsnorm_measurement.rms_norm(x, gain),
        F.rms_norm(x, (16,), gain, layernorm_vs_rmsnorm_measurement.EPS),
        atol=1e-5,
    )


def broken(*_: object, **__: object) -> None:
    raise RuntimeError("no C++ compiler\nanywhere")


def test_without_a_compiler_the_rest_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", broken)
    told: list[str] = []
    found, not_timed = time_norms([(4, 8), (4, 16)], 2, 0, told.append)
    ways = {(one.way, one.norm, one.width) for one in found}
    both = {"fused", "torch", "composite"}
    expected = {
        (way, norm, width) for way in both for norm in ("layernorm", "rmsnorm") for width in (8, 16)
    }
    assert ways == expected | {("x.var", "layernorm", 8), ("x.var", "layernorm", 16)}
    assert all(len(one.forward) == len(one.both) == 2 for one in found)
    assert min(min(one.both + one.forward) for one in found) > 0
    assert not_timed == {
        "compiled": "torch.compile does not work here (RuntimeError: no C++ compiler anywhere)"
    }
    assert len(told) == 2 * (1 + 2)


@pytest.mark.slow
def test_compiled_norms_are_timed_where_there_is_a_compiler() -> None:
    found, not_timed = time_norms([(4, 8)], 2, 0, lambda _: None)
    assert not_timed or {one.norm for one in found if one.way == "compiled"} == {
        "layernorm",
        "rmsnorm",
    }
