"""The process that runs a learner's file: python -m normlab.apps.learn.check_process.

It imports torch, says that it is ready, limits its memory and the files it can write, imports the
file, lets the judge measure it, and writes the verdict as JSON. Its parent keeps the time. Nothing
that the file does (exit, print, take all memory) reaches the parent.
"""

import json
import os
import sys
from contextlib import suppress
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from normlab.archive.files import write_text

RESULT_FILE, READY_FILE = "verdict.json", "ready"
# Beyond what torch has taken; a solution needs a few megabytes, a training run some hundred.
_MOST_BYTES = 3 * 2**30
_LARGEST_FILE = 64 * 2**20
_MEMORY_SENTENCE = (
    f"the solution takes more memory than {_MOST_BYTES // 2**30} GiB; make smaller tensors."
)


def main(exercise: str, path: Path, folder: Path) -> None:
    """Judge the file of this exercise; the verdict goes into `folder`."""
    # Here and not above: the parent imports the names of the files from this module, without torch.
    import torch

    from normlab.apps.learn.judges import FILE_JUDGES, MODULE_JUDGES
    from normlab.apps.learn.judges.mistake import MistakeError, is_memory_error, name_error

    torch.set_num_threads(1)
    # The parent's clock starts now: the import of torch is not the learner's time.
    write_text(folder / READY_FILE, "")
    _limit_resources()
    mistake = ""
    try:
        if exercise in FILE_JUDGES:
            FILE_JUDGES[exercise](path)
        else:
            MODULE_JUDGES[exercise](import_solution(path))
    except MistakeError as error:
        mistake = str(error)
    except BaseException as error:  # whatever a learner's class does that the judge does not expect
        is_memory = is_memory_error(error)
        mistake = _MEMORY_SENTENCE if is_memory else str(name_error("the solution", error))
    verdict = {"passed": not mistake, "sentence": mistake}
    write_text(folder / RESULT_FILE, json.dumps(verdict))


def _end_process() -> None:
    """End at once, and every process that the file has started.

    A thread that goes on, or what is registered for the end, would keep this process.
    """
    import psutil

    with suppress(Exception):  # one may have ended by itself
        for child in psutil.Process().children(recursive=True):
            child.kill()
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # the file may have closed or replaced them
            stream.flush()
    os._exit(0)


def _limit_resources() -> None:
    """Memory, and the size of a file: what is printed without end must not fill the disk."""
    with suppress(ImportError, ValueError, OSError):  # Windows has none, macOS not all
        import resource

        import psutil

        # RLIMIT_AS counts addresses, of which torch maps more than it uses: so vms, and not rss.
        most = psutil.Process().memory_info().vms + _MOST_BYTES
        # Standard output is a file of the parent, so this limits what is printed too. Python
        # ignores SIGXFSZ, and a write beyond the limit raises an OSError with EFBIG.
        resource.setrlimit(resource.RLIMIT_FSIZE, (_LARGEST_FILE, _LARGEST_FILE))
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def import_solution(path: Path) -> ModuleType:
    """The learner's file as a module.

    Raises:
        MistakeError: it cannot be imported: a syntax error, a package that is missing, any error.
    """
    from normlab.apps.learn.judges.mistake import (
        SOLUTION,
        MistakeError,
        is_memory_error,
        name_error,
    )

    # Last, so that a file of the learner's named like a package takes nothing's place.
    sys.path.append(str(path.parent))
    spec = spec_from_file_location(SOLUTION, path)
    if spec is None or spec.loader is None:
        raise MistakeError(f"{path.name} is not a Python file; its name ends in .py.")
    no_text = MistakeError(f"{path.name} is not a text file in UTF-8; give your Python file.")
    if b"\0" in path.read_bytes():  # a SyntaxError to Python, or a ValueError before 3.11.4
        raise no_text
    module = module_from_spec(spec)
    # A dataclass looks for its module there.
    sys.modules[SOLUTION] = module
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        if not _is_utf8(path):  # a SyntaxError to Python too
            raise no_text from error
        raise MistakeError(
            f"line {error.lineno} of {path.name} is not Python: {error.msg}."
        ) from error
    except BaseException as error:  # exit, and KeyboardInterrupt, are the learner's own too
        if is_memory_error(error):  # `main` has a sentence for it
            raise
        raise name_error(f"{path.name}, while it is imported,", error) from error
    return module


def _is_utf8(path: Path) -> bool:
    try:
        path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return False
    return True


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
    _end_process()
