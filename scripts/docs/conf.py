"""How `make docs` turns README.md and docs/ into outputs/site: Sphinx, MyST, furo.

Notable: the source folder is the repository, so that every relative link means the same here as on
GitHub. What only a generator needs is added while it runs, never to the pages: the navigation, the
API reference (api_reference.py), formulas as MathML, which browsers draw without a script.
"""

import re
import shutil
from pathlib import Path
from typing import Any

import latex2mathml.converter
from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx

import api_reference
import quiz_data
from normlab import __version__

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"

project = "normlab"
author = "the normlab authors"
release = version = __version__

extensions = ["myst_parser"]
root_doc = "README"
include_patterns = ["README.md", "CHANGELOG.md", "docs/**.md"]
# Sphinx walks through every folder that is not excluded here.
exclude_patterns = [".*", "outputs", "build", "dist", "src", "tests", "conf"]
myst_enable_extensions = ["dollarmath", "html_image"]
myst_dmath_allow_space = False
myst_heading_anchors = 6  # the anchors that GitHub gives
# A quotation may begin with any heading; pages that begin with level 2 do not exist here.
suppress_warnings = ["myst.header"]
html_theme = "furo"
html_title = "normlab"
html_math_renderer = "mathml"
html_copy_source = False
html_show_copyright = False
html_show_search_summary = False  # it would load pages, which a file may not
pygments_style, pygments_dark_style = "friendly", "github-dark-high-contrast"

# The parts of the navigation: a caption, and the pages in this order. Pages of docs/ that no part
# names come last, so that a new page is never lost.
_GUIDES = ["using", "reading_results", "statistics", "adding_a_norm", "catalogue"]
_RESULTS = ["experiments", "claims", "comparison_with_other_tools", "performance"]
_FOLDER_LINK = re.compile(r"\[(?P<text>[^]]+)\]\((?P<target>[^)#:\s]+/)\)")
_SITE_LINK = "<!-- site link -->"
# What the interactive page needs, beside what Sphinx copies for the other pages.
_PAGE_FILES = ("*.html", "interactive/*", "figures/*.svg", "figures/*.png")


def navigation() -> str:
    """The toctrees, as MyST writes them."""
    pages = {path.stem for path in DOCS.glob("*.md")}
    learn = {path.stem for path in (DOCS / "learn").glob("*.md")}
    # README, if it is there, then the lessons, then the rest.
    learn_order = sorted(learn, key=lambda name: (name != "README", name[:6] != "lesson", name))
    rest = sorted(pages - {*_GUIDES, *_RESULTS})
    parts = {
        "Learn": [f"docs/learn/{name}" for name in learn_order],
        "Use": [f"docs/{name}" for name in _GUIDES],
        "Results": [f"docs/{name}" for name in _RESULTS],
        "Develop": [*(f"docs/{name}" for name in rest), "CHANGELOG", "docs/api/index"],
    }
    return "".join(
        f"\n\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n" + "\n".join(names) + "\n```\n"
        for caption, names in parts.items()
        if names
    )


def add_navigation(app: Sphinx, page: str, source: list[str]) -> None:
    """Append the navigation to the start page, as it is read."""
    if page == root_doc:
        source[0] += navigation()


def unlink_folders(app: Sphinx, page: str, source: list[str]) -> None:
    """Replace links to folders by their text: GitHub lists a folder, a site has no page of it."""

    def replace_link(match: re.Match[str]) -> str:
        is_folder = (ROOT / page).parent.joinpath(match["target"]).is_dir()
        return match["text"] if is_folder else match[0]

    source[0] = _FOLDER_LINK.sub(replace_link, source[0])


def link_html_pages(app: Sphinx, page: nodes.document) -> None:
    """Make links to a page that is HTML already ordinary links; MyST would offer a download."""
    for node in list(page.findall(addnodes.download_reference)):
        target = node["reftarget"]
        if target.endswith(".html"):
            node.replace_self(nodes.reference("", "", *node.children, refuri=target))


def visit_math(translator: Any, node: nodes.Element) -> None:
    """Write a formula as MathML."""
    display = "block" if isinstance(node, nodes.math_block) else "inline"
    formula = latex2mathml.converter.convert(node.astext(), display=display)
    if display == "block":  # wider than a phone, it scrolls by itself
        formula = f'<div class="math" tabindex="0" style="overflow-x: auto">{formula}</div>'
    translator.body.append(formula)
    # Else Sphinx would write the formula's text as well, and ask for the end of the element.
    raise nodes.SkipNode


def finish_site(app: Sphinx, error: Exception | None) -> None:
    """Add the interactive page with the quiz as it is now, and a start page named index.html."""
    if error is not None:
        return
    site, learn = Path(app.outdir), DOCS / "learn"
    files = [path for pattern in _PAGE_FILES for path in learn.glob(pattern)]
    for path in {*files, *quiz_data.figure_files()}:
        target = site / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        if path.suffix == ".html":
            link = f'<a href="../../{root_doc}.html">All pages</a> '
            page = path.read_text(encoding="utf-8").replace(_SITE_LINK, link)
            target.write_text(page, encoding="utf-8")
    script = site / quiz_data.SCRIPT.relative_to(ROOT)
    script.write_text(quiz_data.quiz_script(), encoding="utf-8")
    redirect = '<!doctype html><html lang="en"><meta charset="utf-8"><title>normlab</title>'
    redirect += f'<meta http-equiv="refresh" content="0; url={root_doc}.html">'
    redirect += f'<a href="{root_doc}.html">normlab</a></html>\n'
    (site / "index.html").write_text(redirect, encoding="utf-8")


def setup(app: Sphinx) -> None:
    """Called by Sphinx before it reads the pages."""
    api_reference.write_pages(ROOT / "src", DOCS / "api")
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math, None))
    app.connect("source-read", unlink_folders)
    app.connect("source-read", add_navigation)
    app.connect("doctree-read", link_html_pages, priority=100)  # before downloads are collected
    app.connect("build-finished", finish_site)
