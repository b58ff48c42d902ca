"""The only place where Hydra looks for plugins; the room itself is `normlab.study`."""

from normlab.study import launcher, sweeper


class StudySweeper(sweeper.StudySweeper):
    """`hydra/sweeper: study`."""


class StudyLauncher(launcher.StudyLauncher):
    """`hydra/launcher: study`."""
