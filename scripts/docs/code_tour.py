"""The snippets of docs/learn/code.md, cut from the sources by the names of classes and functions.

    python scripts/docs/code_tour.py

writes into the page what stands between `<!-- code: path name -->` and `<!-- /code -->`, where the
name is that of a function, a class or a method (`GPT.forward`). A test compares page and sources.
"""

import ast
import re
import textwrap
from pathlib import Path

from normlab.archive.files import write_text

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "learn" / "code.md"
_MARKER = re.compile(r"<!-- code: (?P<path>\S+) (?P<name>[\w.]+) -->\n.*?<!-- /code -->", re.DOTALL)


class SnippetError(ValueError):
    """A marker that names no code: which, and what is there instead."""


def cut_snippet(path: Path, name: str) -> str:
    """The source of a function, class or method, dedented, with its decorators.

    Raises:
        SnippetError: the file or the name in it does not exist.
    """
    if not path.is_file():
        raise SnippetError(f"{path.relative_to(ROOT)} does not exist; correct the marker.")
    text = path.read_text(encoding="utf-8")
    node: ast.AST = ast.parse(text)
    for part in name.split("."):
        children = {
            child.name: child
            for child in ast.iter_child_nodes(node)
            if isinstance(child, ast.FunctionDef | ast.ClassDef)
        }
        if part not in children:
            raise SnippetError(
                f"{path.relative_to(ROOT)} has no {name}; there is {', '.join(children)}."
            )
        node = children[part]
    assert isinstance(node, ast.FunctionDef | ast.ClassDef)
    # A definition's line is that of `def` or `class`, below its decorators.
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    last = node.end_lineno or node.lineno
    return textwrap.dedent("\n".join(text.splitlines()[first - 1 : last]))


def fill_page(text: str) -> str:
    """The page with every snippet as it is in the sources now.

    Raises:
        SnippetError: a marker names no code.
    """
    return _MARKER.sub(_fill_marker, text)


def _fill_marker(match: re.Match[str]) -> str:
    path, name = match["path"], match["name"]
    code = cut_snippet(ROOT / path, name)
    return (
        f"<!-- code: {path} {name} -->\n"
        f"[`{path}`](../../{path}), `{name}`:\n\n```python\n{code}\n```\n\n<!-- /code -->"
    )


if __name__ == "__main__":
    write_text(PAGE, fill_page(PAGE.read_text(encoding="utf-8")))
    print(f"wrote {PAGE}")
