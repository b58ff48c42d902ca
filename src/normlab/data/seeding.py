"""Random numbers by address: the same (stream, numbers) always gives the same generator."""

from enum import IntEnum

import numpy as np

from normlab.errors import ConfigError


class Stream(IntEnum):
    """What the numbers are for, so that no two uses ever share them. Never renumber."""

    TRAINING = 1
    VALIDATION = 2


def generator(stream: Stream, seed: int, index: int) -> np.random.Generator:
    """The generator of block or batch `index` of `stream` under `seed`; independent of all others.

    Raises:
        ConfigError: `seed` is negative.
    """
    if seed < 0:
        raise ConfigError(f"seed={seed} is negative: give 0 or more.")
    entropy = np.random.SeedSequence([stream, seed, index])
    return np.random.Generator(np.random.PCG64(entropy))
