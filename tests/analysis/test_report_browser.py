"""The report in a real browser, where there is one: it sorts, finds, fits and complains of nothing.

The page itself would refuse a script of ours, so the script is put into a copy without that rule.
"""

import re
from pathlib import Path
from typing import Any

import matplotlib
import pytest

from browser import BROWSER, browse, run_script
from example_measurements import measurement_record, norm_comparison
from normlab.analysis import figures, report
from normlab.analysis.result import analyse_study
from normlab.analysis.sheet import save_figure
from normlab.analysis.style import RC
from normlab.apps.experiments.report import write_report
from normlab.archive.study import read_study

pytestmark = pytest.mark.skipif(not BROWSER, reason="no chromium on the path")

ASK = """
const button = (name) => [...document.querySelectorAll("#every thead button")]
  .find((one) => one.textContent === name);
const names = () => [...document.querySelectorAll("#every tbody tr")]
  .filter((row) => !row.hidden).map((row) => row.cells[0].textContent);
const sorted = () => [...document.querySelectorAll("#every th[aria-sort]")]
  .map((head) => [head.textContent, head.getAttribute("aria-sort")]);
const type = (id, text) => {
  const field = document.getElementById(id);
  field.value = text;
  field.dispatchEvent(new Event("input", { bubbles: true }));
};
const answer = {};
button("final val").click();
answer.ascending = [names(), sorted()];
button("final val").click();
answer.descending = [names(), sorted()];
type("find", "LAYERNORM s1");
answer.found = [names(), document.getElementById("match-count").value];
type("find", "");
type("state", "diverged");
answer.diverged = [names(), document.getElementById("match-count").value];
answer.widths = [document.documentElement.scrollWidth, window.innerWidth];
document.querySelectorAll("details").forEach((one) => { one.open = true; });
answer.opened = [document.documentElement.scrollWidth, window.innerWidth];
"""


def asked(page: Path, folder: Path, width: int) -> dict[str, Any]:
    """What the script above finds in a copy of the page."""
    text = page.read_text(encoding="utf-8")
    free = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
    assert free != text
    copy = folder / "asked.html"
    copy.write_text(free, encoding="utf-8")
    return dict(run_script(copy, ASK, width, folder))


@pytest.fixture(scope="module")
def page(make_study: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    maker = make_study(tmp_path_factory.mktemp("browsed") / "study")
    losses = {"rmsnorm": 1.7, "layernorm": 1.5, "dyt": 1.6}
    for norm, level in losses.items():
        for seed in range(2):
            maker.run(norm, "pre", seed, level=level + 0.04 * seed, steps=50)
    maker.run("none", "any", diverge_at=40)
    study = read_study(maker.folder)
    with matplotlib.rc_context(RC):
        drawn = figures.final_validation_loss_figure(analyse_study(study).plan)
        files = save_figure(drawn, maker.folder, "final_validation_loss")
    path: Path = maker.folder / "report.html"
    report.write_report(analyse_study(study), files, ["a note"], path)
    return path


LOSSES = "layernorm 0, layernorm 1, dyt 0, dyt 1, rmsnorm 0, rmsnorm 1"
ORDER = [f"{name}-pre--s{seed}" for name, seed in (one.split() for one in LOSSES.split(", "))]


def test_the_page_works_as_it_is_and_nothing_complains(page: Path) -> None:
    found, complaints = browse(page)
    assert complaints == ""
    assert found.count('<button type="button">final val</button>') == 1


def test_the_page_of_a_measurement_works_too(tmp_path: Path) -> None:
    write_report(measurement_record(norm_comparison()), tmp_path)
    found, complaints = browse(tmp_path / "report.html")
    assert complaints == ""
    assert found.count('<button type="button">over F.layer_norm</button>') == 1


@pytest.mark.parametrize("width", [390, 1280])
def test_it_sorts_and_finds_and_fits(page: Path, width: int, tmp_path: Path) -> None:
    found = asked(page, tmp_path, width)
    assert found["ascending"] == [[*ORDER, "none-any--s0"], [["final val", "ascending"]]]
    assert found["descending"] == [[*ORDER[::-1], "none-any--s0"], [["final val", "descending"]]]
    assert found["found"] == [["layernorm-pre--s1"], "1 of 7 runs"]
    assert found["diverged"] == [["none-any--s0"], "1 of 7 runs"]
    for shown, window in (found["widths"], found["opened"]):
        assert window == width
        assert shown <= window


# What reaches beyond the window outside of a box that scrolls; how the boxes show that they do.
CUT = """
document.querySelectorAll("details").forEach((one) => { one.open = true; });
const scrolls = (one) => one && (["auto", "scroll"].includes(getComputedStyle(one).overflowX)
  || scrolls(one.parentElement));
const answer = {
  cut: [...document.querySelectorAll("body *")]
    .filter((one) => one.getBoundingClientRect().right > innerWidth && !scrolls(one))
    .map((one) => one.outerHTML.slice(0, 80)),
  wide: [...document.querySelectorAll(".scroll")].filter((one) => one.scrollWidth > one.clientWidth)
    .map((one) => getComputedStyle(one).backgroundImage.includes("linear-gradient")),
  drawings: [...document.querySelectorAll("figcaption")]
    .map((one) => getComputedStyle(one, "::after").content.includes("sideways")),
};
"""


@pytest.mark.parametrize("width", [390, 1280])
def test_what_is_wider_than_the_window_scrolls_and_shows_it(
    page: Path, width: int, tmp_path: Path
) -> None:
    copy = tmp_path / "page.html"
    text = page.read_text(encoding="utf-8")
    copy.write_text(re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text))
    answer = run_script(copy, CUT, width, tmp_path)
    assert answer["cut"] == []
    assert all(answer["wide"])
    assert answer["drawings"] == [width == 390]
    if width == 390:
        assert answer["wide"]
