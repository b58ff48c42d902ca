"""torch.compile for a run: done before the first step, timed apart, and undone by nothing."""

import time

import torch

from normlab.errors import NormlabError
from normlab.training.lightning import pl
from normlab.training.module import LanguageModel, Pair


def compile_model(
    trainer: pl.Trainer, module: LanguageModel, training: Pair, validation: Pair, graphs: bool
) -> float:
    """Compile the module's model for both kinds of batch; the seconds that it took.

    With `graphs`, into CUDA graphs: a step's kernels are then launched as one.

    What torch has compiled before, in this run or another, it finds in its own cache on disk.
    Weights, gradients and random numbers are left as they were.

    Raises:
        NormlabError: it cannot be compiled here.
    """
    began = time.perf_counter()
    module.to(trainer.strategy.root_device)
    torch._dynamo.reset()  # what was compiled for other runs counts towards a limit
    module.model.compile(mode="reduce-overhead" if graphs else None)
    try:
        with torch.random.fork_rng():
            _take_step(trainer, module, training, validation)
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise NormlabError(
            f"trainer.compile=true does not work here ({type(error).__name__}: {reason}); "
            f"a CPU needs a C++ compiler for it, a GPU Triton; take trainer.compile=false."
        ) from error
    return time.perf_counter() - began


def _take_step(
    trainer: pl.Trainer, module: LanguageModel, training: Pair, validation: Pair
) -> None:
    # In Lightning's own contexts: in another one the model would be compiled once more.
    training, validation = _move_batch(module, training), _move_batch(module, validation)
    with trainer.precision_plugin.forward_context():
        module.train()
        loss = module.training_step(training, 0)
    torch.autograd.backward(loss)
    module.zero_grad(set_to_none=True)
    module.eval()
    with torch.no_grad(), trainer.precision_plugin.forward_context():
        module.on_validation_epoch_start()
        module.validation_step(validation, 0)
    module.train()


def _move_batch(module: LanguageModel, batch: Pair) -> Pair:
    tokens, targets = batch
    return tokens.to(module.device), targets.to(module.device)
