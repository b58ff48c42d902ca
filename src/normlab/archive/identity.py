"""Who a run is: a hash of the configuration that decides its numbers, and a readable name."""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from normlab.errors import ConfigError

# Keys that say where and how results are made and kept, and cannot change them; `budget` is only
# where trainer.max_steps and trainer.val_every come from.
_INDIFFERENT = ("study", "output_dir", "jobs", "measure", "figure", "logger", "budget")
_INDIFFERENT_OF_TRAINER = ("log_every", "save_seconds", "gradient_checkpointing")

# What filesystems take, in bytes: a name, and a whole path with room for what stands below it.
_LONGEST_NAME, _LONGEST_PATH = 255, 3000

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def fingerprint(config: Mapping[str, Any]) -> str:
    """Eight hexadecimal digits of the resolved configuration, without what cannot matter."""
    decisive = {key: value for key, value in config.items() if key not in _INDIFFERENT}
    trainer = config.get("trainer", {})
    decisive["trainer"] = {k: v for k, v in trainer.items() if k not in _INDIFFERENT_OF_TRAINER}
    text = json.dumps(decisive, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def run_name(norm: str, placement: str, lr: float, seed: int, identifier: str) -> str:
    """`rmsnorm-pre-lr3e-3-s0-1a2b3c4d`: readable, unique, and safe as the name of a folder."""
    arm = "-".join(said(norm, placement))
    arm = re.sub(r"[^A-Za-z0-9._-]", "_", arm).lstrip("._-")[:48]
    return f"{arm}-lr{_number_in_name(lr)}-s{seed}-{identifier}"


def said(norm: str, placement: str) -> list[str]:
    """Norm and placement as they are shown: `any`, which makes no difference, is left out."""
    return [word for word in (norm, placement) if word != "any"]


def short_number(value: float) -> str:
    """3e-2, 1.5e-4, 0.1 or 12: as a number of a configuration, or a tick, is written everywhere."""
    return f"{value:g}" if value == 0 or 0.1 <= abs(value) < 1e4 else _scientific(value)


def _number_in_name(value: float) -> str:
    """The same but for 0.01 to 0.1, as the folders of runs have always been called."""
    return f"{value:g}" if 0.01 < abs(value) < 0.1 else short_number(value)


def _scientific(value: float) -> str:
    mantissa, exponent = f"{value:e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def check_study_name(name: str) -> None:
    """Refuse a study name that is not the plain name of a folder.

    Raises:
        ConfigError: it holds a separator, begins with a dot, or is too long.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"study={name!r} cannot be the name of a folder; use up to 64 letters, digits, "
            f"dots, dashes and underscores, beginning with a letter or digit."
        )


def check_output_dir(path: str) -> None:
    """Refuse a path that no folder can have; any other place is the user's to choose.

    Raises:
        ConfigError: it holds what cannot be printed, or is too long.
    """
    size = max(len(name.encode()) for name in path.split("/"))
    if not path.isprintable() or size > _LONGEST_NAME or len(path.encode()) > _LONGEST_PATH:
        raise ConfigError(
            f"output_dir={path[:60]!r}… cannot be a folder; give a path whose names have up to "
            f"{_LONGEST_NAME} characters, all of which can be printed."
        )
