"""What a process of a study has imported; called in it, by name."""

import sys


def list_heavy_modules() -> list[str]:
    names = ("torch", "pytorch_lightning", "normlab.training.run", "transformers", "torchmetrics")
    return [name for name in names if name in sys.modules]
