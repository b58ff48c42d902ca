"""Each suite from the command line to its file, on the smallest that it can measure."""

from pathlib import Path

import pytest

from normlab.analysis.spread import spread
from normlab.bench import norms, profile, profiling, start, step
from normlab.bench.command import Command, trained
from normlab.bench.main import main
from normlab.bench.peers import PEERS
from normlab.bench.result import Goal, Report, Row
from normlab.bench.shapes import NANO
from normlab.errors import NormlabError
from tiny import TINY

ONCE = ("--quick", "--rounds", "1", "--threads", "1")


def measured(folder: Path, suite: str, *more: str) -> Report:
    main([suite, *ONCE, *more, "--out", str(folder)])
    report = Report.read(folder / suite / f"{suite}.json")
    numbers = [
        value.median
        for table in report.result.tables
        for row in table.rows
        for value in row.values.values()
    ]
    assert numbers
    assert min(numbers) > 0
    assert (folder / suite / f"{suite}.png").stat().st_size > 1000
    return report


def rows(report: Report, table: int = 0) -> dict[str, Row]:
    return {row.name: row for row in report.result.tables[table].rows}


@pytest.mark.slow
def test_a_step(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(step, "PRECISIONS", {"fp32": "32-true"})
    tutorial = "nn.MultiheadAttention"
    monkeypatch.setattr(step, "PEERS", {tutorial: PEERS[tutorial]})
    report = measured(tmp_path, "step", "--shapes", "tiny")
    found = rows(report)
    assert set(found) == {step.RUN, step.PROBED, step.LOOP, step.LAYERNORM, tutorial, step.MATMULS}
    for name, row in found.items():
        speed, time = row.values["tokens/s"], row.values["ms a step"]
        assert speed.median * time.median == pytest.approx(1000 * 64), name
        assert row.values["peak memory, MiB"].median > 50
    assert found[step.MATMULS].values["share of the matmul limit"].median == 1
    assert found[tutorial].values["× fastest peer"].median == 1
    samples = report.result.samples
    (run,), (bare,) = samples["tiny: normlab, fp32"], samples["tiny: our model, bare loop, fp32"]
    (overhead,) = [goal for goal in report.result.goals if "the whole run over" in goal.what]
    assert overhead.value.median == pytest.approx(run["ms"] / bare["ms"])


@pytest.mark.slow
def test_a_profile_shares_a_whole_step(tmp_path: Path) -> None:
    main(["profile", *ONCE, "--shapes", "tiny", "--out", str(tmp_path)])
    found = rows(Report.read(tmp_path / "profile" / "profile.json"))
    for name in ("tiny fp32", "tiny bf16"):
        shares = [row.values[name].median for key, row in found.items() if key != profile.STEP]
        assert sum(shares) == pytest.approx(100)
        for part in ("products, %", "norms, %", "AdamW and clipping, %", profile.STEP):
            assert found[part].values[name].median > 0


def test_operators_go_into_their_groups() -> None:
    groups = {
        "aten::addmm": "products",
        "aten::_scaled_dot_product_flash_attention_for_cpu_backward": "products",
        "aten::gelu_backward": "GELU",
        "aten::_softmax": "softmax",
        "aten::_fused_adamw_": "AdamW and clipping",
        "aten::_foreach_norm": "AdamW and clipping",
        "_FusedNorm": "norms",
        "_FusedNormBackward": "norms",
        "aten::native_layer_norm": "norms",
        "aten::copy_": "casts and copies",
        "aten::add": profiling.REST,
    }
    assert {operator: profiling.group(operator) for operator in groups} == groups


def test_the_goals_of_a_step_are_the_ratios_of_its_samples() -> None:
    """Times as they might be: ours 10 and 20 ms, the fastest peers 30 (bf16) and 44 (fp32)."""
    times = {"bf16": {step.RUN: 10.0, "GPT-2, eager": 30.0, "x-transformers": 31.0}}
    times |= {"fp32": {step.RUN: 20.0, "GPT-2, eager": 45.0, "x-transformers": 44.0}}
    for found in times.values():
        found |= {step.LOOP: found[step.RUN] / 1.02, step.LAYERNORM: 16.0, step.MATMULS: 5.0}
    samples = {
        f"{name}, {label}": [{"ms": ms * slow, "rss_mib": 9.0, "gflops": 7.0} for slow in (1, 3)]
        for label, found in times.items()
        for name, ms in found.items()
    }
    samples[step.COPY] = [{"gb_per_second": 10.0}]
    result = step.evaluated(NANO, samples)
    found = {goal.what.removeprefix("nano: "): goal for goal in result.goals}
    expected = {
        "tokens/s of normlab in bf16 over the fastest peer in fp32": (4.4, True),
        "tokens/s of normlab in fp32 over x-transformers, fp32": (2.2, True),
        "tokens/s of normlab in bf16 over GPT-2, eager, bf16": (3.0, True),
        "the whole run over the bare loop, fp32": (1.02, True),
        "the whole run over the bare loop, bf16": (1.02, True),
        "a step with rmsnorm over one with layernorm, fp32": (20 / 1.02 / 16, False),
        "a step with rmsnorm over one with layernorm, bf16": (10 / 1.02 / 16, True),
    }
    assert set(found) == set(expected)
    for what, (value, reached) in expected.items():
        goal: Goal = found[what]
        assert (goal.value.median, goal.reached) == (pytest.approx(value), reached), what
        assert goal.value.low == pytest.approx(goal.value.high)  # whatever the machine did
    shares = {row.name: row.values["share of the matmul limit"] for row in result.tables[1].rows}
    assert shares[step.RUN].median == pytest.approx(0.5)


@pytest.mark.slow
def test_norms(tmp_path: Path) -> None:
    report = measured(tmp_path, "norms", "--shapes", "16x16")
    found = rows(report)
    assert set(norms.configurations()) < set(found)
    assert {"F.rms_norm", "nn.LayerNorm", "copy", "F.layer_norm, ms"} < set(found)
    assert "none" not in found
    assert list(found["rmsnorm"].values) == ["16x16 fp32", "16x16 bf16"]
    ((case, rounds), *_) = report.result.samples.items()
    assert case == "1 thread, pages fresh: 16x16 fp32"
    ratio = rounds[0]["rmsnorm"] / rounds[0]["F.layer_norm"]
    assert found["rmsnorm"].values["16x16 fp32"] == spread([ratio])
    assert found["copy"].values["16x16 fp32"].median < 1  # a copy is less than any norm


def test_the_distance_to_the_limit_is_in_five_passes() -> None:
    rounds = [{"rmsnorm": 10.0, "layernorm": 8.0, "F.layer_norm": 5.0, "F.rms_norm": 6.0}]
    rounds[0] |= {"nn.LayerNorm": 5.0, "copy": 2.0}
    setup = norms.Setup(1, "pages kept")
    kept = {f"{setup}: 1024x512 {dtype}": rounds for dtype in norms.DTYPES}
    result = norms.evaluated(kept, [setup], ["1024x512"])
    distances = result.tables[-1].rows[0].values
    assert distances["limit, ms"].median == 5.0
    assert distances["rmsnorm"].median == 2.0
    goals = {goal.what: (goal.value.median, goal.reached) for goal in result.goals}
    assert goals["rmsnorm over F.layer_norm, 1024x512 fp32, 1 thread, pages kept"] == (2.0, False)
    other = "slowest other, layernorm, 1024x512 bf16, 1 thread, pages kept"
    assert goals[other] == (pytest.approx(1.6), True)


@pytest.mark.slow
def test_a_study(tmp_path: Path) -> None:
    report = measured(tmp_path, "study", "--shapes", "tiny")
    study, one_by_one = report.result.tables[0].rows
    (goal,) = report.result.goals
    seconds = study.values["seconds"].median / one_by_one.values["seconds"].median
    assert goal.value.median == pytest.approx(seconds)


@pytest.mark.slow
def test_the_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    whole = start.contenders

    def some(study: Path, threads: int | None) -> list[Command]:
        return [one for one in whole(study, threads) if one.name in (start.HELP, start.FIRST)]

    monkeypatch.setattr(start, "contenders", some)
    monkeypatch.setattr(start, "WARM_UP", 0)
    monkeypatch.setattr(start, "SENTENCE", (*start.SENTENCE, *TINY[:6]))
    monkeypatch.setattr(start, "_study", lambda folder: folder)
    found = rows(measured(tmp_path, "start"))
    helped, first = (found[name].values["seconds"].median for name in (start.HELP, start.FIRST))
    assert helped < first


def test_a_command_is_timed_from_start_to_end() -> None:
    seconds = Command("sleep", ["-c", "import time; time.sleep(0.3)"]).block()["seconds"]
    assert 0.3 < seconds < 10


def test_a_command_must_end_as_it_should() -> None:
    words = ["-c", "import sys; print('this is why'); sys.exit(3)"]
    Command("refuses", words, code=3).block()
    with pytest.raises(NormlabError, match="refuses ended with code 3: this is why"):
        Command("refuses", words).block()


def test_a_command_is_ended_when_what_it_waits_for_is_there() -> None:
    code = "import pathlib, time; pathlib.Path(r'{folder}', 'there').touch(); time.sleep(60)"
    waiting = Command("waits", ["-c", code], until=lambda folder: (folder / "there").exists())
    assert waiting.block()["seconds"] < 30


def test_a_command_that_ends_before_is_no_time() -> None:
    waiting = Command("waits", ["-c", "pass"], until=lambda folder: False)
    with pytest.raises(NormlabError, match="waits ended with code 0"):
        waiting.block()


def test_a_folder_without_a_step_has_none(tmp_path: Path) -> None:
    assert not trained(tmp_path)
    (tmp_path / "events.out.tfevents.1.x").write_bytes(b"")
    assert not trained(tmp_path)
