"""The numbers of the interactive page's stack of blocks, measured in real models.

    python scripts/docs/stack_data.py

builds 150 models at initialization with seed 0 and measures each with a batch of the default
synthetic data (about five minutes on two cores). It writes docs/learn/interactive/stack_data.js, a
script and not JSON because a page that is opened as a file can load only a script.
"""

import json
from itertools import product
from pathlib import Path
from typing import Any

from normlab.apps.probe.main import probe_models
from normlab.apps.probe.record import ProbedModel
from normlab.archive import tags
from normlab.archive.files import write_text

SCRIPT = Path(__file__).resolve().parents[2] / "docs" / "learn" / "interactive" / "stack_data.js"
DEPTHS = (2, 4, 8, 16, 32)
INIT_STDS = (0.01, 0.02, 0.04, 0.08, 0.16)
PLACEMENTS = ("pre", "post", "sandwich", "output", "parallel")
NO_NORM = "none"
# Embeddings of standard deviation 1 and projections whose scale does not fall with depth, so that
# depth and the standard deviation of the projections are all that varies.
FIXED = ("model.tie=false", "model.init.embedding=1", "model.init.output=1", "data.batch_size=4")


def measure_stacks(
    placements: tuple[str, ...], depths: tuple[int, ...], stds: tuple[float, ...]
) -> list[dict[str, Any]]:
    """One record per model: what the page draws of it, after each block.

    Placement `none` is the residual network without any norm. The stream's RMS is over batch, time
    and features; the gradient is the length of that of the mean loss (nats) by the stream.
    """
    varied = (
        f"model.depth={','.join(map(str, depths))}",
        f"model.init.std={','.join(map(str, stds))}",
        *FIXED,
    )
    normed = [name for name in placements if name != NO_NORM]
    models: list[tuple[str, ProbedModel]] = []
    if normed:
        result = probe_models(["norm=rmsnorm", f"placement={','.join(normed)}", *varied])
        models += [(model.placement, model) for model in result.measurements]
    if NO_NORM in placements:
        # Without a norm these placements are the same network, so one of them stands for all.
        result = probe_models(["norm=none", "placement=pre", *varied])
        models += [(NO_NORM, model) for model in result.measurements]
    records = [stack_record(placement, model, stds) for placement, model in models]
    order = list(product(placements, depths, stds))
    return sorted(records, key=lambda r: order.index((r["placement"], r["depth"], r["std"])))


def stack_record(
    placement: str, model: ProbedModel, stds: tuple[float, ...] = INIT_STDS
) -> dict[str, Any]:
    """What the page draws of one model."""
    settings = dict(setting.split("=") for setting in model.settings)
    return {
        "placement": placement,
        "depth": model.depth,
        "std": float(settings.get("std", stds[0])),  # one value alone is no setting that varies
        "loss": round_number(model.loss),
        "stream": [round_number(value) for value in model.by_block(tags.STREAM_RMS)],
        "gradient": [round_number(value) for value in model.by_block(tags.STREAM_GRADIENT)],
    }


def round_number(value: float | None) -> float | None:
    """Four significant digits; None where there is no finite number, as JSON has no NaN."""
    if value is None or value != value:
        return None
    return float(f"{value:.4g}")


def stack_script(records: list[dict[str, Any]]) -> str:
    """The script: one constant with the axes and all models, a model a line."""
    axes = json.dumps({"placements": [*PLACEMENTS, NO_NORM], "depths": DEPTHS, "stds": INIT_STDS})
    lines = ",\n".join(json.dumps(record) for record in records)
    return (
        "// Written by python scripts/docs/stack_data.py: models at initialization, seed 0, "
        f"norm=rmsnorm,\n// {' '.join(FIXED)}.\n"
        f'const STACKS = {{"axes": {axes}, "models": [\n{lines}\n]}};\n'
    )


if __name__ == "__main__":
    write_text(SCRIPT, stack_script(measure_stacks((*PLACEMENTS, NO_NORM), DEPTHS, INIT_STDS)))
    print(f"wrote {SCRIPT}")
