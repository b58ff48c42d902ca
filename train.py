"""Train one run, or a study: python train.py -m norm=rmsnorm,layernorm placement=pre,post."""

import signal
import sys

if __name__ == "__main__":
    # Nothing has begun before `main` listens: Ctrl-C ends it without the traceback of an import.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if {"-m", "--multirun"} & set(sys.argv):
        from normlab.study import engine

        engine.begin()  # torch is imported beside this process, from now on
    from normlab.study.main import main

    main()
