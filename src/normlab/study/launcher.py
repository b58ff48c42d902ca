"""Hydra's launcher for studies: runs side by side, each in a process that can die alone."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.utils import JobReturn
from omegaconf import DictConfig, open_dict

from normlab.config.run_spec import RunSpec

if TYPE_CHECKING:
    from normlab.study.share import Share


class StudyLauncher(BasicLauncher):
    """Trains jobs as its `share` says; without one, or with a single job, in this process."""

    def __init__(self) -> None:
        super().__init__()
        self.share: Share | None = None
        self.specs: Sequence[RunSpec] = ()

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Train the jobs; what each returned or raised, in their order.

        Raises:
            KeyboardInterrupt: a signal stopped them, and their states are saved.
        """
        if self.share is None or len(job_overrides) == 1:
            return super().launch(job_overrides, initial_job_idx)
        # Hydra imports every launcher at its start; what this one needs comes when it is used.
        from normlab.study.share import threads_of
        from normlab.study.side_by_side import Job, SideBySide

        jobs = [
            Job(number, list(overrides), spec, threads_of(spec, self.share))
            for number, (overrides, spec) in enumerate(zip(job_overrides, self.specs, strict=True))
        ]
        return SideBySide(self, self.share, jobs, initial_job_idx).run()

    def composed(self, overrides: Sequence[str], number: int) -> DictConfig:
        """A job's configuration, as Hydra's own launcher makes it."""
        assert self.config is not None
        assert self.hydra_context is not None
        config = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = number
        return config
