"""Every file of conf/ says what it is, and composes."""

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from normlab import config
from normlab.config.specify import GROUPS

FILES = sorted(
    path.relative_to(config.conf_folder()) for path in config.conf_folder().rglob("*.yaml")
)
OPTIONS = [path for path in FILES if len(path.parts) == 2 and path.parts[0] in (*GROUPS, "logger")]
# Experiments that make sense on other data than their own; losses on those do not compare.
ON_ANY_DATA = (
    "four_configurations",
    "learning_rates",
    "norm_comparison",
    "prenorm_vs_postnorm",
)


@pytest.mark.parametrize("path", FILES, ids=str)
def test_every_file_opens_with_a_comment_that_says_what_it_is(path: Path) -> None:
    lines = (config.conf_folder() / path).read_text().splitlines()
    said = [line for line in lines if not line.startswith("# @package")]
    assert said[0].startswith("# ")


@pytest.mark.parametrize("path", OPTIONS, ids=str)
def test_every_option_composes_into_a_run(path: Path, specified: Callable) -> None:
    group, option = path.parts[0], path.stem
    extra = ["data.path=somewhere"] if option == "text" else []
    spec = specified(f"{group}={option}", *extra)
    assert spec.choices.get(group, option) in (option, "any")


@pytest.mark.parametrize("path", [path for path in FILES if path.parts[0] == "experiment"], ids=str)
def test_every_experiment_composes_into_a_run_of_its_own_study(
    path: Path, specified: Callable
) -> None:
    spec = specified(f"experiment={path.stem}")
    own = f"{path.stem}-{spec.choices['data']}" if path.stem in ON_ANY_DATA else path.stem
    assert spec.config.study == own


@pytest.mark.parametrize("name", ON_ANY_DATA)
def test_an_experiment_on_other_data_is_a_study_of_its_own(name: str, specified: Callable) -> None:
    assert specified(f"experiment={name}", "data=synthetic").config.study == f"{name}-synthetic"


def test_the_nanogpt_recipe_is_the_published_one(specified: Callable) -> None:
    recipe = specified("experiment=nanogpt_cpu", "data=shakespeare").config
    model = recipe.model
    assert (model.depth, model.heads, model.width, model.context) == (4, 4, 128, 64)
    assert (model.bias, model.dropout, model.init.std) == (False, 0.0, 0.02)
    assert recipe.data.batch_size == 12
    assert recipe.trainer.max_steps == 2000
    assert recipe.optimizer.lr == 1e-3
    assert list(recipe.optimizer.betas) == [0.9, 0.99]
    assert recipe.optimizer.weight_decay == 0.1
    assert recipe.trainer.gradient_clip == 1.0
    assert round(recipe.schedule.warmup * recipe.trainer.max_steps) == 100
    assert recipe.norm == {"_target_": "normlab.norms.LayerNorm", "eps": 1e-5, "bias": False}


def test_the_sweep_of_rates_is_the_published_grid_in_half_decades() -> None:
    text = (config.conf_folder() / "sweep" / "lr.yaml").read_text()
    grid = yaml.safe_load(text)["hydra"]["sweeper"]["params"]
    rates = [float(rate) for rate in grid["optimizer.lr"].split(",")]
    assert (rates[0], rates[-1]) == (3e-4, 3e-1)
    assert len(rates) == 7
    assert all(2.9 < b / a < 3.4 for a, b in itertools.pairwise(rates))


def test_help_lists_every_group_and_three_examples(train_py: Callable) -> None:
    answer = train_py("--help")
    assert answer.code == 0
    for group in (*GROUPS, "logger", "experiment", "sweep"):
        assert f"\n  {group}" in answer.out
    assert "schema" not in answer.out
    assert answer.out.count("python train.py") >= 3
    assert "python train.py -m norm=rmsnorm,layernorm placement=pre,post" in answer.out


def test_help_lists_the_users_own_norms(train_py: Callable, tmp_path: Path) -> None:
    (tmp_path / "norm").mkdir()
    (tmp_path / "norm" / "mine.yaml").write_text("# mine\n_target_: torch.nn.Identity\n")
    assert "mine" in train_py("--config-dir", str(tmp_path), "--help").out
