"""Run folders, bent at random: forged records, other configurations, states, links."""

import json
import os
import random
import shutil
import zlib
from pathlib import Path
from typing import Any

import torch

import mutations
from normlab.analysis.result import analyse_study
from normlab.analysis.runs_csv import write_runs_csv
from normlab.apps.sample import main as sample_main
from normlab.archive.study import read_study

NUMBERS = (0, -1, 1.5, 1e308, 10**400, 2**63, -(2**63), True, None)
TEXTS = ("", "x", "=1+1", "\x1b]0;x\x07", "\u202e", "a" * 5000, "../x", "<b>", "$x$", "nan")
VALUES: tuple[Any, ...] = (*NUMBERS, *TEXTS, [], {}, [1, [2]], {"a": {"b": 1}}, [None] * 50)
STATES = ("checkpoints/last.ckpt", "checkpoints/best.ckpt", "checkpoints/previous.ckpt")
FILES = ("run.json", "config.yaml", "vocabulary.json", "train.log", *STATES)


def copy_run(original: Path, folder: Path) -> Path:
    """A run alone in a study of its own."""
    run = folder / "study" / original.name
    shutil.copytree(original, run)
    return run


def bend_folder(dice: random.Random, run: Path) -> None:
    """One to three things wrong with a run's folder."""
    for _ in range(dice.choice((1, 1, 2, 3))):
        dice.choice(_BENDS)(dice, run)


def read_bent_study(dice: random.Random, run: Path) -> str:
    """Read the study and write its table; now and then sample from the run, as a user would."""
    study = read_study(run.parent)
    assert all(len(line) < 2_000 for line in study.left_out)
    write_runs_csv(study)
    analyse_study(study)
    if dice.random() < 0.3:
        try:
            sample_main([str(run), "--length", "3"])
        except SystemExit as left:
            if left.code not in (1, 2):
                raise
            return "passed"
        return "built"
    return "passed"


def _is_within(path: Path) -> bool:
    """Whether no link that was put here before leads to the path's folder."""
    return path.parent.is_dir() and not path.parent.is_symlink()


def _is_regular(path: Path) -> bool:
    return _is_within(path) and path.is_file() and not path.is_symlink()


def _forge_record(dice: random.Random, run: Path) -> None:
    """Another value under the right checksum."""
    path = run / "run.json"
    if not _is_regular(path):
        return
    try:
        raw = json.loads(path.read_text())
    except ValueError:
        return
    raw.pop("checksum", None)
    node: Any = raw
    key = dice.choice(list(node))
    while isinstance(node[key], dict) and node[key] and dice.random() < 0.7:
        node = node[key]
        key = dice.choice(list(node))
    node[key] = dice.choice(VALUES)
    text = json.dumps(raw)
    path.write_text(json.dumps({**json.loads(text), "checksum": zlib.crc32(text.encode())}))


def _bend_text(dice: random.Random, run: Path) -> None:
    path = run / dice.choice(FILES[:4])
    if _is_regular(path):
        path.write_bytes(mutations.text(dice, path.read_text(errors="replace")))


def _bend_bytes(dice: random.Random, run: Path) -> None:
    path = run / dice.choice(FILES)
    if _is_regular(path):
        content = bytearray(path.read_bytes() or b"x")
        for _ in range(dice.choice((1, 4, 64))):
            content[dice.randrange(len(content))] = dice.randrange(256)
        end = dice.choice((len(content), dice.randrange(len(content) + 1)))
        path.write_bytes(bytes(content[:end]))


def _bend_state(dice: random.Random, run: Path) -> None:
    """Other weights, keys and types in a state that loads."""
    path = run / dice.choice(STATES)
    if not _is_regular(path):
        return
    try:
        state = torch.load(path, weights_only=True)
    except Exception:
        return
    node = state
    key = dice.choice(list(node))
    while isinstance(node[key], dict) and node[key] and dice.random() < 0.8:
        node = node[key]
        key = dice.choice(list(node))
    value = node[key]
    if isinstance(value, torch.Tensor) and dice.random() < 0.7:
        node[key] = dice.choice(
            (
                value * float("nan"),
                value.flatten()[:0],
                value.double(),
                value.long(),
                value.unsqueeze(0),
            )
        )
    elif dice.random() < 0.3:
        del node[key]
    else:
        node[key] = dice.choice(VALUES)
    torch.save(state, path)


def _put_a_link(dice: random.Random, run: Path) -> None:
    path = run / dice.choice((*FILES, "checkpoints", "new"))
    target = dice.choice((run.parent / "elsewhere", Path("/etc/passwd"), Path("/dev/zero"), path))
    if not _is_within(path):
        return
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def _put_a_pipe(dice: random.Random, run: Path) -> None:
    path = run / dice.choice(FILES)
    if _is_within(path):
        path.unlink(missing_ok=True)
        os.mkfifo(path)


def _remove(dice: random.Random, run: Path) -> None:
    path = run / dice.choice(FILES)
    if _is_within(path):
        path.unlink(missing_ok=True)


_BENDS = (
    *(_forge_record, _forge_record, _forge_record, _bend_text, _bend_text, _bend_bytes),
    *(_bend_state, _bend_state, _put_a_link, _put_a_pipe, _remove),
)
