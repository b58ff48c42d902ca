"""The quiz of docs/learn/quiz.yaml as a script that the interactive page loads.

    python scripts/docs/quiz_data.py

writes docs/learn/interactive/quiz_data.js. A page that is opened as a file can load a script, and
no YAML or JSON. `make docs` does the same into the site.
"""

import json
from dataclasses import asdict
from pathlib import Path

from normlab.apps.learn.content import read_questions
from normlab.errors import NormlabError

LEARN = Path(__file__).resolve().parents[2] / "docs" / "learn"
QUIZ = LEARN / "quiz.yaml"
SCRIPT = LEARN / "interactive" / "quiz_data.js"


def figure_files(path: Path = QUIZ) -> list[Path]:
    """The files of the figures that questions show.

    Raises:
        NormlabError: a question names a figure that does not exist.
    """
    files = []
    for question in read_questions(path=path):
        if question.kind == "figure":
            file = (LEARN / question.figure).resolve()
            if not file.is_file():
                raise NormlabError(
                    f"{path.name} ({question.id}) names the figure {question.figure}, which "
                    "does not exist; paths start in docs/learn."
                )
            files.append(file)
    return files


def quiz_script(path: Path = QUIZ) -> str:
    """The script: one constant with all questions."""
    questions = [asdict(question) for question in read_questions(path=path)]
    text = json.dumps(questions, ensure_ascii=False, indent=1)
    # `</` would end the element if the script were ever put into a page.
    text = text.replace("</", "<\\/")
    return f"// Written by scripts/docs/quiz_data.py from quiz.yaml.\nconst QUIZ = {text};\n"


if __name__ == "__main__":
    SCRIPT.write_text(quiz_script(), encoding="utf-8")
    print(f"wrote {SCRIPT}")
