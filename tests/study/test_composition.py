"""Runs composed together are what Hydra composes of each by itself, in fewer compositions."""

from collections.abc import Iterator, Sequence

import pytest
from hydra.core.config_loader import ConfigLoader
from hydra.errors import HydraException
from omegaconf import DictConfig, open_dict

from normlab.config.compose import composed_config
from normlab.config.run_spec import RunSpec
from normlab.config.specify import make_run_spec
from normlab.study.composition import RunComposer


class CountingLoader:
    """Hydra's loader, which counts the configurations that it composes."""

    def __init__(self, loader: ConfigLoader) -> None:
        self.loader = loader
        self.count = 0

    def load_sweep_config(self, master: DictConfig, overrides: list[str]) -> DictConfig:
        self.count += 1
        return self.loader.load_sweep_config(master, overrides)

    def __getattr__(self, name: str):
        return getattr(self.loader, name)


@pytest.fixture(scope="module")
def hydra() -> Iterator[tuple[CountingLoader, DictConfig]]:
    with composed_config([]) as (loader, master):
        yield CountingLoader(loader), master


def compose_alone(hydra: tuple[CountingLoader, DictConfig], overrides: Sequence[str]) -> RunSpec:
    loader, master = hydra
    composed = loader.loader.load_sweep_config(master, list(overrides))
    choices = dict(composed.hydra.runtime.choices)
    with open_dict(composed):
        del composed["hydra"]
    return make_run_spec(composed, choices)


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["seed=3", "optimizer.lr=1e-2", "norm=layernorm", "study=mine"],
        ["norm=rmsnorm", "norm.eps=1e-3", "placement=pre", "placement.qk=true"],
        ["data=shakespeare", "data.path=a.txt", "data.batch_size=8"],
        ["trainer.gradient_clip=null", "study='a-study'", "budget=quick"],
        ["budget=quick", "trainer.max_steps=7"],
        ["placement=pre/no_skip", "model={depth: 2, width: 32, heads: 2}"],
        ["placement={qk: true}", "norm={eps: 1e-3}"],
        ["optimizer.lr=${model.init.std}", "model.init.std=0.01"],
        ["experiment=learning_rates", "model.depth=3"],
        ["norm=dyt", "norm.alpha=1", "model.kv_heads=null"],
        ["hydra.job.name=x", "seed=2"],
    ],
)
def test_a_run_is_what_hydra_composes(
    overrides: list[str], hydra: tuple[CountingLoader, DictConfig]
) -> None:
    alone, spec = compose_alone(hydra, overrides), RunComposer(*hydra).compose(overrides)
    assert spec.plain == alone.plain
    assert spec.choices == alone.choices


@pytest.mark.parametrize(
    "overrides",
    [
        ["~trainer.gradient_clip", "trainer.gradient_clip=1"],
        ["optimizer.lr=fast"],
        ["optimizer.rate=1e-3"],
        ["seed=1,2"],
        ["model.depth.x=3"],
        ["placement@trainer=pre"],
        ["seed@trainer=3"],
        ["norm=rmsnrom"],
    ],
)
def test_what_cannot_be_composed_is_refused_in_hydras_words(
    overrides: list[str], hydra: tuple[CountingLoader, DictConfig]
) -> None:
    with pytest.raises(HydraException) as alone:
        compose_alone(hydra, overrides)
    with pytest.raises(HydraException) as raised:
        RunComposer(*hydra).compose(["seed=3", *overrides])
    assert str(raised.value) == str(alone.value)


def test_runs_that_differ_in_values_are_composed_once(
    hydra: tuple[CountingLoader, DictConfig],
) -> None:
    composer = RunComposer(*hydra)
    before = hydra[0].count
    specs = [
        composer.compose([f"norm={norm}", f"seed={seed}", f"optimizer.lr={lr}"])
        for norm in ("rmsnorm", "layernorm")
        for seed in range(3)
        for lr in ("1e-3", "3e-3")
    ]
    assert hydra[0].count - before == 2
    assert len({spec.id for spec in specs}) == 12
    assert [spec.config.seed for spec in specs[:3]] == [0, 0, 1]


def test_a_value_is_that_of_its_run_alone(hydra: tuple[CountingLoader, DictConfig]) -> None:
    composer = RunComposer(*hydra)
    assert composer.compose(["model.depth=7", "norm.eps=1e-3"]).config.model.depth == 7
    assert composer.compose([]).plain == compose_alone(hydra, []).plain
