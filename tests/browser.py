"""A real browser for tests of pages, where there is one. Nothing is installed for it.

The browser prints the page as it stands after its scripts ran, and what they complained of.
"""

import html
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)

# A window is at least 500 wide; a frame in it is as wide as its attribute says.
_FRAME = """<!doctype html><title></title>
<script>
addEventListener("message", (event) => { document.body.textContent = event.data; });
</script>
<body><iframe src="PAGE" width="WIDTH" height="900" style="border: 0"></iframe></body>"""


def browse(page: Path, profile: Path | None = None, query: str = "") -> tuple[str, str]:
    """The page after its scripts ran, and the browser's complaints.

    The browser writes its own files into `profile`, by default beside the page.
    """
    profile = profile or page.parent / "browser"
    done = subprocess.run(
        [
            *(BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
            *("--disable-dev-shm-usage", f"--user-data-dir={profile}"),
            *("--enable-logging=stderr", "--window-size=1400,1000", "--virtual-time-budget=4000"),
            *("--dump-dom", page.as_uri() + query),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout, "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)


def run_script(page: Path, script: str, width: int, folder: Path) -> Any:
    """What `script` puts into `answer`, run at the end of a copy of the page, `width` pixels wide.

    The copy lies beside the page, so that its relative links hold. Fails on any complaint.
    """
    text = page.read_text(encoding="utf-8")
    script = f"<script>{{{script};\nparent.postMessage(JSON.stringify(answer), '*');}}</script>"
    copy = page.with_name(f"copy_{page.name}")
    copy.write_text(text.replace("</body>", f"{script}</body>"), encoding="utf-8")
    frame = folder / "frame.html"
    frame.write_text(_FRAME.replace("PAGE", copy.as_uri()).replace("WIDTH", str(width)))
    shown, complaints = browse(frame, folder / "browser")
    assert complaints == ""
    return json.loads(html.unescape(shown.partition("<body>")[2].partition("</body>")[0]))
