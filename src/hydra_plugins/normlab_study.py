"""The only place where Hydra looks for plugins; they are in `normlab.study`."""

from normlab.study import parallel_runs, sweep


class StudySweeper(sweep.StudySweeper):
    """`hydra/sweeper: study`."""


class StudyLauncher(parallel_runs.StudyLauncher):
    """`hydra/launcher: study`."""
