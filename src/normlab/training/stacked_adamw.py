"""AdamW for several runs at once, each with its own learning rate, betas, eps and weight decay.

The formula is that of torch.optim.AdamW (1711.05101), on tensors whose first dimension is the run.
What depends on a run and a step alone is computed in double precision on the host, as torch does
it, and copied into one tensor that stays where it is: the update can be part of a CUDA graph.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from normlab.config.schema import OptimizerConfig

# Rows of `StackedAdamW.numbers`.
_KEEP, _STEP_SIZE, _ROOT, _NEW1, _BETA2, _NEW2, _EPS, _LIMIT = range(8)


class StackedAdamW:
    """The moments of R runs and their update.

    Attributes:
        first, second: the moments by parameter name, each of the parameter's shape (R, …).
        numbers: (8, R), what the next update takes from the settings and the step.
        untouched: names of parameters that got no gradient, which AdamW leaves as they are.
    """

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        settings: Sequence[OptimizerConfig],
        limits: Sequence[float],
    ) -> None:
        """`parameters` are (R, …); `limits` is the largest gradient norm of each run."""
        example = next(iter(parameters.values()))
        self.parameters = dict(parameters)
        self.first = {name: torch.zeros_like(p) for name, p in parameters.items()}
        self.second = {name: torch.zeros_like(p) for name, p in parameters.items()}
        self.untouched: set[str] = set()
        self.numbers = torch.zeros(8, len(settings), device=example.device, dtype=example.dtype)
        self._betas = np.array([own.betas for own in settings]).T
        self._eps = np.array([own.eps for own in settings])
        self._weight_decays = np.array([own.weight_decay for own in settings])
        self._limits = np.array(limits)

    def prepare_step(self, step: int, rates: Sequence[float]) -> None:
        """Set the learning rate of each run for its update number `step`, from 1."""
        rate, betas = np.array(rates), self._betas
        numbers = np.empty((8, len(rate)))
        numbers[_KEEP] = 1 - rate * self._weight_decays
        numbers[_STEP_SIZE] = rate / (1 - betas[0] ** step)
        numbers[_ROOT] = np.sqrt(1 - betas[1] ** step)
        # 1 - beta here: of a beta close to 1 single precision keeps no digits of it.
        numbers[_NEW1], numbers[_NEW2], numbers[_BETA2] = *(1 - betas), betas[1]
        numbers[_EPS], numbers[_LIMIT] = self._eps, self._limits
        self.numbers.copy_(torch.from_numpy(numbers), non_blocking=True)

    @torch.no_grad()
    def update(self, gradients: Mapping[str, Tensor | None]) -> Tensor:
        """Clip each run's gradients by their global norm and update; the norms (R,) before it."""
        present = {name: g for name, g in gradients.items() if g is not None}
        self.untouched = gradients.keys() - present.keys()
        runs = self.numbers.shape[1]
        parts = [torch.linalg.vector_norm(g.reshape(runs, -1), dim=1) for g in present.values()]
        norms: Tensor = torch.linalg.vector_norm(torch.stack(parts), dim=0)
        # As nn.utils.clip_grad_norm_, whose constant this is.
        factors = (self.numbers[_LIMIT] / (norms + 1e-6)).clamp(max=1.0)
        for name, gradient in present.items():
            self._update_parameter(name, gradient * _per_run(factors, gradient))
        return norms

    def _update_parameter(self, name: str, gradient: Tensor) -> None:
        parameter, first, second = self.parameters[name], self.first[name], self.second[name]
        keep, step_size, root, new1, beta2, new2, eps = (
            _per_run(row, parameter) for row in self.numbers[:_LIMIT]
        )
        # Of a single run, so without the dimension of the runs: weight decay is for matrices only.
        if parameter.dim() > 2:
            parameter.mul_(keep)
        first.lerp_(gradient, new1.expand_as(first))
        second.mul_(beta2).add_(gradient.square() * new2)
        parameter.sub_(step_size * first / (second.sqrt() / root + eps))

    def select_runs(self, rows: Sequence[int], parameters: Mapping[str, Tensor]) -> None:
        """Go on with these r runs only, whose parameters are (r, …)."""
        chosen = list(rows)
        self.parameters = dict(parameters)
        self.first = {name: moment[chosen].clone() for name, moment in self.first.items()}
        self.second = {name: moment[chosen].clone() for name, moment in self.second.items()}
        self.numbers = self.numbers[:, chosen].clone()
        self._betas = self._betas[:, chosen]
        self._eps, self._weight_decays = self._eps[chosen], self._weight_decays[chosen]
        self._limits = self._limits[chosen]


def _per_run(values: Tensor, like: Tensor) -> Tensor:
    """(R,) → (R, 1, …), to go with a tensor (R, …)."""
    return values.view(-1, *(1,) * (like.dim() - 1))
