"""What measures a learner's solution, by the exercise's name: of a module, or of a YAML file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from normlab.apps.learn.judges.attention import judge_qk_norm
from normlab.apps.learn.judges.blocks import judge_postln_block, judge_preln_block
from normlab.apps.learn.judges.card import judge_beat_rmsnorm
from normlab.apps.learn.judges.diverging_run import judge_nan_at_step_100
from normlab.apps.learn.judges.formula import judge_formula
from normlab.apps.learn.judges.initialization import judge_deepnorm_init
from normlab.apps.learn.judges.leak import judge_find_the_leak
from normlab.apps.learn.judges.linear_maps import judge_fold_gain, judge_layernorm_backward
from normlab.apps.learn.judges.norms import judge_layernorm, judge_rmsnorm, judge_scalenorm

MODULE_JUDGES: dict[str, Callable[[Any], None]] = {
    "rmsnorm": judge_rmsnorm,
    "layernorm": judge_layernorm,
    "layernorm_backward": judge_layernorm_backward,
    "scalenorm": judge_scalenorm,
    "fold_gain": judge_fold_gain,
    "preln_block": judge_preln_block,
    "postln_block": judge_postln_block,
    "qk_norm": judge_qk_norm,
    "deepnorm_init": judge_deepnorm_init,
    "find_the_leak": judge_find_the_leak,
    "beat_rmsnorm": judge_beat_rmsnorm,
}
FILE_JUDGES: dict[str, Callable[[Path], None]] = {
    "formula": judge_formula,
    "nan_at_step_100": judge_nan_at_step_100,
}
