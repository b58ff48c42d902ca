"""The only place where Hydra looks for sweepers; the room itself is `normlab.study`."""

from normlab.study import sweeper


class StudySweeper(sweeper.StudySweeper):
    """`hydra/sweeper: study`."""
