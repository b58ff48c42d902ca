"""A run's `config.yaml` read back, as what a stranger may have written: bounded, checked as typed.

What a run has written there is plain and resolved: it has no aliases, no interpolations, no tags.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf.errors import OmegaConfBaseException

from normlab.archive.files import read_text
from normlab.archive.record import CONFIG_FILE
from normlab.config.safe_yaml import MOST_BYTES, parse_yaml
from normlab.config.schema import merged
from normlab.config.spec import RunSpec, specify
from normlab.config.trust import UntrustedError
from normlab.errors import ConfigError, NormlabError


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
        plain = _plain(path, read_text(path, MOST_BYTES))
        return specify(merged({**plain, **(changes or {})}), choices)
    except UntrustedError:
        raise  # another sentence: such a file is whole
    except OSError as error:
        raise NormlabError(f"{path} cannot be read ({error.strerror}).") from error
    except (
        *(OmegaConfBaseException, ConfigError),
        *(ValueError, TypeError, KeyError, AttributeError, ArithmeticError),
    ) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise NormlabError(
            f"{path} is damaged or of another version ({reason}); train the run again."
        ) from error


def _plain(path: Path, text: str) -> dict[str, Any]:
    """What the YAML says. Raises ValueError or ConfigError."""
    plain = parse_yaml(path, text)
    if not isinstance(plain, dict):
        raise ValueError("it is no mapping")
    if "${" in text:
        raise ValueError("it has an interpolation")
    return plain
