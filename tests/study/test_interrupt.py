"""Ctrl-C: the run says that it was stopped, the figures are drawn, the same command goes on."""

import signal
import subprocess
import sys
import time
from pathlib import Path

from normlab.archive.record import RunRecord
from tiny import TINY

ROOT = Path(__file__).resolve().parents[2]


def test_ctrl_c_stops_in_words_and_draws_what_is_there(tmp_path: Path) -> None:
    command = [sys.executable, "train.py", "-m", "seed=0,1", *TINY, "trainer.max_steps=100000"]
    command.append("trainer.save_seconds=0.1")
    process = subprocess.Popen(
        [*command, f"output_dir={tmp_path}"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    study = tmp_path / "synthetic"
    deadline = time.monotonic() + 60
    # A second state is one after some steps; the first validation already leaves a best one.
    while len(list(study.glob("*/checkpoints/previous.ckpt"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "saving, then stopping" in err
    assert "stopped; the same command goes on where it was" in err
    assert "Traceback" not in err
    records = [RunRecord.read(path.parent) for path in study.glob("*/run.json")]
    assert len(records) == 2
    for record in records:
        assert record.state == "interrupted"
        assert record.reason == f"stopped by SIGINT at step {record.step}"
        assert record.step > 0
    assert (study / "figures" / "comparison.png").is_file()
