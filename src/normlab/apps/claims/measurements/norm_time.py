"""LayerNorm's time over RMSNorm's, each implementation of one beside the same of the other."""

import os

from normlab.apps.claims.measurement import Measurement, Series, Size
from normlab.errors import NormlabError
from normlab.study.machine import cores

_TOKENS, _WIDTH = 1024, 512


def _measure(size: Size) -> Series:
    """`fused`, `torch`, `composite`, `compiled`: forward and backward, a ratio for every round."""
    check_quiet()
    from normlab.apps.experiments.layernorm_vs_rmsnorm_measurement import time_norms

    timed, _ = time_norms([(_TOKENS, _WIDTH)], size.rounds, 0, lambda _: None)
    both = {(one.way, one.norm): one.both for one in timed}
    return {
        way: [slow / fast for slow, fast in zip(of, both[way, "rmsnorm"], strict=True)]
        for (way, norm), of in both.items()
        if norm == "layernorm" and (way, "rmsnorm") in both
    }


def check_quiet() -> None:
    """Refuse to time anything beside other work: a ratio of times would be of chance.

    Raises:
        NormlabError: more is running than there are cores.
    """
    load = os.getloadavg()[0]
    if load > cores():
        raise NormlabError(
            f"this machine is too busy to time anything (load {load:.1f} on {cores()} cores); the "
            f"same command measures it when it is quiet."
        )


NORM_TIME = Measurement(
    _measure,
    f"forward and backward of {_TOKENS}×{_WIDTH} in fp32, in turn, in one process",
    over="round",
)
