"""`docs/catalogue.md`: all norms and placements of conf/, from the files and what they build."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import OmegaConf

from normlab import config
from normlab.archive.files import write_text
from normlab.errors import CommandParser, NormlabError, report_user_errors
from normlab.study.composition import compose_specs

PATH = Path("docs/catalogue.md")
COMMAND = "python scripts/catalogue.py"
_WIDTH = 128  # where parameters are counted; conf/model/nanogpt.yaml's
_ARXIV = re.compile(r"\b(\d{4}\.\d{5})\b")
_HEAD = re.compile(r"(?P<title>.+?): (?P<equation>.+?)\.(?: (?P<more>.*))?$")

_INTRODUCTION = f"""\
# Catalogue

Every norm, and every placement but the eight variants `pre/…`
([experiments](experiments.md#what-each-part-of-a-block-does)), written by `{COMMAND}` from
the files in `conf/` and from what they build. Another one is a file of yours:
[how to add a norm](adding_a_norm.md).

x is a token's vector of width d; f is a sublayer (attention or feed-forward), N the run's norm,
L the number of blocks and l a block, counted from 1.
"""


@dataclass(frozen=True)
class CatalogueEntry:
    """A file of conf/norm or conf/placement."""

    name: str
    title: str
    equation: str
    more: str
    sources: tuple[str, ...]
    facts: tuple[str, ...]  # of what it builds
    yaml: str

    @property
    def links(self) -> str:
        """The sources as Markdown."""
        return ", ".join(f"[{number}](https://arxiv.org/abs/{number})" for number in self.sources)


def read_entry(path: Path, *facts: str) -> CatalogueEntry:
    """An entry from a file whose comment begins `Title: equation.` and names its arXiv id.

    Raises:
        NormlabError: the comment does not begin so.
    """
    lines = path.read_text(encoding="utf-8").splitlines()
    body = next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))
    comment = " ".join(line.lstrip("# ").strip() for line in lines[:body])
    head = _HEAD.match(comment)
    if head is None:
        raise NormlabError(f"{path} has to open with a comment '# Title: equation. …'.")
    return CatalogueEntry(
        name=path.stem,
        title=head["title"],
        equation=head["equation"],
        more=(head["more"] or "").strip(),
        sources=tuple(dict.fromkeys(_ARXIV.findall(comment))),
        facts=facts,
        yaml="\n".join(lines[body:]),
    )


def build_page() -> str:
    """The page, as Markdown."""
    # Not the folders inside: the eight variants `pre/…` are on the page of experiments.
    norm_files, placement_files = (
        sorted((config.conf_folder() / group).glob("*.yaml")) for group in ("norm", "placement")
    )
    norms = [read_entry(path, _norm_parameters(path)) for path in norm_files]
    placements = [read_entry(path, *_placement_facts(path.stem)) for path in placement_files]
    files = []
    for entry in (*norms, *placements):
        comment = f"{entry.title}: {entry.equation}. {entry.more}".strip()
        files.append(f"### {entry.name}\n\n{comment}\n\n```yaml\n{entry.yaml}\n```\n")
    return "\n".join(
        [
            _INTRODUCTION,
            f"## {len(norms)} norms\n",
            *_table_rows(["`norm=`", "name", "equation", "parameters", "arXiv"], norms),
            f"\n## {len(placements)} placements\n",
            "Parameters are those of all norms and gains of a model of four blocks with "
            f"`norm=rmsnorm` at width {_WIDTH} (`model=nanogpt`).\n",
            *_table_rows(
                ["`placement=`", "name", "equation", "final norm", "parameters", "arXiv"],
                placements,
            ),
            "\n## The files\n",
            *files,
        ]
    )


def _table_rows(columns: Sequence[str], entries: Sequence[CatalogueEntry]) -> list[str]:
    rows: list[Sequence[str]] = [columns, ["---"] * len(columns)]
    for entry in entries:
        link = f"[`{entry.name}`](#{entry.name})"
        # In a table of Markdown a | would begin another cell, and a * italics.
        equation = entry.equation.replace("|", "\\|").replace("*", "\\*")
        rows.append([link, entry.title, equation, *entry.facts, entry.links])
    return ["| " + " | ".join(row) + " |" for row in rows]


def _norm_parameters(path: Path) -> str:
    """Name and shape of every parameter."""
    from normlab.norms import norm_factory

    node = OmegaConf.load(path)
    norm = norm_factory(OmegaConf.to_container(node, resolve=True))(_WIDTH)  # type: ignore[arg-type]
    parameters = []
    for name, parameter in norm.named_parameters():
        sizes = ["d" if size == _WIDTH else str(size) for size in parameter.shape]
        parameters.append(f"{name} ({', '.join(sizes) or 'one'})")
    return ", ".join(parameters) or "none"


def _placement_facts(name: str) -> tuple[str, str]:
    """Whether a final norm follows the blocks, and the parameters of all norms and gains."""
    from torch import nn

    from normlab.model.gpt import count_parameters
    from normlab.training.build import build_model

    # Less the same model without norms: what both have cancels, so any vocabulary will do.
    specs = compose_specs(["norm=rmsnorm", f"placement={name}"], ["norm=none", "placement=pre"])
    with_placement, bare = (build_model(spec.config, vocabulary=8) for spec in specs)
    final = "no" if isinstance(with_placement.final_norm, nn.Identity) else "yes"
    return final, f"{count_parameters(with_placement) - count_parameters(bare):,}"


def main(argv: Sequence[str] | None = None) -> None:
    """The command line of `scripts/catalogue.py`."""
    parser = CommandParser(description=f"Write {PATH} from the files in conf/.")
    with report_user_errors():
        parser.parse_args(argv)
        write_text(PATH, build_page())
        print(f"wrote {PATH}")  # noqa: T201
