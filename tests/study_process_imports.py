"""What a forked `train.py` need not import again."""

import matplotlib.pyplot
import pytorch_lightning
import scipy.stats
import torch.utils.tensorboard

__all__ = ["matplotlib", "pytorch_lightning", "scipy", "torch"]
