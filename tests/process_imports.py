"""What a process of a study has imported; called in it, by name."""

import gc
import sys


def list_heavy_modules(connection: object = None) -> tuple[list[str], bool, bool]:
    """Those there are; whether garbage is looked for; whether most objects are exempt from it."""
    # Lightning imports torchmetrics, and that transformers where it is installed.
    names = ("torch", "pytorch_lightning", "normlab.training.run")
    modules = [name for name in names if name in sys.modules]
    return modules, gc.isenabled(), gc.get_freeze_count() > 10 * gc.get_count()[0]
