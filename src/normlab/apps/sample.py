"""`scripts/sample.py RUN`: what a trained run writes. Imports torch only when all is in order."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from normlab.archive.files import check_links, read_text, suggest_closest_path
from normlab.archive.record import (
    BEST_CHECKPOINT,
    CONFIG_FILE,
    LAST_CHECKPOINT,
    VOCABULARY_FILE,
    describe_folder_changes,
)
from normlab.data import Tokenizer, tokenizer_from_json
from normlab.errors import CommandParser, ConfigError, NormlabError, report_user_errors
from normlab.text import printable


def main(argv: Sequence[str] | None = None) -> None:
    """The command line of `scripts/sample.py`."""
    with report_user_errors():
        options = _build_parser().parse_args(argv)
        # A vocabulary from elsewhere could hold escape sequences for the terminal.
        sys.stdout.write(printable(sample_text(options) + "\n"))
        changes = describe_folder_changes(Path(options.run))
        if changes:
            sys.stderr.write(printable(f"note: {changes}\n"))


def sample_text(options: argparse.Namespace) -> str:
    """The prompt and its continuation.

    Raises:
        NormlabError: the folder is not a run, or the checkpoint is not one of this model.
        ConfigError: a number is out of range, or the prompt has unknown characters.
    """
    _check_ranges(options)
    folder = Path(options.run)
    try:
        # A run from somebody else could hold links to any file of this machine.
        check_links(folder)
    except OSError as error:
        raise NormlabError(f"{folder} cannot be read ({error.strerror}).") from error
    tokenizer = _read_tokenizer(folder)
    # A model continues at least one token: without a prompt it is token 0, which is not printed.
    prompt = tokenizer.encode(options.prompt) if options.prompt else [0]
    checkpoint = _find_checkpoint(folder, options.checkpoint)
    # Torch takes seconds to import; what cannot be sampled never gets here.
    from normlab.training.sampling import Sampling, continue_tokens

    sampling = Sampling(options.length, options.temperature, options.top_k, options.seed)
    tokens = continue_tokens(folder, checkpoint, tokenizer.vocabulary, prompt, sampling)
    return tokenizer.decode(tokens if options.prompt else tokens[1:])


def _build_parser() -> argparse.ArgumentParser:
    parser = CommandParser(prog="sample.py", description="Print text from a run's checkpoint.")
    parser.add_argument("run", help="folder of a run: outputs/<study>/<run>")
    parser.add_argument("--checkpoint", help="another checkpoint of this run's model")
    parser.add_argument("--prompt", default="", help="text to continue (default: none)")
    parser.add_argument(
        "--length", type=int, default=500, help="tokens to write (default: %(default)s)"
    )
    parser.add_argument("--temperature", type=float, default=0.8, help="default: %(default)s")
    parser.add_argument("--top-k", type=int, help="draw from the k likeliest tokens only")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    return parser


def _check_ranges(options: argparse.Namespace) -> None:
    for name, value, least, most in (
        ("--length", options.length, 1, 10**6),
        ("--top-k", options.top_k, 1, 10**9),
        ("--seed", options.seed, 0, 2**63 - 1),
        # A smaller temperature may overflow the logits; at this one the likeliest token is
        # practically always drawn.
        ("--temperature", options.temperature, 1e-3, 1e6),
    ):
        if value is not None and not least <= value <= most:
            raise ConfigError(f"{name} {value} is not allowed; it must be from {least} to {most}.")


def _read_tokenizer(folder: Path) -> Tokenizer:
    path = folder / VOCABULARY_FILE
    if not (folder / CONFIG_FILE).is_file() or not path.is_file():
        raise NormlabError(
            f"{folder} is not the folder of a run, which holds {CONFIG_FILE} and "
            f"{VOCABULARY_FILE}; {suggest_closest_path(folder, CONFIG_FILE)}give one like "
            f"outputs/<study>/<run>."
        )
    try:
        return tokenizer_from_json(read_text(path))
    except (NormlabError, ValueError, OSError) as error:
        raise NormlabError(f"{path} is damaged; train the run again.") from error


def _find_checkpoint(folder: Path, path: str | None) -> Path:
    best, last = folder / BEST_CHECKPOINT, folder / LAST_CHECKPOINT
    default = best if best.is_file() else last
    # A link that the user names is the user's to follow.
    checkpoint = Path(path).resolve() if path else default
    if not checkpoint.is_file():
        raise NormlabError(
            f"{checkpoint} is not there; {suggest_closest_path(checkpoint)}a run writes "
            f"{BEST_CHECKPOINT} at its lowest validation loss, and {LAST_CHECKPOINT} from time to "
            f"time and when it ends."
        )
    return checkpoint
