"""scripts/probe.py from the command line to the files, and what it gives to Python."""

import json
import math
from pathlib import Path

import pytest

from command_calls import Call, make_command_caller, read_refusal
from normlab.apps.probe.main import main, probe_models
from normlab.apps.probe.record import ModelSlope, ProbedModel, ProbeResult, feedforward_site
from normlab.apps.probe.slopes import GRADIENT_DECAY, LAST_GRADIENT, STREAM_GROWTH, fit_slopes
from normlab.archive.versioned_json import restore_value

ROOT = Path(__file__).resolve().parents[3]
SMALL = ("model.width=16", "model.heads=2", "model.context=8", "data.batch_size=2")


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture) -> Call:
    return make_command_caller(main, tmp_path, monkeypatch, capfd)


@pytest.fixture
def without_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("normlab.apps.probe.figure.draw_probes", lambda *_: [Path("none.png")])


def read_result() -> ProbeResult:
    raw = json.loads(Path("here/probe.json").read_text())
    result: ProbeResult = restore_value(ProbeResult, raw)
    return result


def test_models_become_a_table_numbers_with_slopes_and_a_figure(call: Call) -> None:
    asked = ("norm=rmsnorm,none", "placement=pre,post", "model.depth=1,2", "seed=0,1", *SMALL)
    code, out, err = call(*asked, "--out", "here")
    assert (code, err) == (0, "")
    folder = Path("here")
    assert sorted(path.name for path in folder.iterdir()) == [
        "probe.json",
        "probe.png",
        "probe.svg",
    ]
    probing = read_result()
    # Without a norm, pre and post are one network.
    assert probing.arms == ["rmsnorm · pre", "rmsnorm · post", "none"]
    assert [(one.depth, one.seed) for one in probing.models_of("none")] == [
        (1, 0),
        (1, 1),
        (2, 0),
        (2, 1),
    ]
    for arm in probing.arms:
        slope = probing.slope(arm, LAST_GRADIENT)
        assert slope is not None
        assert slope.half is not None
        a, b = (
            one.value("gradient_norm", feedforward_site(one.depth))
            for one in probing.models_of(arm)[::2]
        )
        assert slope.seeds[0] == pytest.approx(math.log(b / a) / math.log(2))
        assert arm in out
    assert json.loads((folder / "probe.json").read_text())["overrides"] == list(asked)
    drawn = (folder / "probe.svg").read_text()
    assert "rmsnorm · post: slope" in drawn
    assert f"figure   {folder / 'probe.png'}" in out


@pytest.mark.usefixtures("without_figure")
def test_python_gets_the_same_numbers_and_other_settings_name_arms(call: Call) -> None:
    asked = ["model.init.std=0.02,0.2", "seed=3", "model.depth=1", *SMALL]
    call(*asked, "--out", "here")
    probing = probe_models(asked)
    assert probing == read_result()
    assert probing.arms == ["rmsnorm · pre · std=0.02", "rmsnorm · pre · std=0.2"]
    assert probing.slope(probing.arms[0], LAST_GRADIENT) is None  # of one depth
    assert all(one.half is None for one in probing.slopes)  # of one seed
    small, large = (
        probing.models_of(arm)[0].value("stream_rms", "embedding") for arm in probing.arms
    )
    assert large / small == pytest.approx(10, rel=1e-3)


def test_a_key_written_with_pluses_names_arms_too() -> None:
    probing = probe_models(["++model.init.std=0.02,0.2", "++seed=0,1", "++model.depth=1", *SMALL])
    assert probing.arms == ["rmsnorm · pre · std=0.02", "rmsnorm · pre · std=0.2"]
    assert [model.seed for model in probing.models_of(probing.arms[0])] == [0, 1]


def test_what_has_no_interval_or_is_not_finite_says_so(call: Call) -> None:
    code, out, _ = call(
        "norm=none", "model.init.std=1e30", "model.depth=1", *SMALL, "--out", "here"
    )
    assert code == 0
    assert "not finite" in out
    assert "nan" not in out
    assert "One seed, so no interval." in out
    assert "±" not in out


def test_slopes_are_those_of_powers_and_of_factors() -> None:
    def one(depth: int, seed: int) -> ProbedModel:
        sites = [feedforward_site(block) for block in range(1, depth + 1)]
        gradients = [depth**-0.5 * 0.8 ** (depth - l) * (1 + seed) for l in range(1, depth + 1)]
        values = {
            "gradient_norm": dict(zip(sites, gradients, strict=True)),
            "stream_variance": {site: l**1.5 for l, site in enumerate(sites, 1)},
        }
        return ProbedModel("a", "b", (), depth, seed, 1.0, values)

    found = {
        (s.name, s.depth): s for s in fit_slopes([one(d, s) for d in (2, 4, 8) for s in (0, 1)])
    }
    assert found[LAST_GRADIENT, None].mean == pytest.approx(-0.5)
    assert found[STREAM_GROWTH, 8].mean == pytest.approx(1.5)
    assert found[GRADIENT_DECAY, 8].mean == pytest.approx(0.8)
    assert found[GRADIENT_DECAY, 4].half == pytest.approx(0, abs=1e-9)


@pytest.mark.usefixtures("without_figure")
def test_a_gradient_of_zero_has_no_slope_and_no_crash(call: Call) -> None:
    code, _, err = call("placement=rezero", "norm=none", "model.depth=1,2", *SMALL, "--out", "here")
    assert (code, err) == (0, "")
    probing = read_result()
    assert probing.models_of(probing.arms[0], 2)[0].value("gradient_norm", feedforward_site(2)) == 0
    assert probing.slope(probing.arms[0], LAST_GRADIENT) is None


CASES = {
    "norm=foo": ["norm=foo is not an option", "rmsnorm"],
    "norm.epss=1": ["norm.epss", "did you mean norm.eps"],
    "model.depth=0": ["model.depth=0", "from 1"],
    "model.init.scheme=he": ["model.init.scheme", "xavier"],
    "model.init.query_key=-1": ["model.init.query_key=-1", "from 0"],
    "data=text": ["data.path"],
    "seed=range(0,3000)": ["3000 models", "2000"],
    "init=theory": ["init"],
    "norm=[": ["norm=[", "key=value"],
    "trainer.max_steps=5": ["trainer.max_steps=5 means nothing", "placement=…", "experiment=…"],
    "optimizer.lr=1,2": ["optimizer.lr=1,2 means nothing"],
    "+logger=tensorboard": ["logger=tensorboard means nothing"],
    "--config-dir=nowhere": ["--config-dir nowhere", "not a folder"],
}


@pytest.mark.parametrize("given", CASES)
def test_a_mistake_is_one_sentence(given: str, call: Call, tmp_path: Path) -> None:
    code, out, err = call("placement=pre", given)
    assert code == 2
    assert not out
    assert err.startswith("normlab: ")
    assert err.count("\n") == 1
    assert all(word in err for word in CASES[given]), err
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_named(call: Call, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, _, err = call("norm=none", *SMALL, "--out", "file/here")
    assert code == 1
    assert "file/here cannot be written" in err
    assert err.count("\n") == 1


def test_a_refusal_needs_no_torch() -> None:
    said = read_refusal("scripts/probe.py", "norm=foo", "torch", "matplotlib")
    assert "norm=foo is not an option" in said


@pytest.mark.slow
def test_theory_init_has_the_slopes_of_the_theory() -> None:
    """2002.04745: with ten seeds -1/2 for pre and 0 for post lie in their intervals."""
    seeds = ",".join(map(str, range(10)))
    probing = probe_models(
        [
            *("experiment=theory_init", "placement=pre,post"),
            *("model.depth=2,4,8,16,32", f"seed={seeds}"),
        ]
    )
    for placement, expected in (("pre", -0.5), ("post", 0.0)):
        slope = probing.slope(f"layernorm · {placement}", LAST_GRADIENT)
        assert slope is not None
        assert slope.half is not None
        assert abs(slope.mean - expected) < slope.half < 0.03
    deepest = [one for one in probing.models_of("layernorm · pre") if one.depth == 32]
    assert len(deepest) == 10
    for l in range(1, 33):  # the lemma is about the mean: E‖x‖² in [(1 + l/2)d, (1 + 3l/2)d]
        squares = [one.value("stream_rms", feedforward_site(l)) ** 2 for one in deepest]
        assert 1 + l / 2 <= sum(squares) / len(squares) <= 1 + 3 * l / 2


def test_a_figure_that_fails_costs_a_sentence_and_not_the_table(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ValueError("no font")

    monkeypatch.setattr("normlab.apps.probe.figure.draw_probes", broken)
    code, out, err = call("norm=none", "model.depth=1", *SMALL, "--out", "here")
    assert (code, err) == (0, "")
    assert "note: The figure could not be drawn (ValueError: no font); all else is there." in out
    assert [path.name for path in Path("here").iterdir()] == ["probe.json"]


def test_a_slope_of_nearly_zero_has_no_sign() -> None:
    slope = ModelSlope("none", "x on y", None, mean=-0.0003, half=0.001, seeds=(-0.0003,))
    assert str(slope) == "0.000 ± 0.001"
