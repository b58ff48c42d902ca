"""Imported for its effect: all that training imports, before processes are forked from this one.

The fork server of `normlab.study.workers` imports it, and so does whoever trains in its own
process. It must not compute: OpenMP's threads, once started, do not survive a fork. Garbage is not
looked for meanwhile, which is a fifth of the time, nor later among what is imported, which would
slow every process that is forked from here.
"""

import gc
from contextlib import suppress

gc.disable()
with suppress(Exception):  # who trains imports it again, and reports what is wrong
    pass
gc.freeze()
gc.enable()
