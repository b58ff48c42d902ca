"""A stack: R runs of a study trained as one batched model, by torch.func.

    stack = Stack(models, configs, device, precision)
    stack.prepare(example)              # captures the step on a GPU
    stack.take_step(tokens, targets)    # one optimizer step of every run
    stack.losses, stack.norms           # (R,), nats per token and before clipping

Every parameter of the R models is one tensor (R, …); the forward pass of one of them is mapped over
that dimension (`torch.vmap`), so R matrix products become one batched product. Nothing goes from
one run to another: a run has its own weights, batches, learning rate, AdamW and clipping, and a run
whose loss is not finite leaves the others as they are.

Notable: attention is the explicit product (training/stack_groups.py says why); norms are torch's
operations, because compiled CPU kernels cannot be mapped; the update is in stacked_adamw.py, the
CUDA graph in cuda_graph.py. Shapes: R runs, S different seeds, B batch, T time.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from normlab.config.schema import TrainConfig
from normlab.data import Source
from normlab.errors import NormlabError
from normlab.training.compilation import compiler_error, time_step
from normlab.training.cuda_graph import capture_step, compare_results, restore_tensors
from normlab.training.lightning import pl
from normlab.training.module import (
    Pair,
    ValidationLoss,
    ValidationSums,
    clip_limit,
    learning_rate_factor,
    to_tensors,
    token_loss,
)
from normlab.training.stacked_adamw import StackedAdamW

Tensors = dict[str, Tensor]


class Stack:
    """The weights and the optimizer of R runs whose models differ in numbers only.

    Attributes:
        parameters: by name, (R, …).
        losses, norms: (R,) of the last step.
        step: updates that are done.
        graph: whether a step is one CUDA graph; `graph_problem` says why not.
        compiled: whether torch.compile has compiled the model.
    """

    def __init__(
        self,
        models: Sequence[nn.Module],
        configs: Sequence[TrainConfig],
        device: torch.device,
        precision: str,
    ) -> None:
        self.device, self.precision = device, precision
        self.configs = list(configs)
        self.parameters, self.buffers, self.shared = stack_tensors(models, device)
        # The runs' own models stay on the CPU, where their states are saved from.
        self._models = list(models)
        self.template = copy.deepcopy(models[0]).to(device)
        self.optimizer = StackedAdamW(
            {name: p.detach() for name, p in self.parameters.items()},
            [config.optimizer for config in configs],
            [clip_limit(config) for config in configs],
        )
        self.step = 0
        self.graph, self.graph_problem, self.compiled = False, "it has not been tried", False
        # Batches come one a seed; runs of one seed have the same.
        self.seeds = list(dict.fromkeys(config.seed for config in configs))
        rows = [self.seeds.index(config.seed) for config in configs]
        self._batch_rows = torch.tensor(rows, device=device)
        self._training_loss: Callable[..., Tensor] = self._map_loss
        self._update: Callable[[], None] = self._compute_update
        self._tokens = self._targets = torch.empty(0, device=device)
        self._reset_results()

    @property
    def runs(self) -> int:
        """R."""
        return len(self.configs)

    def rates_after(self, step: int) -> list[float]:
        """The learning rate of each run in the update after `step` updates."""
        return [
            config.optimizer.lr
            * learning_rate_factor(config.schedule, step, config.trainer.max_steps)
            for config in self.configs
        ]

    def prepare(self, batch: Pair) -> None:
        """Make the tensors that batches (S, B, T) are copied into; on a GPU capture the step.

        Raises:
            NormlabError: in the stack, a run's loss is not what it is alone.
        """
        self._allocate_batch(batch)
        self._check_losses()
        self._capture_step()

    def compile_step(self) -> None:
        """Compile the model's part of the prepared step; on a GPU capture it again.

        Raises:
            NormlabError: it cannot be compiled here.
        """
        torch.compiler.reset()  # what was compiled for other stacks counts towards a limit
        uncompiled = self._training_loss
        self._training_loss = torch.compile(self._map_loss)
        self._update = self._compute_update  # the graph's memory is free while it is compiled
        try:
            self._differentiate()
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            self._training_loss = uncompiled
            self._capture_step()
            raise compiler_error("this stack", error) from error
        self.compiled = True
        self._capture_step()

    def step_seconds(self) -> float:
        """The seconds of a prepared step; weights and moments are left as they were."""
        state = self._state_tensors()
        before = [tensor.clone() for tensor in state]
        seconds = time_step(self._update)
        restore_tensors(state, before)
        return seconds

    def _check_losses(self) -> None:
        """Compare the first run, and one of every network, with its own model.

        The template is the first run's: a number that is no tensor would be the first one's for all
        runs. `stack_groups.describe_structure` keeps such runs apart by what a module says of
        itself; this sees the rest, where it changes the loss by more than `compare_results` allows.
        """
        networks = {repr((c.norm, c.placement, c.model)): row for row, c in enumerate(self.configs)}
        with torch.no_grad():
            losses = self._map_loss((0, 0), self._tokens, self._targets, "mean")
            for row in sorted({0, *networks.values()}):
                model = copy.deepcopy(self._models[row]).to(self.device)
                with self._autocast():
                    alone = token_loss(model(self._tokens[row]), self._targets[row], "mean")
                if problem := compare_results([losses[row]], [alone]):
                    raise NormlabError(
                        f"the stack's loss is not what it is for a run alone ({problem}); "
                        f"trainer.stack=1 trains every run by itself."
                    )

    @torch.enable_grad()  # runs may leave a stack while it is validated, without gradients
    def _capture_step(self) -> None:
        # The memory of the graph before this one is free for the next.
        self._update = self._compute_update
        self.optimizer.prepare_step(self.step + 1, self.rates_after(self.step))
        self._update, self.graph_problem = capture_step(
            self._compute_update, self.device, self._state_tensors(), [self.losses, self.norms]
        )
        self.graph = not self.graph_problem

    def losses_and_gradients(self, batch: Pair) -> tuple[Tensor, Tensors]:
        """Of each run on its batch, (R,) and by parameter (R, …); nothing is updated."""
        self._allocate_batch(batch)
        losses, gradients = self._differentiate()
        return losses, {name: g for name, g in gradients.items() if g is not None}

    def _state_tensors(self) -> list[Tensor]:
        weights = [parameter.detach() for parameter in self.parameters.values()]
        return [*weights, *self.optimizer.first.values(), *self.optimizer.second.values()]

    def take_step(self, batch: Pair) -> None:
        """Train every run on its batch: tokens and targets (S, B, T), one row a seed."""
        self._load_batch(batch)
        self.optimizer.prepare_step(self.step + 1, self.rates_after(self.step))
        self._update()
        self.step += 1

    @torch.no_grad()
    def token_losses(self, batch: Pair) -> Tensor:
        """The losses (R, B, T) of every run on the same batch (B, T), in nats."""
        size = self._sequences_at_once(len(batch[0]))
        parts = []
        self.template.eval()
        split = (torch.split(tensor.to(self.device), size) for tensor in batch)
        for tokens, targets in zip(*split, strict=True):
            losses = self._map_loss((None, None), tokens, targets, "none")
            parts.append(losses.view(-1, *targets.shape))
        self.template.train()
        return torch.cat(parts, 1)

    def _sequences_at_once(self, count: int) -> int:
        """How many of so many sequences every run is validated on at once.

        On a GPU so few that all runs together take no more memory than a run alone, or a step.
        """
        if self.device.type != "cuda":
            return count
        return max(self.configs[0].data.batch_size, count // self.runs)

    def select_runs(self, rows: Sequence[int]) -> None:
        """Go on with these runs only."""
        index = torch.tensor(rows, device=self.device)
        self.configs = [self.configs[row] for row in rows]
        self.parameters = {
            name: p.detach()[index].clone().requires_grad_() for name, p in self.parameters.items()
        }
        self.buffers = {name: buffer[index].clone() for name, buffer in self.buffers.items()}
        self.optimizer.select_runs(rows, {name: p.detach() for name, p in self.parameters.items()})
        # All seeds stay: the next batch may have been made already.
        self._batch_rows = self._batch_rows[index]
        self._tokens, self._targets = self._tokens[index], self._targets[index]
        self._reset_results()
        self._capture_step()

    def _reset_results(self) -> None:
        dtype = next(iter(self.parameters.values())).dtype
        self.losses, self.norms = (
            torch.zeros(self.runs, device=self.device, dtype=dtype) for _ in range(2)
        )

    def _load_batch(self, batch: Pair) -> None:
        for static, values in zip((self._tokens, self._targets), batch, strict=True):
            # Pinned memory is copied while the device computes; other memory is waited for.
            moved = values.to(self.device, non_blocking=values.is_pinned())
            # (S, B, T) → (R, B, T), into the memory that a captured step reads.
            torch.index_select(moved, 0, self._batch_rows, out=static)

    def _allocate_batch(self, batch: Pair) -> None:
        rows = (self.runs, *batch[0].shape[1:])
        self._tokens, self._targets = (
            torch.zeros(rows, dtype=torch.int64, device=self.device) for _ in range(2)
        )
        self._load_batch(batch)

    def _compute_update(self) -> None:
        losses, gradients = self._differentiate()
        self.norms.copy_(self.optimizer.update(gradients))
        self.losses.copy_(losses.detach())

    def _differentiate(self) -> tuple[Tensor, dict[str, Tensor | None]]:
        losses = self._training_loss((0, 0), self._tokens, self._targets, "mean")
        # Runs do not touch each other: the gradient of the sum is each run's own.
        gradients = torch.autograd.grad(
            losses.sum(), list(self.parameters.values()), allow_unused=True
        )
        return losses, dict(zip(self.parameters, gradients, strict=True))

    def _map_loss(
        self, dims: tuple[int | None, int | None], tokens: Tensor, targets: Tensor, reduction: str
    ) -> Tensor:
        mapped = torch.vmap(self._compute_loss, in_dims=(0, 0, *dims, None))
        return mapped(self.parameters, self.buffers, tokens, targets, reduction)

    def _compute_loss(
        self, parameters: Tensors, buffers: Tensors, tokens: Tensor, targets: Tensor, reduction: str
    ) -> Tensor:
        """Of one run, with tokens and targets (B, T): nats per token, or their sum."""
        with self._autocast():
            tensors = {**parameters, **buffers, **self.shared}
            logits = functional_call(self.template, tensors, (tokens,))
            return token_loss(logits, targets, reduction)

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.precision != "bf16-mixed":
            return nullcontext()
        # Without a cache of weights in half precision: a captured graph would go on using it.
        return torch.autocast(self.device.type, torch.bfloat16, cache_enabled=False)


def stack_tensors(
    models: Sequence[nn.Module], device: torch.device
) -> tuple[Tensors, Tensors, Tensors]:
    """Parameters (R, …), buffers (R, …) that differ between the models, and those that do not.

    What does not differ, as the mask of attention, is held once.
    """
    tables = [{**dict(m.named_parameters()), **dict(m.named_buffers())} for m in models]
    trained = {name for name, p in models[0].named_parameters() if p.requires_grad}
    parameters: Tensors = {}
    different: Tensors = {}
    shared: Tensors = {}
    for name, first in tables[0].items():
        values = [table[name].detach().to(first.device) for table in tables]
        if name in trained:
            parameters[name] = torch.stack(values).to(device).requires_grad_()
        elif all(torch.equal(first, value) for value in values):
            shared[name] = values[0].to(device)
        else:
            different[name] = torch.stack(values).to(device)
    return parameters, different, shared


def row_weights(row: int, tensors: Mapping[str, Tensor]) -> Tensors:
    """Of stacked tensors (R, …), those of one run, as tensors of their own on the CPU."""
    # A view would change with the next step, and torch.save writes all of the memory behind it.
    return {name: tensor[row].detach().cpu().clone() for name, tensor in tensors.items()}


class StackBatches:
    """Batch i of every seed of the stack: tokens and targets (S, B, T), each (seed, i)'s own."""

    def __init__(self, source: Source, stack: Stack, count: int) -> None:
        self.source, self.stack, self.count = source, stack, count

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Pair]:
        for index in range(self.stack.step, self.count):
            yield self.batch(index)

    def batch(self, index: int) -> Pair:
        """Batch `index` of every seed."""
        pairs = [to_tensors(self.source.batch(seed, index)) for seed in self.stack.seeds]
        tokens, targets = (torch.stack(parts) for parts in zip(*pairs, strict=True))
        if self.stack.device.type == "cuda":  # a copy from other memory would wait for the device
            return tokens.pin_memory(), targets.pin_memory()
        return tokens, targets


class StackModule(pl.LightningModule):
    """What Lightning trains: a step of the module is an optimizer step of every run."""

    def __init__(self, stack: Stack) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.stack = stack
        self.validation_losses: list[ValidationLoss] = []  # (R,) of the last validation
        self._sums = ValidationSums()

    def training_step(self, batch: Any, index: int) -> None:
        """Take the step; `stack.losses` has its losses."""
        self.stack.take_step(batch)

    def on_validation_epoch_start(self) -> None:
        """Start the means over all of the validation windows."""
        self._sums = ValidationSums()

    def validation_step(self, batch: Any, index: int) -> None:
        """Add a batch (B, T) to the means."""
        self._sums.add(self.stack.token_losses(batch), batch[1])

    def on_validation_epoch_end(self) -> None:
        """The means over all windows."""
        self.validation_losses = [ValidationLoss(*means) for means in self._sums.means().tolist()]

    def configure_optimizers(self) -> None:
        """None for Lightning: the stack has its own (stacked_adamw.py)."""
