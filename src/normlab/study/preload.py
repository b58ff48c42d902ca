"""Imported by the fork server alone, which ends where an import raises anything but ImportError."""

from contextlib import suppress

from normlab.study import warm

with suppress(Exception):  # whoever trains says what is wrong, in its own process
    import normlab.study.worker

    normlab.study.worker.register()
    warm.load()
