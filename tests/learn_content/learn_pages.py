"""The pages of docs/learn: their code blocks, what the page says they print, and their commands."""

import contextlib
import functools
import io
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from normlab.config.compose import composed_config
from normlab.config.run_spec import RunSpec
from normlab.study.composition import RunComposer
from normlab.study.plan import expand_overrides

ROOT = Path(__file__).resolve().parents[2]
LEARN = ROOT / "docs" / "learn"

NUMBER = re.compile(r"(?<![\w.])[-−]?\d+(?:,\d{3})*(?:\.\d+)?(?:e[-+]?\d+)?")
# Rounding differs between processors: the last printed digit may, and what is rounding itself.
RELATIVE, ABSOLUTE = 0.02, 2e-3
_NOISE = 1e-5  # a printed number below it is a rounding error; its size is a machine's own


@dataclass(frozen=True)
class CodeBlock:
    """A fenced block of a page, and the fenced `text` block right after it, if there is one."""

    page: Path
    language: str
    code: str
    output: str | None

    @property
    def name(self) -> str:
        """The page and the first lines that are not imports, for the name of a test."""
        lines = [line for line in self.code.splitlines() if line and "import" not in line]
        return f"{self.page.stem}: {lines[0][:40]}"


def list_pages() -> list[Path]:
    # The code tour holds sources, which tests/site compares with the files they are cut from.
    return sorted(page for page in LEARN.glob("*.md") if page.name != "code.md")


def code_blocks(page: Path, language: str) -> Iterator[CodeBlock]:
    fences = re.finditer(
        r"^```(\w+)\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?",
        page.read_text(encoding="utf-8"),
        re.MULTILINE | re.DOTALL,
    )
    for fence in fences:
        if fence[1] == language:
            yield CodeBlock(page, language, fence[2], fence[3])


def list_python_blocks() -> list[CodeBlock]:
    return [block for page in list_pages() for block in code_blocks(page, "python")]


def list_commands() -> list[tuple[str, str]]:
    """Every command of a `bash` block: page and command, without comments."""
    commands = []
    for page in list_pages():
        for block in code_blocks(page, "bash"):
            lines = block.code.replace("\\\n", " ").splitlines()
            stripped = [re.sub(r"\s+#.*", "", line).strip() for line in lines]
            commands += [(page.name, line) for line in stripped if line and line[0] != "#"]
    return commands


def run_python(code: str) -> str:
    """What the code prints, run as a reader would: in a namespace of its own."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "docs/learn", "exec"), {"__name__": "learn"})
    return printed.getvalue()


def same_output(printed: str, expected: str) -> bool:
    """The same words, and the same numbers but for a machine's rounding."""
    if NUMBER.sub("#", printed).split() != NUMBER.sub("#", expected).split():
        return False
    pairs = zip(read_numbers(printed), read_numbers(expected), strict=True)
    return all(same_number(a, b) for a, b in pairs)


def same_number(measured: float, printed: float) -> bool:
    if abs(measured) < _NOISE and abs(printed) < _NOISE:
        return True
    return abs(measured - printed) <= max(RELATIVE * abs(printed), min(ABSOLUTE, abs(printed)))


def read_numbers(text: str) -> list[float]:
    return [float(number.replace(",", "").replace("−", "-")) for number in NUMBER.findall(text)]


@functools.cache
def compose_command(command: str) -> list[RunSpec]:
    """The networks that a command of train.py, card.py or probe.py would train or measure."""
    words = shlex.split(command)[2:]
    folder = None
    if "--config-dir" in words:
        folder = ROOT / words[words.index("--config-dir") + 1]
    overrides = [word for word in words if "=" in word and not word.startswith("--")]
    return compose_overrides(overrides, folder)


@functools.cache
def _compose(overrides: tuple[str, ...], folder: Path | None) -> list[RunSpec]:
    with composed_config((), folder) as (loader, master):
        combinations = expand_overrides(loader, overrides).combinations
        composer = RunComposer(loader, master)
        return [composer.compose(combination) for combination in combinations]


def compose_overrides(overrides: list[str], folder: Path | None = None) -> list[RunSpec]:
    """Every run of these overrides, but of a list of numbers the first only: composing is slow."""
    first = (re.sub(r"(=[\d.e-]+),[\d.,e-]+$", r"\1", word) for word in overrides)
    return _compose(tuple(first), folder)
