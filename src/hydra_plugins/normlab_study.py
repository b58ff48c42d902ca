"""The only place where Hydra looks for plugins; they are in `normlab.study`."""

from normlab.study import sweep, workers


class StudySweeper(sweep.StudySweeper):
    """`hydra/sweeper: study`."""


class StudyLauncher(workers.StudyLauncher):
    """`hydra/launcher: study`."""
