"""normlab's own configuration from overrides, as train.py would read them."""

from collections.abc import Sequence

from hydra import compose, initialize_config_dir
from omegaconf import open_dict

from normlab import config
from normlab.config.explain import explain, is_configuration_error
from normlab.config.schema import register
from normlab.config.spec import RunSpec, specify


def specified(overrides: Sequence[str]) -> RunSpec:
    """The run that these overrides make; of two of one key, the later.

    Raises:
        ConfigError: it cannot be trained.
    """
    register()
    last = {override.partition("=")[0]: override for override in overrides}
    try:
        with initialize_config_dir(str(config.folder()), version_base="1.3"):
            composed = compose("train", list(last.values()), return_hydra_config=True)
    except Exception as error:
        if not is_configuration_error(error):
            raise
        raise explain(error) from error
    choices = dict(composed.hydra.runtime.choices)
    with open_dict(composed):
        del composed["hydra"]
    return specify(composed, choices)
