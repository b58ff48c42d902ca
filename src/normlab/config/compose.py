"""Hydra's composition of normlab's configuration, outside of `hydra.main`, behind the gate."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from normlab import config
from normlab.config.explain import explain, is_configuration_error
from normlab.config.gate import check_folder, check_overrides
from normlab.config.schema import register
from normlab.errors import ConfigError


@contextmanager
def composed_config(
    overrides: Sequence[str], config_dir: Path | None = None
) -> Iterator[tuple[ConfigLoader, DictConfig]]:
    """Hydra's loader, and the whole configuration with these overrides, `hydra` included.

    `config_dir` holds options of the user's own. Errors of Hydra's, here and in the body, are
    raised as sentences.

    Raises:
        ConfigError: the folder is not there, or the configuration cannot be composed.
        UntrustedError: a file or an override asks for what is not allowed.
    """
    if config_dir is not None and not config_dir.is_dir():
        raise ConfigError(
            f"--config-dir {config_dir} is not a folder; give one with <group>/<name>.yaml."
        )
    register()
    folders = [] if config_dir is None else [config_dir]
    check_overrides(overrides, folders)
    for folder in folders:
        check_folder(folder)
    search = [f"hydra.searchpath=[{quote_folder(folder)}]" for folder in folders]
    try:
        with initialize_config_dir(str(config.folder()), version_base="1.3"):
            loader = GlobalHydra.instance().config_loader()
            yield loader, compose("train", [*search, *overrides], return_hydra_config=True)
    except Exception as error:
        if not is_configuration_error(error):
            raise
        raise explain(error) from error


def quote_folder(folder: Path) -> str:
    """A folder as an entry of Hydra's search path in an override."""
    path = str(folder.resolve()).replace("\\", "\\\\").replace("'", "\\'")
    return f"'file://{path}'"
