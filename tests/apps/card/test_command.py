"""scripts/card.py from the command line to the files; what cannot be done is one sentence."""

import json
from pathlib import Path

import pytest

from command_calls import Call, make_command_caller, read_refusal
from normlab.apps.card.main import main
from normlab.apps.card.record import Card
from normlab.archive.versioned_json import restore_value

ROOT = Path(__file__).resolve().parents[2]
FAST = ("--width", "16", "--seconds", "0")


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture) -> Call:
    return make_command_caller(main, tmp_path, monkeypatch, capfd)


def write_norm(folder: Path, text: str) -> Path:
    (folder / "mine" / "norm").mkdir(parents=True)
    (folder / "mine" / "norm" / "my_norm.yaml").write_text(text)
    return folder / "mine"


def test_norms_side_by_side_become_a_table_numbers_and_a_figure(call: Call, tmp_path: Path) -> None:
    code, out, err = call("norm=rmsnorm,none", *FAST)
    folder = Path("outputs/cards/rmsnorm-none")
    assert (code, err) == (0, "")
    assert sorted(path.name for path in folder.iterdir()) == ["card.json", "card.png", "card.svg"]
    raw = json.loads((folder / "card.json").read_text())
    cards = [restore_value(Card, card) for card in raw["cards"]]
    assert [(card.name, card.width) for card in cards] == [("rmsnorm", 16), ("none", 16)]
    assert cards[0].config == {"_target_": "normlab.norms.RMSNorm", "eps": 1e-5, "cast": "gemma"}
    assert raw["versions"]["torch"]
    assert "rmsnorm" in out
    assert f"figure   {folder / 'card.png'}" in out


def test_a_figure_that_fails_costs_a_sentence_and_not_the_card(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ValueError("no font\nat all")

    monkeypatch.setattr("normlab.apps.card.figure.draw_cards", broken)
    code, out, err = call("norm=none", "--out", "here", *FAST)
    assert (code, err) == (0, "")
    assert "note: The figure could not be drawn (ValueError: no font at all)" in out
    assert "largest singular value" in out
    assert [path.name for path in Path("here").iterdir()] == ["card.json"]


def test_a_norm_of_ones_own_and_its_arguments(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NORMLAB_TRUST", "my_module")
    mine = write_norm(tmp_path, "_target_: my_module.Doubled\neps: 1e-3\n")
    (tmp_path / "my_module.py").write_text(
        "import torch\n"
        "class Doubled(torch.nn.RMSNorm):\n"
        "    def forward(self, x):\n"
        "        return 2 * super().forward(x)\n"
    )
    arguments = ("norm=my_norm", "norm.eps=1e-3,1e-2", "--config-dir", str(mine), "--out", "here")
    code, _, err = call(*arguments, *FAST)
    assert (code, err) == (0, "")
    cards = json.loads(Path("here/card.json").read_text())["cards"]
    assert [card["name"] for card in cards] == ["my_norm eps=0.001", "my_norm eps=0.01"]
    slopes = [card["extremes"][0]["steepest"] for card in cards]
    assert slopes == pytest.approx([2 / 1e-3**0.5, 2 / 1e-2**0.5])


CASES = {
    "norm=foo": ["norm=foo is not an option", "rmsnorm"],
    "norm.epss=1": ["norm.epss", "did you mean norm.eps"],
    "norm.eps=abc": ["norm.eps=abc", "number"],
    "norm.eps=-1": ["eps=-1"],
    "+norm.zzz=1": ["norm.zzz", "eps"],
    "placement=post": ["placement=post", "norm=…"],
    "model.width=64": ["model.width=64", "norm=…"],
    "norm._target_=torch.nn.NoSuchNorm": ["torch.nn.NoSuchNorm"],
    "norm=[": ["norm=[", "key=value"],
    "--width=0": ["--width 0", "from 2"],
    "--threads=0": ["--threads 0", "from 1 to 1024"],
    "--threads=1000000": ["--threads 1000000", "from 1 to 1024"],
    "--seconds=nan": ["--seconds nan", "0 or more, and finite"],
    "--seconds=-1": ["--seconds -1", "0 or more, and finite"],
    "--seconds=inf": ["--seconds inf", "0 or more, and finite"],
    "--config-dir=nowhere": ["--config-dir nowhere", "not a folder"],
}
WITHOUT_EFFECT = {"--out": "here", "--threads": "2", "--seconds": "0.8"}


@pytest.mark.parametrize("given", CASES)
def test_a_mistake_is_one_sentence(given: str, call: Call, tmp_path: Path) -> None:
    first = "norm=rmsnorm" if not given.startswith("norm=") else "norm.eps=1e-5"
    code, out, err = call(first, given)
    assert code == 2
    assert not out
    assert err.startswith("normlab: ")
    assert err.count("\n") == 1
    assert all(word in err for word in CASES[given]), err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("flag", WITHOUT_EFFECT)
def test_a_flag_that_changes_nothing_is_refused(flag: str, call: Call, tmp_path: Path) -> None:
    asked = ("norm=rmsnorm", "--against", "rmsnorm", "--width", "16", flag, WITHOUT_EFFECT[flag])
    code, out, err = call(*asked)
    assert (code, out) == (2, "")
    assert err == f"normlab: {flag} has no effect with --against; leave it out.\n"


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("torch.nn.BatchNorm1d", ["norm=my_norm takes statistics", "future"]),
        ("torch.nn.Linear\nout_features: 8", ["norm=my_norm changes the shape to (2, 4, 8)"]),
        ("torch.nn.Linear", ["cannot be built", "out_features"]),
        ("normlab.model.placement.Placement", ["gave a Placement"]),
        ("math.sqrt", ["norm._target_=math.sqrt is not trusted", "NORMLAB_TRUST=math"]),
    ],
)
def test_a_class_that_is_no_norm_is_one_sentence(
    target: str, words: list[str], call: Call, tmp_path: Path
) -> None:
    mine = write_norm(tmp_path, f"_target_: {target}\n")
    code, out, err = call("norm=my_norm", "--config-dir", str(mine), *FAST)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert all(word in err for word in words), err


def test_a_place_that_cannot_be_written_is_named(call: Call, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, _, err = call("norm=none", "--out", "file/card", *FAST)
    assert code == 1
    assert "file/card cannot be written" in err
    assert err.count("\n") == 1


def test_a_long_list_of_norms_has_a_folder_name_that_fits(call: Call) -> None:
    from normlab.apps.results import folder_name

    names = [f"norm_{k} eps=1e-{k}" for k in range(30)]
    assert folder_name(["dyt", "a/b eps=1e-6"], "card") == "dyt-a_b_eps=1e-6"
    assert len(folder_name(names, "card")) == 80
    assert folder_name(names, "card") != folder_name(names[:-1], "card")


@pytest.mark.parametrize("name", ["..", "../../x", "/etc", ".hidden", "𝒩" * 300, "a\nb", "\x1b[2J"])
def test_a_card_stays_in_its_folder_whatever_its_norm_is_called(name: str) -> None:
    from normlab.apps.results import folder_name

    folder = folder_name([name], "card")
    assert folder == Path(folder).name
    assert not folder.startswith(".")
    assert 0 < len(folder.encode()) <= 255
    assert folder.isprintable()


def test_a_refusal_needs_no_torch() -> None:
    said = read_refusal("scripts/card.py", "norm=foo", "torch", "matplotlib")
    assert "norm=foo is not an option" in said
