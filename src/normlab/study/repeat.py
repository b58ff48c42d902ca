"""`train.py --from RUN`: the same run once more, from what its folder says, and what came out."""

from collections.abc import Sequence
from pathlib import Path

from normlab.archive import tags
from normlab.archive.events import Series, read_events
from normlab.archive.files import check_links
from normlab.archive.record import (
    CONFIG_FILE,
    SETTLED_STATES,
    RunRecord,
    check_output_dir,
    check_study_name,
    describe_file_change,
    describe_file_changes,
    list_file_changes,
)
from normlab.config.run_spec import RunSpec, describe_changed_text
from normlab.config.specify import read_run_spec
from normlab.data import build_source
from normlab.errors import ConfigError, NormlabError
from normlab.study.plan import (
    ELSEWHERE,
    check_repeated_keys,
    check_same_sources,
    check_writable,
    make_study_folder,
)
from normlab.study.workers import check_runs, train_with_progress
from normlab.terminal import open_terminal

FLAG = "--from"
_ALLOWED_KEYS = ("study", "output_dir")
# What may differ between two records of the same run, and could explain other numbers.
_CIRCUMSTANCES = ("versions", "sources", "git", "hardware", "precision", "device")
_CURVES = (tags.TRAIN_LOSS, tags.VALIDATION_LOSS)


def repeat_run(arguments: Sequence[str], command: str) -> None:
    """Train the run of a folder again, in a study of its own, and compare.

    Raises:
        ConfigError: the arguments are not a folder and where to write.
        NormlabError: it came out otherwise, or did not finish; or the folder is no run with a
            result, or of a version whose options meant another network, or of a text that has
            changed.
    """
    terminal = open_terminal()
    folder, changes = _read_arguments(arguments)
    # Before anything in it is read: a link in a folder from elsewhere may lead anywhere.
    check_links(folder)
    before = RunRecord.read_for_user(folder)
    if before.state not in SETTLED_STATES:
        raise NormlabError(f"{folder} has no result to compare with ({before.state}).")
    spec = _read_spec(folder, before, changes)
    if spec.folder.resolve() == folder.resolve():
        raise ConfigError(
            f"{folder} cannot be repeated into itself; give another study=… or output_dir=…"
        )
    check_writable(spec.study_folder)
    warnings = check_runs([spec], local=True).warnings
    make_study_folder(spec.study_folder)
    if build_source(spec.plain["data"], spec.config.model.context).digest != before.data_digest:
        raise NormlabError(f"{folder} cannot be repeated: {describe_changed_text(spec)}.")
    if altered_files := describe_file_changes(folder, list_file_changes(folder, before)):
        terminal.print(f"note: {altered_files}", markup=False)
    for sentence in warnings:
        terminal.print(f"note: {sentence}", markup=False)
    terminal.print(f"repeats {folder} in {spec.folder}", markup=False)
    if (there := spec.read_result()) is not None:
        check_same_sources(spec, there)
        terminal.print(
            f"note: {spec.folder} is a repeat from {there.started}, compared without training; "
            f"delete it, or give another study=…, to train once more",
            markup=False,
        )
    if before.threads is not None:  # its bits depend on them
        import torch

        torch.set_num_threads(before.threads)
    # Alone or as a stack of one, as it was: the two round differently.
    if train_with_progress(spec, 1, 1, command, stacked=before.stacked) == ELSEWHERE:
        raise NormlabError(
            f"{spec.folder} is being trained by another process; repeat when it has ended."
        )
    after = RunRecord.read_for_user(spec.folder)
    if after.state not in SETTLED_STATES:
        raise NormlabError(f"the repeat did not finish: {after.reason or after.state}.")
    for line in _changed_circumstances(before, after):
        terminal.print(line, markup=False)
    difference = _describe_difference(folder, before, spec.folder, after)
    if difference:
        raise NormlabError(f"not the same: {difference}")
    terminal.print("the same, to the bit")


def _read_arguments(arguments: Sequence[str]) -> tuple[Path, dict[str, str]]:
    words = list(arguments)
    if FLAG not in words:  # --from=RUN
        at = next(n for n, word in enumerate(words) if word.startswith(f"{FLAG}="))
        words[at : at + 1] = words[at].split("=", 1)
    at = words.index(FLAG)
    named = words[at + 1] if at + 1 < len(words) else ""
    # A folder may have a = in its name; a key=value that is none was meant to follow the folder.
    if not named or ("=" in named and not Path(named).is_dir()):
        raise ConfigError(f"{FLAG} needs a run's folder, as in {FLAG} outputs/<study>/<run>.")
    folder = Path(words[at + 1])
    changes = {}
    others = words[:at] + words[at + 2 :]
    check_repeated_keys(others)
    for word in others:
        key, _, value = word.partition("=")
        if key not in _ALLOWED_KEYS or not value:
            raise ConfigError(
                f"{word} cannot stand beside {FLAG}, which repeats a run as it was; only "
                f"{' and '.join(f'{name}=…' for name in _ALLOWED_KEYS)} may be given."
            )
        changes[key] = value
    if "study" in changes:
        check_study_name(changes["study"])
    if "output_dir" in changes:
        check_output_dir(changes["output_dir"])
    return folder, changes


def _read_spec(folder: Path, before: RunRecord, changes: dict[str, str]) -> RunSpec:
    changes = {"study": f"{str(before.config.get('study'))[:57]}-repeat", **changes}
    spec = read_run_spec(folder, before.choices, changes)
    if spec.id != before.id and (problem := describe_file_change(folder, before, CONFIG_FILE)):
        raise NormlabError(f"{folder} cannot be repeated: {problem}, and asks for another run.")
    if spec.id != before.id:
        raise NormlabError(
            f"{folder} was made by a normlab whose options meant something else "
            f"(run {before.id}, now {spec.id}); repeat it with that version: {before.git}."
        )
    return spec


def _changed_circumstances(before: RunRecord, after: RunRecord) -> list[str]:
    lines = []
    for name in _CIRCUMSTANCES:
        was, now = getattr(before, name), getattr(after, name)
        if isinstance(was, dict) and isinstance(now, dict):
            keys = [key for key in {**was, **now} if was.get(key) != now.get(key)]
            lines += [f"differs  {name}.{key}: {was.get(key)}, now {now.get(key)}" for key in keys]
        elif was != now:
            lines.append(f"differs  {name}: {was}, now {now}")
    return lines


def _describe_difference(old: Path, before: RunRecord, new: Path, after: RunRecord) -> str:
    """Where a point of the loss curves, or an end, is another number; empty if nowhere."""
    curves = [read_events(folder, _CURVES).scalars for folder in (old, new)]
    for tag in _CURVES:
        old_points, new_points = (_values_by_step(scalars.get(tag)) for scalars in curves)
        for step in sorted({*old_points, *new_points}):
            if old_points.get(step) != new_points.get(step):
                return f"{tag} differs from step {step} on."
    same = (before.state, before.final, before.best) == (after.state, after.final, after.best)
    return "" if same else "the curves agree, but the ends differ."


def _values_by_step(series: Series | None) -> dict[int, str]:
    """Values by step, as texts: a NaN is the same as a NaN."""
    if series is None:
        return {}
    return dict(zip(series.steps.tolist(), map(repr, series.values.tolist()), strict=True))
