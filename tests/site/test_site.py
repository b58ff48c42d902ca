"""The site that `make docs` builds: no warning, no broken link, no complaint, and a search.

Building it takes about 20 seconds of a core, so these are slow tests.
"""

import html
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest

from browser import BROWSER, browse
from quiz_data import figure_files

pytest.importorskip("sphinx", reason="the packages of the extra `docs` are not installed")
pytest.importorskip("griffe", reason="the packages of the extra `docs` are not installed")
pytestmark = pytest.mark.slow
needs_browser = pytest.mark.skipif(not BROWSER, reason="no chromium on the path")

ROOT = Path(__file__).resolve().parents[2]
LINK = re.compile(r'<(?:a|link|img|script)\s[^>]*?(?:href|src)="([^"]*)"')


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as the Makefile builds it, into a folder of its own."""
    recipe = re.search(r"^docs:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert recipe is not None
    folder = tmp_path_factory.mktemp("site")
    command = recipe[1].split("@echo")[0].replace("\\\n", " ")
    command = command.replace("$(BIN)/python", sys.executable)
    command = command.replace("outputs/.site_doctrees", str(folder / "doctrees"))
    command = command.replace("outputs/site", str(folder / "site"))
    done = subprocess.run(["sh", "-ec", command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return folder / "site"


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, str]:
    return {path: path.read_text(encoding="utf-8") for path in site.rglob("*.html")}


def page_links(text: str) -> list[str]:
    """Links and loaded files of a page, without those that lead outside."""
    links = [html.unescape(link) for link in LINK.findall(text)]
    return [link for link in links if not re.match(r"https?:|mailto:|data:", link)]


def test_every_page_of_the_repository_is_there(pages: dict[Path, str], site: Path) -> None:
    sources = [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")]
    expected = {path.relative_to(ROOT).with_suffix(".html") for path in sources}
    assert expected <= {path.relative_to(site) for path in pages}
    assert site / "docs" / "learn" / "interactive.html" in pages
    assert site / "docs" / "api" / "normlab.norms.norms.html" in pages


def test_every_link_leads_to_a_file_and_an_anchor(pages: dict[Path, str]) -> None:
    anchors = {page: set(re.findall(r'\sid="([^"]+)"', text)) for page, text in pages.items()}
    broken = []
    for page, text in pages.items():
        for link in page_links(text):
            name, anchor = urldefrag(unquote(link))
            target = (page.parent / name.partition("?")[0]).resolve() if name else page
            if not target.is_file() or (anchor and anchor not in anchors.get(target, {anchor})):
                broken.append((page.name, link))
    assert broken == []


def test_the_figures_of_the_quiz_are_in_the_site(site: Path) -> None:
    for file in figure_files():
        assert (site / file.relative_to(ROOT)).is_file()


def test_nothing_is_loaded_from_elsewhere(pages: dict[Path, str]) -> None:
    loads = re.compile(
        r'<(?:script|img|iframe)\s[^>]*src="(?:https?:)?//|<link[^>]*rel="stylesheet"[^>]*href="https?:'
    )
    assert [page.name for page, text in pages.items() if loads.search(text)] == []


def test_every_page_is_in_the_navigation(pages: dict[Path, str], site: Path) -> None:
    start = pages[site / "README.html"]
    for source in (ROOT / "docs").rglob("*.md"):
        if "api" not in source.parts:
            link = source.relative_to(ROOT).with_suffix(".html").as_posix()
            assert f'class="reference internal" href="{link}"' in start, link


def test_the_pages_have_no_markup_of_the_generator(site: Path) -> None:
    """On GitHub a directive or a role of MyST would be shown as it is."""
    for source in [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")]:
        if "api" not in source.parts:
            text = source.read_text(encoding="utf-8")
            assert not re.search(
                r"^(```+|:::+)\{|^\([\w-]+\)=$|\{(ref|doc|numref|math)\}`", text, re.MULTILINE
            ), source


@needs_browser
@pytest.mark.parametrize(
    "name", ["index", "README", "docs/using", "docs/learn/code", "docs/learn/interactive"]
)
def test_a_page_opened_as_a_file_complains_of_nothing(
    site: Path, name: str, tmp_path: Path
) -> None:
    _, complaints = browse(site / f"{name}.html", tmp_path / "browser")
    assert complaints == ""


@needs_browser
@pytest.mark.parametrize(
    ("words", "expected"),
    [("sandwich", "docs/catalogue.html"), ("norm_factory", "docs/api/normlab.norms.build.html")],
)
def test_the_search_works_from_a_file(
    site: Path, words: str, expected: str, tmp_path: Path
) -> None:
    shown, complaints = browse(site / "search.html", tmp_path / "browser", f"?q={words}")
    assert complaints == ""
    results = shown.partition('id="search-results"')[2]
    assert f'href="{expected}' in results


def test_the_api_reference_names_each_object_once(site: Path) -> None:
    text = (site / "docs" / "api" / "normlab.norms.norms.html").read_text(encoding="utf-8")
    names = Counter(re.findall(r'<dt class="[^"]*" id="([\w.]+)"', text))
    assert names["normlab.norms.norms.RMSNorm.forward"] == 1
    assert set(names.values()) == {1}


def test_the_api_reference_shows_types_by_their_names_and_links_them(site: Path) -> None:
    text = (site / "docs" / "api" / "normlab.training.probes.html").read_text(encoding="utf-8")
    (signature,) = re.findall(
        r'<dt[^>]*id="normlab\.training\.probes\.named_blocks".*?</dt>', text, re.S
    )
    assert 'href="normlab.model.gpt.html#normlab.model.gpt.GPT"' in signature
    plain = html.unescape(re.sub(r"<[^>]+>", "", signature))
    assert "named_blocks(model: GPT) → Iterator[tuple[str, nn.Module]]" in " ".join(plain.split())
