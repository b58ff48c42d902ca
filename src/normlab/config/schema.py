"""The type of every key in conf/. Hydra merges the YAML files into these, so a typo cannot pass.

`norm` alone stays open: any class that takes the width may stand there, with its arguments.
`validation.py` says which values of a type are allowed. No torch: a wrong key must be answered
before anything heavy is imported.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from omegaconf import MISSING, DictConfig, OmegaConf

from normlab.config.placement import NormConfig, PlacementConfig, ResolvedPlacement


class Positions(Enum):
    """How a token's position reaches the model."""

    learned = "learned"
    rotary = "rotary"


class FeedForwardKind(Enum):
    """The pointwise network of a block."""

    gelu = "gelu"
    relu = "relu"
    swiglu = "swiglu"


class InitScheme(Enum):
    """The standard deviation of a projection: one for all, or by its shape."""

    normal = "normal"
    xavier = "xavier"


class AttentionKernel(Enum):
    """How attention is computed; the function is the same."""

    auto = "auto"
    explicit = "explicit"
    sdpa = "sdpa"


class Decay(Enum):
    """What the learning rate does after warm-up."""

    constant = "constant"
    cosine = "cosine"
    linear = "linear"


class Device(Enum):
    """Where a run trains; `auto` takes a GPU if there is one."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    mps = "mps"


class SyntheticSource(Enum):
    """What the synthetic language is made of."""

    markov = "markov"
    random = "random"


class StudyFigure(Enum):
    """A figure that tells what one experiment shows, with a paragraph."""

    norm_comparison = "norm_comparison"
    prenorm_vs_postnorm = "prenorm_vs_postnorm"
    block = "block"


class Tokens(Enum):
    """What a token of a text is."""

    characters = "characters"
    bpe = "bpe"


class Measure(Enum):
    """What an experiment measures without training anything."""

    gradient_vanishing = "gradient_vanishing"
    layernorm_vs_rmsnorm = "layernorm_vs_rmsnorm"
    precision = "precision"


@dataclass
class InitConfig:
    """Standard deviations at initialization; `output` multiplies those that write to the stream."""

    std: float = 0.02
    output: Any = 1.0  # a number, or an expression in L (blocks)
    scheme: InitScheme = InitScheme.normal  # xavier: √(2 / (fan in + fan out)) in place of std
    embedding: float | None = None  # of embeddings and positions; None: std
    query_key: float = 1.0  # factor of queries and keys; with 0 attention begins as an average
    # Where a learned factor of what enters the first block starts; None: there is none. DyT's LLaMA
    # has one that starts at sqrt(width) (2503.10622, appendix A).
    embedding_scale: float | None = None


@dataclass
class ModelConfig:
    """A decoder-only Transformer."""

    depth: int = 4
    width: int = 128
    heads: int = 4
    kv_heads: int | None = None  # None: as many as heads
    context: int = 64
    positions: Positions = Positions.learned
    # RoFormer's (2104.09864).
    rotary_base: float = 10000.0
    feedforward: FeedForwardKind = FeedForwardKind.gelu
    hidden_ratio: float = 4.0
    hidden_multiple: int = 1
    bias: bool = False
    tie: bool = True
    dropout: float = 0.0
    attention: AttentionKernel = AttentionKernel.auto
    init: InitConfig = field(default_factory=InitConfig)

    @property
    def hidden_width(self) -> int:
        """`width` · `hidden_ratio`, rounded up to a multiple of `hidden_multiple`."""
        multiples = self.width * self.hidden_ratio / self.hidden_multiple
        # 100 · 2.2 is 220.00000000000003 in floating point, and means 220.
        return math.ceil(round(multiples, 9)) * self.hidden_multiple

    def norm_sites(self, network: ResolvedPlacement) -> Iterator[tuple[str, NormConfig, int]]:
        """Every norm of this model with this placement: its site, its config and its width."""
        for site, norm in network.ends.items():
            if norm is not None:
                yield site, norm, self.width
        head = self.width // self.heads
        keys = head * (self.kv_heads or self.heads)  # and values: the width of all their heads
        for block in network.blocks:
            for sublayer, wiring in block.items():
                widths = dict.fromkeys(wiring.norms, self.width)
                if sublayer == "feedforward":
                    widths["inner"] = self.hidden_width
                if wiring.head_norm == "head":
                    widths |= {"q": head, "k": head, "v": head}
                else:
                    widths |= {"k": keys, "v": keys}
                for site, norm in wiring.norms.items():
                    if norm is not None:
                        yield site, norm, widths[site]


@dataclass
class DataConfig:
    """What every source of tokens has."""

    kind: str = MISSING
    batch_size: int = MISSING
    validation_windows: int | None = None  # sequences that a loss is judged on; None: all there are


@dataclass
class SyntheticData(DataConfig):
    """An endless language whose best possible loss is known."""

    source: SyntheticSource = SyntheticSource.markov
    vocabulary: int = 8
    order: int = 1
    concentration: float = 0.2
    validation_windows: int | None = 256


@dataclass
class ShakespeareData(DataConfig):
    """TinyShakespeare, by character."""

    path: str | None = None
    validation_fraction: float = 0.1


@dataclass
class TextData(DataConfig):
    """The user's own text."""

    path: str = MISSING
    tokens: Tokens = Tokens.characters
    vocabulary: int = 1024
    validation_fraction: float = 0.1


@dataclass
class OptimizerConfig:
    """AdamW; weight decay falls on matrices only."""

    lr: float = 1e-3
    # nanoGPT's for TinyShakespeare, as the weight decay is.
    betas: list[float] = field(default_factory=lambda: [0.9, 0.99])
    eps: float = 1e-8
    weight_decay: float = 0.1


@dataclass
class ScheduleConfig:
    """Learning rate over a run; the lengths are shares of the run, so they follow the budget."""

    decay: Decay = Decay.cosine
    warmup: float = 0.05
    decay_share: float = 1.0  # the last part of the run over which the decay happens
    final_ratio: float = 0.1  # last learning rate over the highest


@dataclass
class BudgetConfig:
    """How long a run is, in optimizer steps."""

    max_steps: int = MISSING
    val_every: int = MISSING


@dataclass
class TrainerConfig:
    """How a run is carried out."""

    max_steps: int = MISSING
    val_every: int = MISSING
    log_every: int = 10
    # A checkpoint of the default model takes 11 ms: 0.04 % of the time (docs/reliability.md).
    save_seconds: float = 30.0  # from one checkpoint to the next
    gradient_clip: float | None = 1.0
    accumulate: int = 1
    precision: str = "auto"  # auto, 32-true, bf16-mixed, or on a GPU 16-mixed
    device: Device = Device.auto
    threads: int | None = None
    compile: Any = "auto"  # true, false, auto or graphs
    stack: Any = "auto"  # how many runs of a study train as one batched model: a number, or auto
    gradient_checkpointing: bool = False  # blocks are computed again backwards, for less memory
    divergence_limit: float = 3.0  # times the loss of a uniform guess


@dataclass
class LoggerConfig:
    """What TensorBoard gets."""

    flush_seconds: int = 30
    layout: bool = True
    card: bool = True


@dataclass
class ProbesConfig:
    """Measurements inside the model while it trains."""

    every: int | None = None  # optimizer steps from one to the next; None: none


@dataclass
class TrainConfig:
    """One run."""

    seed: int = 0
    study: str = MISSING
    output_dir: str = "outputs"
    jobs: Any = "auto"  # how many runs of a study at once: a number, or auto
    margin: float | None = None  # arms that differ by less end the same; nats per token
    target: float | None = None  # the loss to which steps are counted; nats per token
    allow_leak: bool = False  # trains what sees the tokens it has to predict, stamped INVALID
    measure: Measure | None = None  # None: runs are trained
    figure: StudyFigure | None = None  # what the study ends in, beside the usual figures
    norm: Any = MISSING
    placement: PlacementConfig = MISSING
    data: DataConfig = MISSING
    model: ModelConfig = MISSING
    optimizer: OptimizerConfig = MISSING
    schedule: ScheduleConfig = MISSING
    budget: BudgetConfig = MISSING
    trainer: TrainerConfig = MISSING
    logger: LoggerConfig = MISSING
    probes: ProbesConfig = field(default_factory=ProbesConfig)


DATA: dict[str, type[DataConfig]] = {
    "synthetic": SyntheticData,
    "shakespeare": ShakespeareData,
    "text": TextData,
}


def default_study_name(*, _root_: DictConfig) -> str:
    """The name of a study by its data, for losses on other data are not comparable."""
    data = _root_.data
    if data.kind != "text" or OmegaConf.is_missing(data, "path"):
        return str(data.kind)
    # A file or folder gives its name, a pattern all of its text.
    pattern = str(data.path)
    text = pattern if any(sign in pattern for sign in "*?[") else Path(pattern).stem
    words = re.sub(r"[^A-Za-z0-9]+", "_", text).strip("_")[-40:]
    parts = ["text", words, *(["bpe", str(data.vocabulary)] if data.tokens is Tokens.bpe else [])]
    return "-".join(part for part in parts if part)
