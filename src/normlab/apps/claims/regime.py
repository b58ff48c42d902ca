"""What a claim is about: which lengths and sizes of runs, which of them a budget reaches.

Known from the files, before anything is trained: a claim that no budget can decide is refused.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hydra.core.config_loader import ConfigLoader
from omegaconf import DictConfig, OmegaConf

from normlab.apps.claims.claim import Claim, Regime
from normlab.config import conf_folder
from normlab.config.safe_yaml import read_yaml
from normlab.errors import ConfigError
from normlab.study.composition import RunComposer
from normlab.study.plan import Plan, SweepRequest
from normlab.text import join_words


@dataclass(frozen=True)
class BudgetReach:
    """What an experiment trains at a budget: lengths in optimizer steps, and its largest model."""

    steps: tuple[int, ...]
    depth: int
    width: int

    def covers(self, regime: Regime) -> bool:
        """Whether its longest runs are in the regime."""
        return (
            max(self.steps) >= regime.steps
            and self.depth >= (regime.depth or 0)
            and self.width >= (regime.width or 0)
        )

    def describe(self) -> str:
        """`1000 steps, 8 blocks, width 64`."""
        return f"{max(self.steps)} steps, {self.depth} blocks, width {self.width}"


@dataclass(frozen=True)
class LossRange:
    """Between which losses a model that learns ends: the floor, 0 if unknown, and a uniform guess.

    In nats per token.
    """

    floor: float
    uniform: float


def find_reach(sweep: SweepRequest, master: DictConfig) -> dict[str, BudgetReach]:
    """What an experiment trains at each of its budgets; one with an unreadable length is absent.

    `master` is the experiment as it is composed for any of its budgets.
    """
    sizes = {"model.depth": master.model.depth, "model.width": master.model.width}
    reach = {}
    for budget, values in _values_by_budget(sweep, master).items():
        shape = {**sizes, **values}
        try:
            steps, depths, widths = (
                # Values that are swept are one text: 250,500,1000.
                [int(number) for number in str(shape[key]).split(",")]
                for key in ("trainer.max_steps", *sizes)
            )
        except ValueError:  # range(…) or another expression
            continue
        reach[budget] = BudgetReach(tuple(sorted(steps)), max(depths), max(widths))
    return reach


def _values_by_budget(sweep: SweepRequest, master: DictConfig) -> dict[str, dict[str, Any]]:
    """What an experiment sets at each of its budgets, in the file's order, with the steps."""
    values: dict[str, dict[str, Any]] = {}
    files = (conf_folder() / "budget").glob("*.yaml")
    for budget in sweep.budgets or sorted(path.stem for path in files):
        length = {"trainer.max_steps": _length_of_budget(budget, master)}
        # In the order of `SweepRequest.expand_arms`: `params` go before what a budget sets.
        values[budget] = {**length, **sweep.budgets.get(budget, {}), **sweep.params}
    return values


def _length_of_budget(budget: str, master: DictConfig) -> object:
    """The steps of a run, where the sweep does not say it; None where the budget has no file."""
    if not OmegaConf.is_interpolation(master.trainer, "max_steps"):
        return master.trainer.max_steps
    path = conf_folder() / "budget" / f"{budget}.yaml"
    return read_yaml(path)["max_steps"] if path.is_file() else None


def define_budgets(sweep: SweepRequest, loader: ConfigLoader, master: DictConfig) -> dict[str, Any]:
    """All that decides what an experiment trains at each of its budgets, as JSON can hold it.

    Arms and swept values are as the file has them; the id of one run of a step stands for all that
    no budget changes, and is not changed by new keys at their neutral values.
    """
    first_arm = sweep.arms[0].split() if sweep.arms else []
    overrides = [*first_arm, "study=claims", "trainer.max_steps=1", "trainer.val_every=1"]
    run = RunComposer(loader, master).compose(overrides).id
    definitions: dict[str, Any] = {}
    for budget, values in _values_by_budget(sweep, master).items():
        plain_values = {str(key): str(value) for key, value in values.items()}
        definitions[budget] = {"arms": list(sweep.arms), "values": plain_values, "run": run}
    return definitions


def find_loss_range(plan: Plan) -> LossRange | None:
    """Where losses of the plan's data lie; None where there are several kinds of data."""
    sizes = set(plan.vocabularies.values())
    if len(sizes) != 1:
        return None
    from normlab.data import build_source

    data, context = plan.specs[0].plain["data"], plan.specs[0].config.model.context
    # The lowest loss of a text is not known.
    floor = build_source(data, context).floor if data["kind"] == "synthetic" else None
    return LossRange(floor or 0.0, math.log(sizes.pop()))


def check_attainable(
    name: str, claim: Claim, reach: Mapping[str, BudgetReach], losses: LossRange | None
) -> None:
    """Refuse a regime beyond every budget, and a margin beyond all differences of losses.

    Raises:
        ConfigError: no run of the claim's experiment could decide it.
    """
    regime = claim.regime
    if regime is not None and reach and not find_budgets(regime, reach):
        budgets = "; ".join(f"{budget}: {size.describe()}" for budget, size in reach.items())
        raise ConfigError(
            f"claim={name}: its regime is {describe_limits(regime)}, and no budget of "
            f"experiment={claim.experiment} reaches it ({budgets}); give it a larger budget, or "
            f"the claim another regime."
        )
    margin = getattr(claim.test, "margin", None)
    compares_losses = claim.quantity is None or claim.quantity.is_loss
    # The margin of `diverges` is one of shares of runs, and growth is not a loss.
    if margin is None or losses is None or claim.kind == "diverges" or not compares_losses:
        return
    largest = losses.uniform - losses.floor
    if margin >= largest:
        raise ConfigError(
            f"claim={name}: test.margin={margin:g} is not allowed; losses lie between "
            f"{losses.floor:.3f} (the floor) and {losses.uniform:.3f} (a uniform guess) here, so "
            f"no difference can be larger than {largest:.3f}: give a margin below that."
        )


def find_budgets(regime: Regime, reach: Mapping[str, BudgetReach]) -> list[str]:
    """The budgets whose longest runs are in the regime, the smallest first."""
    reached = [budget for budget, size in reach.items() if size.covers(regime)]
    # `sorted` is stable: of budgets alike the first of the file.
    return sorted(reached, key=lambda budget: (max(reach[budget].steps), reach[budget].depth))


def describe_limits(regime: Regime) -> str:
    """`runs of at least 1000 steps and 12 blocks`."""
    limits = [f"{regime.steps} steps"]
    limits += [] if regime.depth is None else [f"{regime.depth} blocks"]
    limits += [] if regime.width is None else [f"width {regime.width}"]
    return f"runs of at least {join_words(limits)}"


def describe_shortfall(
    regime: Regime, size: BudgetReach, reach: Mapping[str, BudgetReach]
) -> str | None:
    """Why runs of this size are out of regime, and which budget reaches it; None where they are in.

    `reach` is empty where nobody knows what budgets there are.
    """
    if size.covers(regime):
        return None
    budgets = find_budgets(regime, reach)
    remedy = f"budget={budgets[0]} reaches it" if budgets else "no budget reaches it"
    if not reach:
        remedy = "whether a budget reaches it is not known"
    return (
        f"the claim is about {describe_limits(regime)}, and these have {size.describe()}; {remedy}"
    )
