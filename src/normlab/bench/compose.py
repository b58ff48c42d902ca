"""normlab's own configuration from overrides, as train.py would read them."""

from collections.abc import Sequence

from omegaconf import open_dict

from normlab.config.compose import composed_config
from normlab.config.run_spec import RunSpec, make_run_spec


def specified(overrides: Sequence[str]) -> RunSpec:
    """The run that these overrides make; of two of one key, the later.

    Raises:
        ConfigError: it cannot be trained.
    """
    last = {override.partition("=")[0]: override for override in overrides}
    with composed_config(list(last.values())) as (_, composed):
        pass
    choices = dict(composed.hydra.runtime.choices)
    with open_dict(composed):
        del composed["hydra"]
    return make_run_spec(composed, choices)
