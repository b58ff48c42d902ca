"""A run's `config.yaml` read back, as what a stranger may have written: bounded, checked as typed.

What a run has written there is plain and resolved: it has no aliases, no interpolations, no tags.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from omegaconf.errors import OmegaConfBaseException

from normlab.archive.files import read_text
from normlab.archive.record import CONFIG_FILE
from normlab.config.schema import merged
from normlab.config.spec import RunSpec, specify
from normlab.config.trust import UntrustedError
from normlab.errors import ConfigError, NormlabError

# Bytes and levels; a run writes about 3,000 and 6.
LARGEST_CONFIG = 2**17
_DEEPEST = 32


def stored_spec(
    folder: Path, choices: Mapping[str, str], changes: Mapping[str, str] | None = None
) -> RunSpec:
    """The run that the folder's `config.yaml` describes, with `changes` of its first-level keys.

    It goes through the same types and checks as a configuration that is composed.

    Raises:
        UntrustedError: it names code that is not to be trusted.
        NormlabError: it is missing, damaged, of another version, or cannot be trained.
    """
    path = folder / CONFIG_FILE
    try:
        plain = _plain(read_text(path, LARGEST_CONFIG))
        return specify(merged({**plain, **(changes or {})}), choices)
    except UntrustedError:
        raise  # another sentence: such a file is whole
    except OSError as error:
        raise NormlabError(f"{path} cannot be read ({error.strerror}).") from error
    except (
        *(yaml.YAMLError, OmegaConfBaseException, ConfigError),
        *(ValueError, TypeError, KeyError, AttributeError, ArithmeticError),
    ) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise NormlabError(
            f"{path} is damaged or of another version ({reason}); train the run again."
        ) from error


def _plain(text: str) -> dict[str, Any]:
    """What the YAML says. Raises ValueError or YAMLError."""
    depth = 0
    # Event by event, so that nothing is built of what is not going to be read.
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise ValueError("it has an alias")
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST:
            raise ValueError("it is nested too deeply")
    plain = yaml.safe_load(text)
    if not isinstance(plain, dict):
        raise ValueError("it is no mapping")
    _check_values(plain)
    return plain


def _check_values(value: Any) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            _check_values(key)
            _check_values(item)
    elif isinstance(value, list):
        for item in value:
            _check_values(item)
    elif isinstance(value, str):
        if "${" in value:
            raise ValueError("it has an interpolation")
    elif isinstance(value, int) and abs(value) >= 2**63:
        raise ValueError("it has a number beyond 64 bits")
    elif not isinstance(value, int | float | None):
        raise ValueError(f"it has a value of type {type(value).__name__}")
