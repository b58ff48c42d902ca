"""The command in an empty folder, with small lessons, a quiz and predictions of its own."""

from collections.abc import Callable
from pathlib import Path

import pytest

from command_calls import Call, make_command_caller
from normlab.apps.learn import content
from normlab.apps.learn.content import LESSONS
from normlab.apps.learn.main import main

QUIZ = """
- id: norms-in-eight-blocks
  lesson: 1
  kind: numeric
  question: How many norms do eight Pre-LN blocks have, with the final one?
  answer: 17
  tolerance: 0
  unit: norms
  explanation: Two a block, and the final one.
- id: what-vanishes
  lesson: 1
  kind: choice
  question: What vanishes in a deep stack?
  choices:
    - {text: The biases., correct: false, explanation: They keep the signal up.}
    - {text: The gradient., correct: true, explanation: It shrinks by a factor each layer.}
- id: which-figure
  lesson: 2
  kind: figure
  question: Which curve is Post-LN?
  figure: figures/depth.svg
  figure_text: Two curves over depth.
  choices:
    - {text: The upper one., correct: true, explanation: It grows.}
    - {text: The lower one., correct: false, explanation: That is Pre-LN.}
- id: output-rms
  lesson: 2
  kind: numeric
  question: The RMS of the output?
  answer: 0.302
  tolerance: 0.005
  unit: ""
  explanation: With ε inside the root.
"""

PREDICTIONS = """
- id: none-against-rmsnorm
  lesson: 1
  question: No norm minus RMSNorm, final validation loss, in nats?
  command: ["norm=none,rmsnorm", "seed=0,1"]
  measure: final_loss_difference
  arms: [none, rmsnorm · pre]
  seconds: 5
  explanation: The explanation that comes afterwards.
- id: how-many-diverge
  lesson: 2
  question: How many runs diverge?
  command: [norm=none]
  measure: diverged_count
  arms: []
  seconds: 5
  explanation: None of them.
"""


@pytest.fixture
def learn_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with lessons, a quiz and predictions, in place of docs/learn."""
    folder = tmp_path / "content"
    folder.mkdir()
    for number in LESSONS:
        (folder / f"lesson{number}.md").write_text(
            f"# Lesson {number}: Title {number}\n\n## Predict\n\nA *guess* with √d. "
            "![A curve](../figures/curve.png)\n\n## Run\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n"
            "<sub>small print</sub>\n\n" + "word " * 450
        )
    (folder / "quiz.yaml").write_text(QUIZ)
    (folder / "predictions.yaml").write_text(PREDICTIONS)
    monkeypatch.setattr(content, "content_folder", lambda: folder)
    return folder


@pytest.fixture
def learn(
    learn_content: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Call:
    """Calls normlab-learn in an empty folder: exit code, standard output, standard error."""
    folder = tmp_path / "work"
    folder.mkdir()
    return make_command_caller(main, folder, monkeypatch, capfd)


@pytest.fixture
def type_lines(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Gives the command these lines as standard input."""
    import io

    return lambda text: monkeypatch.setattr("sys.stdin", io.StringIO(text))
