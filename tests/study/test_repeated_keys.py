"""A key that a command line gives twice is refused, for nobody would see which value counted."""

from collections.abc import Callable
from pathlib import Path

import pytest

from normlab.apps.claims.main import main as judge_claims
from normlab.errors import ConfigError
from normlab.study.command import read_command
from normlab.study.plan import check_repeated_keys


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["norm=rmsnorm", "seed=0", "norm=layernorm"],
            "norm is given twice, norm=rmsnorm and norm=layernorm; give it once, or "
            "norm=rmsnorm,layernorm with -m to compare both.",
        ),
        (["-m", "seed=0,1", "seed=2"], "or seed=0,1,2 to compare both."),
        (["-m", "seed=1", "seed=1,2"], "or seed=1,2 to compare both."),
        (
            ["optimizer.betas=[0.9,0.95]", "optimizer.betas=[0.9,0.99]"],
            "or optimizer.betas=[0.9,0.95],[0.9,0.99] with -m",
        ),
        (["optimizer.lr=1", "++optimizer.lr=2"], "optimizer.lr is given twice"),
        (["norm=dyt", "norm=dyt"], "norm=dyt and norm=dyt; give it once."),
        (["study=a", "study=b"], "study=a and study=b; give it once."),
        (["hydra/launcher=study", "hydra/launcher=basic"], "hydra/launcher=basic; give it once."),
    ],
)
def test_a_key_that_is_given_twice(words: list[str], sentence: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read_command(words)
    assert sentence in str(refused.value)


def test_a_key_inside_another_is_another() -> None:
    check_repeated_keys(["norm=dyt", "norm.eps=1", "norm@placement.attention.norm=rmsnorm"])
    check_repeated_keys(["~norm", "norm=dyt"])


def test_every_command_refuses_it(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from normlab.apps.card.main import main as write_card
    from normlab.apps.probe.main import main as probe

    monkeypatch.chdir(tmp_path)
    commands: list[tuple[Callable[[list[str]], None], list[str], str]] = [
        (write_card, ["norm=dyt", "norm=none"], "or norm=dyt,none to compare both."),
        (probe, ["model.depth=2", "model.depth=4"], "or model.depth=2,4 to compare both."),
        (judge_claims, ["claim=a", "claim=b"], "or claim=a,b to compare both."),
        (judge_claims, ["budget=quick", "budget=full"], "budget=full; give it once."),
    ]
    for main, words, sentence in commands:
        with pytest.raises(SystemExit) as left:
            main(words)
        assert left.value.code == 2
        assert sentence in capfd.readouterr().err
