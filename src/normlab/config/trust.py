"""Whose code a configuration may name: classes of torch.nn and normlab, and what the user trusts.

`docs/security.md` says what is promised. A file from elsewhere passes `gate` before Hydra reads it;
what came out of composing, from files and from the command line, is checked here once more, before
anything is imported.
"""

import os
import re
from collections.abc import Mapping
from typing import Any

from normlab.errors import ConfigError
from normlab.text import excerpt

VARIABLE = "NORMLAB_TRUST"

# Modules whose classes may be named. Never what lies deeper: a module gives away all that it
# imports, so `normlab.norms.formula.torch.hub.load` is a path too.
MODULES = ("torch.nn", "normlab.norms", "normlab.model.placement", "normlab.model.streams")
_CLASS = re.compile(r"[A-Z]\w*", re.ASCII)


class UntrustedError(ConfigError):
    """A configuration asks for code that nobody has said to trust; none of it was imported."""


def check_network(norm: Any, placement: Any) -> None:
    """Refuse a norm or a placement, as plain containers, that names code not to be trusted.

    Raises:
        UntrustedError: naming the first such key.
    """
    _check("norm", norm)
    _check("placement", placement)


def check_target(key: str, target: Any) -> None:
    """Refuse the value of a `_target_` that is not the path of a trusted class.

    Raises:
        UntrustedError: naming the key.
    """
    if isinstance(target, str):
        module, _, name = target.rpartition(".")
        if (module in MODULES and _CLASS.fullmatch(name)) or is_trusted(target):
            return
    text = excerpt(target)
    raise UntrustedError(
        f"{excerpt(key)}={text} is not trusted, so nothing was imported; allowed is a class of "
        f"{', '.join(MODULES)}. If you know its code, {VARIABLE}="
        f"{text.rpartition('.')[0] or text} in the environment trusts it."
    )


def is_trusted(path: str) -> bool:
    """Whether a dotted path lies in a package or module that NORMLAB_TRUST names."""
    words = (word.strip() for word in os.environ.get(VARIABLE, "").split(","))
    return any(path == word or path.startswith(f"{word}.") for word in words if word)


def _check(key: str, value: Any) -> None:
    """Every node, however deep: building one builds those inside it first."""
    if isinstance(value, Mapping):
        if "_target_" in value:
            check_target(f"{key}._target_", value["_target_"])
        for name, item in value.items():
            _check(f"{key}.{name}", item)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _check(f"{key}.{index}", item)
    elif isinstance(value, bytes) or (isinstance(value, str) and "${" in value):
        # Hydra resolves what it builds once more: \${…} would become a node after the check.
        raise UntrustedError(
            f"{excerpt(key)}={excerpt(value)} cannot be checked; a value is a number, true, "
            f"false, null, text without ${{, a list or a mapping."
        )
