"""docs/performance.md: its tables, written from results between markers, and its figures.

A result is kept as docs/bench/<suite>.json beside its figure, so the page can be written again
from what is in the repository.
"""

import re
from pathlib import Path

from normlab import config
from normlab.archive.files import replace_atomically, write_text
from normlab.bench.figure import draw
from normlab.bench.result import Report
from normlab.bench.show import markdown
from normlab.errors import NormlabError

_MARKED = re.compile(r"(<!-- bench (?P<suite>\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def refresh(results: Path, top: Path | None = None) -> Path:
    """Take the results of `results/<suite>/` into docs/bench/, and write the page; returns it.

    A part whose suite has never been measured says so.

    Raises:
        NormlabError: the page is not there or cannot be written, or a result cannot be read.
    """
    docs = (top or config.folder().parent) / "docs"
    page, kept = docs / "performance.md", docs / "bench"
    try:
        text = page.read_text(encoding="utf-8")
        for found in _MARKED.finditer(text):
            fresh = results / found["suite"] / f"{found['suite']}.json"
            if fresh.is_file():
                _take(fresh, kept)
        write_text(page, _MARKED.sub(lambda found: _part(found, kept), text))
    except OSError as error:
        raise NormlabError(
            f"{error.filename or page} cannot be read or written ({error.strerror or error}); run "
            f"bench.py --docs in a checkout that you may write to."
        ) from error
    return page


def _take(fresh: Path, kept: Path) -> None:
    report = Report.read(fresh)
    draw(report, kept)
    (kept / fresh.with_suffix(".svg").name).unlink()  # a page shows one of the two
    with replace_atomically(kept / fresh.name) as draft:
        draft.write_bytes(fresh.read_bytes())


def _part(found: "re.Match[str]", kept: Path) -> str:
    suite = found["suite"]
    path = kept / f"{suite}.json"
    if not path.is_file():
        body = "Not measured yet."
    else:
        report = Report.read(path)
        body = f"{markdown(report)}\n\n![{report.result.title}](bench/{suite}.png)"
    return f"{found[1]}{body}\n{found[3]}"
