"""Numbers are those of the samples; and (slow) each suite from the command line to its file."""

import json
from pathlib import Path
from typing import Any

import pytest

import command_suites
import norm_suite
import read_suite
import training_suites
from harness import Samples, Settings
from main import main
from models import NANO, PEERS
from normlab.errors import NormlabError
from report import read_report
from tiny_run import TINY
from training_loops import OPERATORS, classify_operator

QUICKEST = ("--quick", "--rounds", "1", "--threads", "1")


def measure_suite(folder: Path, suite: str, *options: str) -> dict[str, Any]:
    main([suite, *QUICKEST, *options, "--out", str(folder)])
    report = read_report(folder / suite / f"{suite}.json")
    for table in report["result"]["tables"]:
        for row in table["rows"]:
            assert min(number["median"] for number in row["values"].values()) > 0
    assert (folder / suite / f"{suite}.png").stat().st_size > 1000
    result: dict[str, Any] = report["result"]
    return result


def medians_of(result: dict[str, Any], table: int = 0) -> dict[str, dict[str, float]]:
    return {
        row["name"]: {head: number["median"] for head, number in row["values"].items()}
        for row in result["tables"][table]["rows"]
    }


def goals_of(result: dict[str, Any]) -> dict[str, float]:
    return {goal["what"]: goal["value"]["median"] for goal in result["goals"]}


@pytest.mark.slow
def test_step(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(training_suites, "PRECISIONS", {"fp32": "32-true"})
    tutorial = "nn.MultiheadAttention"
    monkeypatch.setattr(training_suites, "PEERS", {tutorial: PEERS[tutorial]})
    result = measure_suite(tmp_path, "step", "--shapes", "tiny")
    rows = medians_of(result)
    names = ("RUN", "PROBED", "LOOP", "LAYERNORM", "MATMULS")
    run, probed, loop, layernorm, matmuls = (getattr(training_suites, name) for name in names)
    assert set(rows) == {run, probed, loop, layernorm, tutorial, matmuls}
    for name, row in rows.items():
        assert row["tokens/s"] * row["ms a step"] == pytest.approx(1000 * 64), name
        assert row["peak memory, MiB"] > 50
    assert rows[matmuls]["share of the matmul limit"] == 1
    assert rows[tutorial]["× fastest peer"] == 1
    overhead = rows[run]["ms a step"] / rows[loop]["ms a step"]
    goals = goals_of(result)
    assert goals["tiny: the whole run over the bare loop, fp32"] == pytest.approx(overhead)


def test_the_goals_of_a_step_are_the_ratios_of_its_samples() -> None:
    """Times as they might be: ours 10 and 20 ms, the fastest peers 30 (bf16) and 44 (fp32)."""
    run, loop, layernorm = training_suites.RUN, training_suites.LOOP, training_suites.LAYERNORM
    times = {"bf16": {run: 10.0, "GPT-2, eager": 30.0, "x-transformers": 31.0}}
    times |= {"fp32": {run: 20.0, "GPT-2, eager": 45.0, "x-transformers": 44.0}}
    for contenders in times.values():
        contenders |= {loop: contenders[run] / 1.02, layernorm: 16.0}
        contenders[training_suites.MATMULS] = 5.0
    samples: Samples = {
        f"{name}, {label}": [{"ms": ms * slow, "rss_mib": 9.0} for slow in (1, 3)]
        for label, contenders in times.items()
        for name, ms in contenders.items()
    }
    samples[training_suites.COPY] = [{"ms": 10.0, "rss_mib": 9.0}]
    result: dict[str, Any] = {"notes": [], "tables": [], "goals": [], "panels": [], "samples": {}}
    training_suites.evaluate_step(result, NANO, samples)
    assert goals_of(result) == {
        f"nano: {what}": pytest.approx(value)
        for what, value in {
            "tokens/s of normlab in bf16 over the fastest peer in fp32": 4.4,
            "tokens/s of normlab in fp32 over x-transformers, fp32": 2.2,
            "tokens/s of normlab in bf16 over GPT-2, eager, bf16": 3.0,
            "the whole run over the bare loop, fp32": 1.02,
            "the whole run over the bare loop, bf16": 1.02,
            "a step with rmsnorm over one with layernorm, fp32": 20 / 1.02 / 16,
            "a step with rmsnorm over one with layernorm, bf16": 10 / 1.02 / 16,
        }.items()
    }
    for goal in result["goals"]:  # whatever the machine did
        assert goal["value"]["low"] == pytest.approx(goal["value"]["high"])
    assert medians_of(result, 1)[run]["share of the matmul limit"] == pytest.approx(0.5)
    assert "it copies 53.7 GB/s" in result["notes"][0]


@pytest.mark.slow
def test_the_shares_of_a_profile_are_those_of_the_step(tmp_path: Path) -> None:
    main(["profile", *QUICKEST, "--shapes", "tiny", "--out", str(tmp_path)])
    result = json.loads((tmp_path / "profile" / "profile.json").read_text())["result"]
    rows = medians_of(result)
    for part in OPERATORS:
        assert sum(rows[name][part] for name in rows) > 0
    for row in rows.values():
        assert sum(row[kind] for kind in OPERATORS) == pytest.approx(100)


def test_operators_have_their_kinds() -> None:
    kinds = {
        "aten::addmm": "products",
        "aten::_scaled_dot_product_flash_attention_for_cpu_backward": "products",
        "aten::gelu_backward": "GELU",
        "aten::_softmax": "softmax",
        "aten::_fused_adamw_": "AdamW and clipping",
        "aten::_foreach_norm": "AdamW and clipping",
        "_KernelFunction": "norms",
        "_KernelFunctionBackward": "norms",
        "aten::native_layer_norm": "norms",
        "aten::copy_": "casts and copies",
        "aten::add": "the rest, small calls",
    }
    assert {operator: classify_operator(operator) for operator in kinds} == kinds


@pytest.mark.slow
def test_norms(tmp_path: Path) -> None:
    result = measure_suite(tmp_path, "norms", "--shapes", "16x16")
    rows = medians_of(result)
    assert {"rmsnorm", "layernorm", "dyt", "F.rms_norm", "nn.LayerNorm", "copy"} < set(rows)
    assert "none" not in rows
    assert list(rows["rmsnorm"]) == ["16x16 fp32", "16x16 bf16"]
    blocks = result["samples"]["1 thread, pages fresh: 16x16 fp32"]
    assert rows["rmsnorm"]["16x16 fp32"] == blocks[0]["rmsnorm"] / blocks[0]["F.layer_norm"]


def test_the_distance_to_the_limit_is_in_five_passes() -> None:
    blocks = [{"rmsnorm": 10.0, "layernorm": 8.0, "F.layer_norm": 5.0, "F.rms_norm": 6.0}]
    blocks[0] |= {"nn.LayerNorm": 5.0, "copy": 2.0}
    samples = {f"1 thread, pages kept: 1024x512 {dtype}": blocks for dtype in norm_suite.DTYPES}
    result = norm_suite.evaluate_norms(samples)
    distances = medians_of(result, 1)["1 thread, pages kept: 1024x512 fp32"]
    assert distances["limit, ms"] == 5.0
    assert distances["rmsnorm"] == 2.0
    goals = goals_of(result)
    assert goals["rmsnorm over F.layer_norm, 1024x512 fp32, 1 thread, pages kept"] == 2.0
    assert goals["slowest other, layernorm, 1024x512 bf16, 1 thread, pages kept"] == 1.6


@pytest.mark.slow
def test_study(tmp_path: Path) -> None:
    result = measure_suite(tmp_path, "study", "--shapes", "tiny")
    study, sequential = medians_of(result).values()
    (over,) = goals_of(result).values()
    assert over == pytest.approx(study["seconds"] / sequential["seconds"])


@pytest.mark.slow
def test_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(
        command_suites, "README_COMMAND", (*command_suites.README_COMMAND, *TINY[:6])
    )
    result = measure_suite(tmp_path, "start")
    rows = medians_of(result)
    assert len(rows) == 7
    assert set(goals_of(result)) == {f"{name}, seconds" for name in command_suites.MOST_SECONDS}


def test_a_folder_without_a_step_has_not_trained(tmp_path: Path) -> None:
    assert not command_suites.has_trained(tmp_path)
    (tmp_path / "events.out.tfevents.1.x").write_bytes(b"")
    assert not command_suites.has_trained(tmp_path)


@pytest.mark.parametrize("reader", read_suite.READERS)
def test_a_reader_gives_each_point_or_is_not_timed(reader: str, tmp_path: Path) -> None:
    if reader == "tbparse":
        pytest.importorskip("tbparse")
    points = read_suite.write_runs(tmp_path, runs=2, steps=20)
    assert points == 2 * 20 * len(read_suite.TAGS)
    block = read_suite.time_reader(str(tmp_path), reader, points)()
    assert block["points"] == points
    with pytest.raises(NormlabError, match=f"{points} of {points + 1} points were read"):
        read_suite.time_reader(str(tmp_path), reader, points + 1)()


def test_the_goals_of_reading_are_the_ratio_to_tbparse_and_what_many_runs_take() -> None:
    samples = {
        "normlab": [{"seconds": 0.5}, {"seconds": 1.0}],
        "tbparse": [{"seconds": 11.0}, {"seconds": 22.0}],
    }
    many = {"normlab, 9 runs": [{"seconds": 9.0, "points": 99, "peak_mib": 1500.0}]}
    result = read_suite.evaluate_read(samples, many, 800, "5 runs of 20 steps")
    assert list(goals_of(result).values()) == [22.0, 9.0, 1500.0]
    assert [(row["name"], row["kind"]) for row in result["tables"][0]["rows"]] == [
        ("normlab", "ours"),
        ("tbparse", "peer"),
    ]
    assert medians_of(result)["normlab"]["points/s"] == 1200.0
    del samples["tbparse"]
    result = read_suite.evaluate_read(samples, many, 800, "5 runs of 20 steps")
    assert len(result["goals"]) == 2
    assert "tbparse is not installed, and left out." in result["notes"]


def test_many_runs_are_written_and_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("STEPS", 10), ("QUICK_RUNS", 2), ("QUICK_MANY_RUNS", 5)):
        monkeypatch.setattr(read_suite, name, value)
    result = read_suite.measure_read(Settings(quick=True))
    assert result["samples"]["normlab, 5 runs"][0]["points"] == 5 * 10 * len(read_suite.TAGS)
    assert result["tables"][0]["title"] == "2 runs of 10 steps and 8 tags"
    assert list(medians_of(result, 1)) == ["normlab, 5 runs"]


def test_the_exponent_of_a_power_law_is_exact() -> None:
    x = [1.0, 2.0, 4.0, 8.0]
    fit = training_suites.fit_exponent(x, [3 * size**1.5 for size in x])
    assert (fit.median, fit.low, fit.high) == pytest.approx((1.5, 1.5, 1.5))


def test_the_interval_holds_the_exponent_and_grows_with_the_noise() -> None:
    x, noise = [1.0, 2.0, 4.0, 8.0, 16.0], [1.05, 0.96, 1.02, 0.95, 1.03]
    y = [size**2 * error for size, error in zip(x, noise, strict=True)]
    fit = training_suites.fit_exponent(x, y)
    assert fit.low < 2 < fit.high
    assert 0.02 < fit.high - fit.low < 0.4


def test_an_axis_changes_one_size_and_keeps_the_width_of_heads() -> None:
    shapes = training_suites.vary_shape("width", (64, 128, 256))
    assert [shape.width for shape in shapes] == [64, 128, 256]
    assert {shape.width // shape.heads for shape in shapes} == {32}
    assert shapes[1] == NANO
    assert {(shape.depth, shape.context, shape.vocabulary) for shape in shapes} == {(4, 64, 65)}


@pytest.mark.slow
def test_scaling(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(training_suites, "AXES", {"depth": ((1, 4), (1, 4))})
    result = measure_suite(tmp_path, "scaling")
    sizes = medians_of(result, 1)
    assert list(sizes) == ["1", "4"]
    assert sizes["1"]["parameters, M"] < sizes["4"]["parameters, M"]
    assert list(medians_of(result)) == ["depth, 1 to 4"]
