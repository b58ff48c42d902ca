"""What keeping states and curves costs: python tests/faults/overhead.py [rounds].

Trains the default run with states kept every 30 s, with none but the last, and with neither
states, curves nor the check for divergence; interleaved, so that a busy machine is fair to all.
"""

import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from hydra import compose, initialize_config_dir
from omegaconf import open_dict

from normlab import config
from normlab.config.compose import register_schemas
from normlab.config.run_spec import RunSpec
from normlab.config.specify import make_run_spec
from normlab.training import run
from normlab.training.checkpoints import Checkpoints
from normlab.training.recorder import Progress, Recorder

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tiny_run import SilentDisplay

# Whose calls are clocked.
LOOP = run, "_fit_model"
STATE = Checkpoints, "_save_state"
VARIANTS = {"kept every 30 s": 30.0, "only the last kept": 1e9, "no callbacks": 1e9}


def default_run(place: Path, save_seconds: float) -> RunSpec:
    register_schemas()
    with initialize_config_dir(str(config.conf_folder()), version_base="1.3"):
        composed = compose(
            "train",
            [f"trainer.save_seconds={save_seconds}", "trainer.threads=1", f"output_dir={place}"],
            return_hydra_config=True,
        )
    choices = dict(composed.hydra.runtime.choices)
    with open_dict(composed):
        del composed["hydra"]
    return make_run_spec(composed, choices)


@contextmanager
def clocked(owner: Any, name: str, spent: list[float]) -> Iterator[None]:
    """Add the CPU seconds of every call to `spent`."""
    original: Callable[..., Any] = getattr(owner, name)

    def call(*args: Any, **kwargs: Any) -> Any:
        began = time.process_time()
        try:
            return original(*args, **kwargs)
        finally:
            spent.append(time.process_time() - began)

    with patch.object(owner, name, call):
        yield


@contextmanager
def without_callbacks() -> Iterator[None]:
    original = run.pl.Trainer
    with patch.object(
        run.pl, "Trainer", lambda **settings: original(**{**settings, "callbacks": []})
    ):
        yield


def measure(variant: str) -> tuple[float, float]:
    """CPU and wall seconds of the loop."""
    place = Path(tempfile.mkdtemp())
    spent: list[float] = []
    began = time.monotonic()
    with clocked(*LOOP, spent):
        if variant == "no callbacks":
            with without_callbacks():
                run.train(default_run(place, VARIANTS[variant]), "", SilentDisplay())
        else:
            run.train(default_run(place, VARIANTS[variant]), "", SilentDisplay())
    shutil.rmtree(place)
    return spent[0], time.monotonic() - began


def one_state() -> tuple[float, int]:
    """CPU seconds of writing a state, and how many a run of some seconds writes."""
    place, spent = Path(tempfile.mkdtemp()), []
    with clocked(*STATE, spent):
        run.train(default_run(place, 1.0), "", SilentDisplay())
    shutil.rmtree(place)
    return statistics.median(spent), len(spent)


def divergence_check(calls: int = 100_000) -> float:
    """Seconds of looking at one step's loss and gradient norm."""
    recorder = Recorder.__new__(Recorder)
    recorder.progress, recorder.limit, recorder._above = Progress(), 6.0, 0
    began = time.process_time()
    for step in range(calls):
        recorder._check_divergence(2.0, 0.5, step)
    return (time.process_time() - began) / calls


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    found: dict[str, list[tuple[float, float]]] = {variant: [] for variant in VARIANTS}
    for _ in range(rounds):
        for variant in VARIANTS:
            cpu, wall = measure(variant)
            found[variant].append((cpu, wall))
            print(f"{variant:20} cpu {cpu:6.2f} s  wall {wall:6.2f} s", flush=True)
    least = statistics.median(cpu for cpu, _ in found["no callbacks"])
    for variant, times in found.items():
        median = statistics.median(cpu for cpu, _ in times)
        print(f"{variant:20} median {median:6.2f} CPU s, {100 * (median / least - 1):+.2f} %")
    cost, count = one_state()
    print(f"a state: {1000 * cost:.1f} ms CPU (median of {count})")
    print(f"the check for divergence: {1e6 * divergence_check():.2f} µs a step")


if __name__ == "__main__":
    main()
