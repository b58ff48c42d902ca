import pytest
from matplotlib.figure import Figure

from normlab.analysis.sheet import log_ticks, name_rows


def test_ticks_are_few_and_enough() -> None:
    assert log_ticks(0.9, 1100) == [1, 10, 100, 1000]
    assert log_ticks(9, 55) == [10, 20, 50]
    assert log_ticks(90, 310) == [100, 150, 200, 300]
    assert log_ticks(1e-8, 1e6, most=3) == [1e-8, 1e-3, 100]


@pytest.mark.parametrize("low", [1.01, 2.1, 5.2, 0.0083])
@pytest.mark.parametrize("ratio", [1.02, 1.3, 2.0, 9.9, 12.0, 1e5])
def test_there_are_two_ticks_at_least_and_never_too_many(low: float, ratio: float) -> None:
    for most in (3, 6):
        ticks = log_ticks(low, low * ratio, fewest=2, most=most)
        assert 2 <= len(ticks) <= most
        assert all(low <= tick <= low * ratio for tick in ticks)


def test_names_of_rows_lose_common_parts_before_they_are_cut() -> None:
    axes = Figure().add_subplot()
    long = [f"layernorm · pre · depth={depth} · warmup=0.2" for depth in (4, 16)]
    name_rows(axes, [*long, "layernorm · post"], 1.8)
    shown = [label.get_text() for label in axes.get_yticklabels()]
    assert shown == ["pre · depth=4 · warmup=0.2", "pre · depth=16 · warmup=0.2", "post"]
    name_rows(axes, ["layernorm · pre", "layernorm · post"], 1.8)
    assert axes.get_yticklabels()[0].get_text() == "layernorm · pre"
    name_rows(axes, long[:1], 1.0)
    assert "…" in axes.get_yticklabels()[0].get_text()
