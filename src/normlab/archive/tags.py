"""The names of what a run measures, as they stand in the event files.

Step is always the number of optimizer steps done, so `train/loss` at step 0 is the loss at
initialization, and `val/loss` at step s belongs to the same weights as `train/loss` at step s.
"""

TRAIN_LOSS = "train/loss"
LEARNING_RATE = "train/lr"
GRADIENT_NORM = "train/grad_norm"
VALIDATION_LOSS = "val/loss"
BEST_VALIDATION_LOSS = "val/best"
TOKENS_PER_SECOND = "perf/tokens_per_second"

# What the HParams page shows as a run's result.
FINAL_VALIDATION_LOSS = "final/val_loss"
FINAL_TRAIN_LOSS = "final/train_loss"

# The final validation loss over the windows of even and of odd index.
FINAL_SELECTION_LOSS = "final/selection_loss"
FINAL_TEST_LOSS = "final/test_loss"

# The run's record (JSON in a Markdown fence), so that the event files alone tell what a run was.
RECORD = "record/text_summary"

# Measurements inside the model: probe/<quantity>/<site>, sites as block_03/attention (blocks are
# counted from 1), embedding and head; norms as block_03/attention/input, embedding and final.
PROBES = "probe/"

INPUT_RMS = "input_rms"
OUTPUT_RMS = "output_rms"
OUTPUT_MAX = "output_max"
STREAM_RMS = "stream_rms"
STREAM_MAX = "stream_max"
STREAM_VARIANCE = "stream_variance"
STREAM_GRADIENT = "stream_gradient"
ANGLE = "angle"
ATTENTION_ENTROPY = "attention_entropy"
ATTENTION_LOGIT = "attention_logit"
PARAMETER_GRADIENT = "gradient_norm"
UPDATE_RATIO = "update_ratio"
SATURATION = "saturation"

# What each quantity is, with its unit. Of a norm's own parameters the quantity has their name:
# `alpha` where it is one number, `gain_mean` and `gain_std` where there are several, beside a
# histogram of them, `gain_distribution`.
QUANTITIES = {
    INPUT_RMS: "root mean square of the sublayer's input",
    OUTPUT_RMS: "root mean square of the sublayer's output",
    OUTPUT_MAX: "largest magnitude in the sublayer's output",
    STREAM_RMS: "root mean square of the residual stream after the site",
    STREAM_MAX: "largest magnitude in the residual stream after the site",
    STREAM_VARIANCE: "variance over the features of the stream after the site, mean over tokens",
    STREAM_GRADIENT: "L2 norm of the gradient of the mean loss with respect to the residual stream "
    "after the site",
    ANGLE: "angle between the stream before and after the block, divided by π, mean over tokens",
    ATTENTION_ENTROPY: "entropy of the attention weights, in nats, mean over queries and heads",
    ATTENTION_LOGIT: "largest attention logit before the softmax",
    PARAMETER_GRADIENT: "length of the gradient of the site's weights before clipping",
    UPDATE_RATIO: "length of the optimizer's update of the site's weights over their own length",
    SATURATION: "share of features with |alpha x + shift| > 2 (tanh(2) = 0.96)",
}


def probe_tag(quantity: str, site: str) -> str:
    """The tag of a measurement inside the model."""
    return f"{PROBES}{quantity}/{site}"


def split_probe_tag(tag: str) -> tuple[str, str] | None:
    """Quantity and site of a probe's tag; None for any other tag."""
    if not tag.startswith(PROBES):
        return None
    quantity, _, site = tag.removeprefix(PROBES).partition("/")
    return quantity, site
