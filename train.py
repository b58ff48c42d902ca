"""Train one run, or a study: python train.py -m norm=rmsnorm,layernorm placement=pre,post."""

from normlab.door import study

if __name__ == "__main__":
    study()
