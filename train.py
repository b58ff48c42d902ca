"""Train one run, or a study: python train.py -m norm=rmsnorm,layernorm placement=pre,post."""

from normlab.study.main import main

if __name__ == "__main__":
    main()
