"""How the runs of a study share a machine: how many at once, and with how many threads each."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from normlab.archive.record import LAST_CHECKPOINT, RunRecord
from normlab.config.run_spec import RunSpec
from normlab.config.schema import FeedForwardKind, Positions, TrainConfig
from normlab.errors import NormlabError
from normlab.study import machine

# docs/log.md has the measurements behind these.
#
# What a block costs each step whatever its size, and threads do not shorten, in the floating-point
# operations that one core does in that time.
FIXED_OPERATIONS = 0.6e9
# A process of its own has to win at least this.
WORTH_IT = 0.95
# Bytes of a process that trains, beside what its model needs: torch's and Lightning's own.
PROCESS = 170 * 2**20
# How much of the free memory is given away.
SAFE = 0.8


@dataclass(frozen=True)
class Share:
    """`jobs` runs at once, with `threads` each; `why`, in words."""

    jobs: int
    threads: int
    why: str

    def __str__(self) -> str:
        threads = f"{self.threads} thread{'' if self.threads == 1 else 's'}"
        if self.jobs == 1:
            return f"one after the other, {threads} ({self.why})"
        return f"{self.jobs} at once, {threads} each ({self.why})"


@dataclass(frozen=True)
class Machine:
    """What there is to share."""

    cores: int
    memory: int  # bytes that are free

    @classmethod
    def here(cls) -> "Machine":
        """This one, as it is now."""
        return cls(machine.cores(), machine.free_memory())


def shared(
    pending: Sequence[RunSpec], vocabularies: Mapping[str, int], devices: set[str], there: Machine
) -> Share:
    """How these runs, `vocabularies` by id, share a machine, on these devices.

    `jobs=auto` takes what ends first by this rule: a step costs each block's fixed part and its
    operations over the threads, and the runs go in rounds.
    """
    wanted, configs = pending[0].config.jobs, [spec.config for spec in pending]
    cores = there.cores
    counted = f"{cores} core{'' if cores == 1 else 's'}; jobs, trainer.threads change it"
    if wanted != "auto":
        jobs = min(int(wanted), len(pending))
        return Share(jobs, _threads(configs, cores, jobs), counted)
    if devices != {"cpu"}:
        why = f"on {', '.join(sorted(devices))}; jobs changes it"
        return Share(1, _threads(configs, cores, 1), why)
    need = max(need_of(spec.config, vocabularies[spec.id]) for spec in pending)
    fits = max(1, int(SAFE * there.memory // need))
    best = _fastest(configs, vocabularies[pending[0].id], cores, min(len(pending), cores))
    jobs = min(best, fits)
    why = counted if jobs == best else f"{_gib(there.memory)} GiB free, a run needs {_gib(need)}"
    return Share(jobs, _threads(configs, cores, jobs), why)


def threads_of(spec: RunSpec, share: Share) -> int:
    """The threads of a run: its own, those that it was begun with, or its share.

    Bits depend on it, so a run that goes on keeps what it had.
    """
    if spec.config.trainer.threads is not None:
        return spec.config.trainer.threads
    return begun_with(spec) or share.threads


def begun_with(spec: RunSpec) -> int | None:
    """The threads of a run that has a state to go on from."""
    try:
        threads = RunRecord.read(spec.folder).threads
    except (OSError, NormlabError):
        return None
    return threads if (spec.folder / LAST_CHECKPOINT).exists() else None


def parameters_of(config: TrainConfig, vocabulary: int) -> int:
    """Weights of a model, norms apart."""
    model = config.model
    kv = (model.kv_heads or model.heads) / model.heads
    hidden = -(-model.width * model.hidden_ratio // model.hidden_multiple) * model.hidden_multiple
    products = 3 if model.feedforward is FeedForwardKind.swiglu else 2
    block = model.width * ((2 + 2 * kv) * model.width + products * hidden)
    places = model.context if model.positions is Positions.learned else 0
    tables = vocabulary * (1 if model.tie else 2) + places
    return round(model.depth * block + tables * model.width)


def operations_of(config: TrainConfig, vocabulary: int) -> float:
    """Floating-point operations of an optimizer step."""
    model = config.model
    tokens = config.data.batch_size * model.context * config.trainer.accumulate
    attention = 2 * model.depth * model.width * model.context
    return 6.0 * tokens * (parameters_of(config, vocabulary) + attention)


def need_of(config: TrainConfig, vocabulary: int) -> int:
    """Bytes that a run may come to take, at most, from shapes alone.

    Weights, gradients, two moments and a state that is being written, in fp32, and the weights
    once more in bf16; of every block what backward needs; logits, their softmax and gradients.
    """
    model = config.model
    tokens = config.data.batch_size * model.context
    hidden = model.width * model.hidden_ratio
    block = 4 * tokens * (14 * model.width + 4 * hidden + 3 * model.heads * model.context)
    logits = 4 * tokens * 4 * vocabulary
    weights = 22 * parameters_of(config, vocabulary)
    return PROCESS + round(weights + model.depth * block + logits)


def _fastest(configs: Sequence[TrainConfig], vocabulary: int, cores: int, most: int) -> int:
    """The number of runs at once with which the study ends first."""
    fixed = sum(FIXED_OPERATIONS * config.model.depth for config in configs) / len(configs)
    work = sum(operations_of(config, vocabulary) for config in configs) / len(configs)

    def time(jobs: int) -> float:
        rounds = -(-len(configs) // jobs)
        return rounds * (fixed + work / _threads(configs, cores, jobs))

    best = 1
    for jobs in range(2, most + 1):
        if time(jobs) < WORTH_IT * time(best):
            best = jobs
    return best


def _threads(configs: Sequence[TrainConfig], cores: int, jobs: int) -> int:
    """Threads of each of so many runs at once."""
    given = [config.trainer.threads for config in configs if config.trainer.threads is not None]
    if given:
        return max(given)
    limit = os.environ.get("OMP_NUM_THREADS", "")
    fair = max(1, cores // jobs)
    return min(fair, max(1, int(limit))) if limit.isdigit() else fair


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f}"
