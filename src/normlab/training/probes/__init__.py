"""Measurements inside the model, in training and at initialisation; they change nothing.

    found = at_initialization(model, (tokens, targets))
    found["stream_rms", "block_03/attention"]

gives every quantity of `normlab.archive.tags.QUANTITIES` that needs no update, by (quantity,
site). Tokens and targets are (B, T) int64 tensors, the model a `normlab.model.gpt.GPT`. In
training, `callback.Probes` measures before the update of every so many steps, and writes the
same under `probe/<quantity>/<site>`. Blocks are counted from 1.

What is measured is a pass of its own, without dropout, whatever compiles or checkpoints the
training: that it draws nothing and leaves no trace is tested, to the bit. Where the residual is
two streams (ResiDual, SiameseNorm), `stream_…` is the one that is normalised as it goes, and
`stream_2_…` the one that is not; a stream that is no tensor and no tuple of them is passed over.
"""

from normlab.training.probes.activations import activations
from normlab.training.probes.initialization import at_initialization, output_change

__all__ = ["activations", "at_initialization", "output_change"]
