"""Imported by the fork server alone, for its effect: what its processes need is imported once.

A file of its own, because the server only imports modules by name, and ends where an import raises
anything but ImportError. Nothing here may compute: OpenMP's threads, once started, do not survive a
fork.
"""

from contextlib import suppress

with suppress(Exception):  # whoever trains imports it again, and reports what is wrong
    from normlab.study import workers

    workers.import_training()
