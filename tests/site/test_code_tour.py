"""The code tour shows the code as it is, and what it says that code prints is what it prints."""

import io
import re
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from code_tour import PAGE, SnippetError, cut_snippet, fill_page

TEXT = PAGE.read_text(encoding="utf-8")


def test_every_snippet_is_the_code_of_its_file() -> None:
    assert TEXT.count("<!-- code: ") == TEXT.count("<!-- /code -->") > 10
    assert fill_page(TEXT) == TEXT, "run: python scripts/docs/code_tour.py"


def test_a_snippet_that_is_gone_is_named() -> None:
    gone = TEXT.replace("gpt.py GPT.forward -->", "gpt.py GPT.backward -->")
    assert gone != TEXT
    with pytest.raises(SnippetError, match=r"gpt\.py has no GPT\.backward; there is .*forward"):
        fill_page(gone)
    with pytest.raises(SnippetError, match=r"gpt2\.py does not exist"):
        fill_page(TEXT.replace("model/gpt.py GPT.forward -->", "model/gpt2.py GPT.forward -->"))


def test_a_snippet_has_its_decorators_and_no_indentation(tmp_path: Path) -> None:
    path = tmp_path / "source.py"
    path.write_text("class A:\n    @property\n    def b(self):\n        return 1\n\n    c = 2\n")
    assert cut_snippet(path, "A.b") == "@property\ndef b(self):\n    return 1"


def test_the_printed_shapes_are_those_that_the_program_prints() -> None:
    program = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)[-1]
    (output,) = re.findall(r"```text\n(.*?)```", TEXT, re.DOTALL)
    printed = io.StringIO()
    with redirect_stdout(printed):
        exec(program, {})
    assert printed.getvalue() == output


@pytest.mark.parametrize(("number", "text"), [(300**2, "300² is already more"), (16 * 64, "1024")])
def test_the_numbers_of_the_text(number: int, text: str) -> None:
    assert text in TEXT
    assert number == 1024 or number > 65504
