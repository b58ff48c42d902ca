"""LayerNorm's time over RMSNorm's, each implementation of one beside the same of the other."""

from normlab.study.claims.measuring import Measurement, Series, Size

_TOKENS, _WIDTH = 1024, 512


def _measure(size: Size) -> Series:
    """`fused`, `torch`, `composite`, `compiled`: forward and backward, a ratio for every round."""
    from normlab.study.measure.speed import times

    timed, _ = times([(_TOKENS, _WIDTH)], size.rounds, 0, lambda _: None)
    both = {(one.way, one.norm): one.both for one in timed}
    return {
        way: [slow / fast for slow, fast in zip(of, both[way, "rmsnorm"], strict=True)]
        for (way, norm), of in both.items()
        if norm == "layernorm" and (way, "rmsnorm") in both
    }


NORM_TIME = Measurement(
    _measure,
    f"forward and backward of {_TOKENS}×{_WIDTH} in fp32, in turn, in one process",
    over="round",
)
