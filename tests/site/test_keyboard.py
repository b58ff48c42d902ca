"""The interactive page by keyboard alone: real keys, sent by chromedriver where it is installed.

chromedriver speaks HTTP with JSON (W3C WebDriver), so that no package is needed.
"""

import json
import re
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import quiz_data
from browser import BROWSER

DRIVER = shutil.which("chromedriver") or ""
LEARN = Path(__file__).resolve().parents[2] / "docs" / "learn"
TAB, ENTER, RIGHT, END, DOWN, SPACE = "\ue004", "\ue007", "\ue014", "\ue010", "\ue015", " "

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (BROWSER and DRIVER), reason="no chromium or chromedriver on the path"),
]


def send_command(address: str, body: dict[str, Any] | None, method: str = "POST") -> Any:
    """The value of chromedriver's answer."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        address, data, {"Content-Type": "application/json"}, method=method
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)["value"]


class Session:
    """A browser window that a page is open in."""

    def __init__(self, driver_address: str, profile: Path) -> None:
        switches = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        options = {"binary": BROWSER, "args": [*switches, f"--user-data-dir={profile}"]}
        capabilities = {"capabilities": {"alwaysMatch": {"goog:chromeOptions": options}}}
        answer = send_command(f"{driver_address}/session", capabilities)
        self.address = f"{driver_address}/session/{answer['sessionId']}"

    def open(self, page: Path) -> None:
        """Go to a page."""
        send_command(f"{self.address}/url", {"url": page.as_uri()})

    def close(self) -> None:
        """Close the browser."""
        send_command(self.address, None, "DELETE")

    def press(self, *keys: str) -> None:
        """Press and release each key, at whatever has the focus."""
        actions = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        keyboard = {"type": "key", "id": "keys", "actions": actions}
        send_command(f"{self.address}/actions", {"actions": [keyboard]})

    def read(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        script = {"script": f"return {expression}", "args": []}
        return send_command(f"{self.address}/execute/sync", script)

    def focus_by_tab(self, name: str, most: int = 60) -> None:
        """Press Tab until the control with this id or name has the focus."""
        for _ in range(most):
            self.press(TAB)
            if self.read("[document.activeElement.id, document.activeElement.name]").count(name):
                return
        raise AssertionError(f"Tab does not reach {name}")


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    """The page, with the quiz of these tests, in a browser of its own."""
    folder = tmp_path / "learn"
    shutil.copytree(LEARN, folder)
    script = quiz_data.quiz_script(Path(__file__).with_name("quiz.yaml"))
    (folder / "interactive" / "quiz_data.js").write_text(script, encoding="utf-8")
    driver = subprocess.Popen([DRIVER, "--port=0"], stdout=subprocess.PIPE, text=True)
    try:
        assert driver.stdout is not None
        port = next(
            match[1] for line in driver.stdout if (match := re.search(r"on port (\d+)\.", line))
        )
        session = Session(f"http://127.0.0.1:{port}", tmp_path / "profile")
        session.open(folder / "interactive.html")
        yield session
        session.close()
    finally:
        driver.terminate()
        driver.wait(timeout=30)


def test_sliders_choices_and_quiz_are_used_by_keys(session: Session) -> None:
    session.focus_by_tab("mean")
    session.press(RIGHT, RIGHT)
    assert session.read("document.getElementById('mean-value').value") == "0.2"
    session.focus_by_tab("precision")
    session.press(DOWN)
    assert session.read("readTokenControls().precision") == "bf16"
    session.focus_by_tab("placement")
    session.press(DOWN)
    session.focus_by_tab("depth")
    session.press(END)
    facts = session.read("document.getElementById('stack-facts').textContent")
    assert facts.startswith("Post-LN, 32 blocks")
    session.focus_by_tab("answer")
    session.press("1", "7", ENTER)
    answer = session.read("document.getElementById('quiz-answer').textContent")
    assert answer.startswith("Right. The answer is exactly 17 (unit: norms).")
    session.focus_by_tab("quiz-next")
    session.press(ENTER)
    assert session.read("document.querySelector('#quiz-form legend').textContent").startswith(
        "2 of 3"
    )
