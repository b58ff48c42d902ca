"""Lightning, without what it reads from the environment and what it prints.

Lightning takes every argument of its Trainer from `PL_TRAINER_*`, and ranks from the variables of
Slurm, torchrun, LSF and others, some already when it is imported. A run of ours is always one
process on one device, also where such a launcher started it: none of these variables may decide.
"""

import logging
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from normlab.errors import NormlabError
from normlab.training.stopping import Terminated

# What Lightning reads begins so, and what it reads beside that.
_PREFIXES = ("PL_", "LT_", "SLURM_", "TORCHELASTIC_", "LSB_", "JSM_", "OMPI_", "PMI_", "PMIX_")
_NAMES = frozenset(
    prefix + name
    for prefix in ("", "LOCAL_", "GROUP_", "NODE_", "ROLE_")
    for name in ("RANK", "WORLD_SIZE")
) | {"MASTER_ADDR", "MASTER_PORT", "STANDALONE_PORT", "KUBERNETES_PORT", "DISABLE_MPS"}


@contextmanager
def without_launcher_variables() -> Iterator[None]:
    """Hide from the body what Lightning would read from the environment."""
    hidden = {
        name: value
        for name, value in os.environ.items()
        if name.startswith(_PREFIXES) or name in _NAMES
    }
    for name in hidden:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(hidden)


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Keep Lightning's greetings, tips and warnings from the terminal, which is the display's."""
    loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning_fabric")]
    levels = [logger.level for logger in loggers]
    excepthook = threading.excepthook

    def skip_tensorboard(raised: threading.ExceptHookArgs) -> None:
        # What stops TensorBoard's writer is raised again in the main thread, with the next thing
        # written; its traceback would come first.
        if not type(raised.thread).__module__.startswith("tensorboard."):
            excepthook(raised)

    for logger in loggers:
        logger.setLevel(logging.ERROR)
    threading.excepthook = skip_tensorboard
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="pytorch_lightning|lightning_fabric")
            yield
    finally:
        threading.excepthook = excepthook
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def raise_signals() -> Iterator[None]:
    """Raise what a signal raised in the body, where Lightning has made something else of it."""
    try:
        yield
    except SIGTERMException as error:
        raise Terminated from error
    except SystemExit as error:
        # Lightning turns what a signal raised into exit(1); a user's class may exit of itself.
        if isinstance(error.__context__, KeyboardInterrupt):
            raise error.__context__ from error
        raise NormlabError(f"a class of the run left the program (exit {error.code})") from error


def create_trainer(device: str, **options: Any) -> "pl.Trainer":
    """A Trainer on one device (cpu, cuda or mps) that writes no file and shows nothing itself."""
    return pl.Trainer(
        accelerator={"cuda": "gpu"}.get(device, device),
        devices=1,
        # Not the one of Slurm, torchrun or MPI: what they start is a run of its own.
        plugins=[LightningEnvironment()],
        check_val_every_n_epoch=None,
        inference_mode=False,  # as within fit: a model is compiled for one of them
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


with without_launcher_variables():
    import pytorch_lightning as pl
    from pytorch_lightning.loggers import TensorBoardLogger
    from pytorch_lightning.plugins.environments import (  # type: ignore[attr-defined]
        LightningEnvironment,  # documented, though it is in no __all__
    )
    from pytorch_lightning.utilities.exceptions import SIGTERMException

    # Whoever imported it before may have left it the rank of a launcher.
    LightningEnvironment().set_global_rank(0)

__all__ = ["TensorBoardLogger", "pl"]
