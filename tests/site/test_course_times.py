"""Every run of the course is timed: each prediction, each command that trains, each check."""

import math
from pathlib import Path

import yaml

from course_times import COURSE, find_commands, time_command


def test_every_prediction_and_every_solution_is_timed() -> None:
    commands = list(find_commands())
    predictions = yaml.safe_load((COURSE / "predictions.yaml").read_text(encoding="utf-8"))
    for prediction in predictions:
        (command,) = [line for line in commands if f" predict {prediction['id']} " in line]
        low, high = prediction.get("range", (-math.inf, math.inf))
        assert low <= float(command.split("--guess ")[1]) <= high  # or it would be refused
    for solution in (COURSE / "solutions").iterdir():
        assert f"normlab-learn check docs/learn/solutions/{solution.name}" in commands
    assert "python train.py -m norm=rmsnorm study=leak trainer.max_steps=200" in commands
    assert "python train.py experiment=precision" in commands  # without the comment after it
    assert len(commands) == len(set(commands))


def test_a_failure_is_seen_and_the_work_of_a_detached_process_counts(tmp_path: Path) -> None:
    code, _, _ = time_command("python -c 'raise SystemExit(3)'", tmp_path)
    assert code == 3
    child = "import time; t = time.process_time()\nwhile time.process_time() - t < 0.3: pass"
    # Its parent does not wait for it, as a study does not for the processes of its fork server.
    start = f"subprocess.Popen([sys.executable, '-c', {child!r}], start_new_session=True)"
    program = f"import subprocess, sys, time; {start}; time.sleep(1)"
    (tmp_path / "work.py").write_text(program, encoding="utf-8")
    code, seconds, cpu = time_command("python work.py", tmp_path)
    assert code == 0
    assert seconds > 1
    assert cpu > 0.3
