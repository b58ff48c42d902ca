"""What a process of a study has imported; called in it, by name."""

import sys


def list_heavy_modules(connection: object = None) -> list[str]:
    # Lightning imports torchmetrics, and that transformers where it is installed.
    names = ("torch", "pytorch_lightning", "normlab.training.run")
    return [name for name in names if name in sys.modules]
