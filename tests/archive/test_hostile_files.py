"""Records and event files that claim what is not so: refused in words, bounded in all they take."""

import csv
import json
import os
import struct
import time
import zlib
from pathlib import Path
from typing import Any

import pytest
from tensorboard.compat.proto import event_pb2, types_pb2
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c
from torch.utils.tensorboard import SummaryWriter

from normlab.analysis.plot import main
from normlab.apps.experiments.record import read_record
from normlab.archive import event_file, tags
from normlab.archive.events import read_events
from normlab.archive.files import replace_atomically
from normlab.archive.lock import is_run_locked
from normlab.archive.record import BestNumbers, FinalNumbers, RunRecord
from normlab.archive.study import read_run, read_study
from normlab.errors import NormlabError

STEPS = 10


def written(folder: Path, **changes: Any) -> Path:
    """A finished run whose event files hold ten training losses from 3.0 to 2.1."""
    record = RunRecord(
        id="0", name="run", norm="rmsnorm", placement="pre", data="synthetic", seed=0,
        choices={}, config={}, state="finished", step=STEPS, final=FinalNumbers(2.0, 2.1),
        best=BestNumbers(2.0, STEPS), tokens_per_second=1000.0,
    )  # fmt: skip
    with SummaryWriter(str(folder)) as writer:
        for step in range(STEPS):
            writer.add_scalar(tags.TRAIN_LOSS, 3.0 - step / 10, step)
            writer.add_scalar(tags.TOKENS_PER_SECOND, 900.0 + 20 * step, step)
        for step in (0, STEPS):
            writer.add_scalar(tags.VALIDATION_LOSS, 3.0 - step / 10, step)
    record.write(folder)
    if changes:
        forge(folder, **changes)
    return folder


def forge(folder: Path, **changes: Any) -> None:
    """Write other values into `run.json`, with a checksum that is right."""
    raw = json.loads((folder / "run.json").read_text())
    del raw["checksum"]
    text = json.dumps(raw | changes)
    (folder / "run.json").write_text(text[:-1] + f', "checksum": {zlib.crc32(text.encode())}}}')


def framed(message: bytes) -> bytes:
    length = struct.pack("<Q", len(message))
    return b"".join(
        [
            length,
            struct.pack("<I", masked_crc32c(length)),
            message,
            struct.pack("<I", masked_crc32c(message)),
        ]
    )


FORGED = {
    "final": {"val_loss": 0.01, "train_loss": 2.1},
    "best": {"val_loss": 0.01, "step": 10},
    "tokens_per_second": 1e9,
}


@pytest.mark.parametrize("key", FORGED)
def test_a_record_is_not_believed_what_the_events_do_not_say(key: str, tmp_path: Path) -> None:
    run = read_run(written(tmp_path / "run", **{key: FORGED[key]}))
    assert (run.record.final.val_loss, run.record.best.val_loss) == (2.0, 2.0)
    assert 900 <= run.record.tokens_per_second <= 1080
    (sentence,) = run.left_out
    assert f"says {key}" in sentence
    assert read_run(written(tmp_path / "honest")).left_out == []


IMPOSSIBLE = {
    "step": -1,
    "seed": 10**400,
    "parameters": -5,
    "resumed_at": [-3],
    "tokens_per_second": -1.0,
    "norm": "n" * 5000,
    "choices": {"norm": ["rmsnorm"]},
    "config": {"optimizer": {"lr": 2**70}},
    "started": 5,
}


@pytest.mark.parametrize("key", IMPOSSIBLE)
def test_a_record_with_what_no_run_writes_is_not_read(key: str, tmp_path: Path) -> None:
    folder = written(tmp_path / "run", **{key: IMPOSSIBLE[key]})
    with pytest.raises(NormlabError, match=r"run\.json is damaged") as caught:
        RunRecord.read(folder)
    assert len(str(caught.value)) < 1000
    with pytest.raises(NormlabError, match="was left out"):
        read_run(folder)


BEYOND: dict[str, tuple[dict[str, Any], str]] = {
    "keys": ({"config": {str(n): n for n in range(3000)}}, "config holds more than 2,000"),
    "levels": ({"config": {"a": [[n] for n in range(3000)]}}, "config holds more than 2,000"),
    "versions": ({"versions": {str(n): "1" for n in range(3000)}}, "versions holds more than"),
    "choices": ({"choices": {str(n): "1" for n in range(3000)}}, "choices holds more than"),
    "hardware": ({"hardware": {"cpu": "x" * 5000}}, "hardware holds a text of 5,000 characters"),
    "git": ({"git": {"commit": "x" * 5000}}, "it holds a name of 5000 characters"),
    "list as commit": ({"git": {"commit": ["x"]}}, 'git.commit is ["x"], not '),
    "yes as commit": ({"git": {"commit": True}}, "git.commit is true, not "),
    "option": ({"choices": {"norm": "x" * 300}}, "a name of 300 characters"),
    "floor": ({"floor": 1e308}, "floor is 1e+308, not a loss"),
    "unigram": ({"unigram": -0.1}, "unigram is -0.1, not a loss"),
    "parameters": ({"parameters": 10**13}, "parameters is 10000000000000, not a number"),
    "divergence": ({"state": "diverged", "diverged_step": STEPS + 1}, "it diverged at step 11"),
    "end": ({"config": {"trainer": {"max_steps": STEPS + 1}}}, "finished, at step 10 of 11"),
    "after the end": ({"config": {"trainer": {"max_steps": 3}}}, "finished, at step 10 of 3"),
    "no steps": ({"config": {"trainer": {"max_steps": 0}}, "step": 0}, "max_steps is 0, not a"),
    "rate below": ({"config": {"optimizer": {"lr": -1.0}}}, "config.optimizer.lr is -1.0, not a"),
    "rate above": ({"config": {"optimizer": {"lr": 1e308}}}, "config.optimizer.lr is 1e+308"),
    "interval": ({"config": {"trainer": {"log_every": 0}}}, "config.trainer.log_every is 0"),
    "warm-up": ({"config": {"schedule": {"warmup": 1e300}}}, "config.schedule.warmup is 1e+300"),
    "no blocks": ({"config": {"model": {"depth": 0}}}, "config.model.depth is 0, not a number"),
    "section": ({"config": {"optimizer": [1]}}, "config.optimizer is no section"),
    "setting": ({"config": {"model": {"depth": "deep"}}}, "config.model.depth"),
}


@pytest.mark.parametrize("what", BEYOND)
def test_a_record_beyond_the_bounds_of_a_run_is_left_out_of_its_study(
    what: str, tmp_path: Path
) -> None:
    changes, words = BEYOND[what]
    written(tmp_path / "sound")
    with pytest.raises(NormlabError) as caught:
        RunRecord.read(written(tmp_path / "forged", **changes))
    assert words in str(caught.value)
    study = read_study(tmp_path)
    assert [run.folder.name for run in study.runs] == ["sound"]
    (sentence,) = study.left_out
    assert sentence.startswith(f"{tmp_path / 'forged'} was left out")


def test_losses_that_no_events_bear_out_are_in_no_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed, name in enumerate(("sound", "bare")):
        written(tmp_path / "study" / name, name=name, seed=seed)
    for path in (tmp_path / "study" / "bare").glob("events*"):
        path.unlink()
    main([str(tmp_path / "study")])
    assert "bare has no readable scalars: it is in the table" in capsys.readouterr().out
    with (tmp_path / "study" / "runs.csv").open() as lines:
        rows = {row["name"]: row for row in csv.DictReader(lines)}
    numbers = ("final.val_loss", "final.train_loss", "best.val_loss", "tokens_per_second")
    assert [rows["bare"][key] for key in numbers] == ["", "", "", ""]
    assert all(rows["sound"][key] for key in numbers)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"a":' * 5000 + "1" + "}" * 5000,
        " " * 2**25,
        "9" * 5000,
        "1e999",
        '"\\ud800"',
    ],
    ids=["levels", "objects", "32 MB", "digits", "exponent", "surrogate"],
)
@pytest.mark.parametrize("name", ["run.json", "precision.json"])
def test_json_without_an_end_is_refused(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(NormlabError, match=r"is damaged|is larger"):
        RunRecord.read_for_user(tmp_path) if name == "run.json" else read_record(tmp_path / name)


def test_a_text_of_blanks_is_read_in_linear_time(tmp_path: Path) -> None:
    with SummaryWriter(str(tmp_path)) as writer:
        writer.add_text("record", "```json\n" + " \n" * 2**19)
    began = time.process_time()
    with pytest.raises(NormlabError, match="do not tell what the run was"):
        read_run(tmp_path)
    assert time.process_time() - began < 5


def claiming(shape: list[int], dtype: int, **content: Any) -> bytes:
    event = event_pb2.Event(step=1, wall_time=1.0)
    value = event.summary.value.add(tag=tags.TRAIN_LOSS)
    value.metadata.plugin_data.plugin_name = "scalars"
    value.tensor.dtype = dtype
    for size in shape:
        value.tensor.tensor_shape.dim.add(size=size)
    for key, numbers in content.items():
        if isinstance(numbers, bytes):
            setattr(value.tensor, key, numbers)
        else:
            getattr(value.tensor, key).extend(numbers)
    return framed(event.SerializeToString())


@pytest.mark.parametrize(
    "record",
    [
        claiming([10**18], types_pb2.DT_FLOAT, float_val=[1.0]),
        claiming([2**31, 2**31], types_pb2.DT_FLOAT, float_val=[1.0]),
        claiming([-1, -1], types_pb2.DT_FLOAT, float_val=[1.0]),
        claiming([1] * 200, types_pb2.DT_FLOAT, float_val=[1.0]),
        claiming([], 99, float_val=[1.0]),
        claiming([], types_pb2.DT_RESOURCE, float_val=[1.0]),
        claiming([], types_pb2.DT_COMPLEX64, scomplex_val=[1.0, 2.0]),
        claiming([], types_pb2.DT_QINT8, tensor_content=b"\0"),
        claiming([], types_pb2.DT_DOUBLE, tensor_content=b"123"),
    ],
    ids=[
        "1e18",
        "2^62",
        "negative",
        "axes",
        "type 99",
        "resource",
        "complex",
        "quantized",
        "bytes",
    ],
)
def test_a_tensor_that_claims_what_is_not_there_is_no_point(record: bytes, tmp_path: Path) -> None:
    sound = claiming([], types_pb2.DT_FLOAT, float_val=[2.5])
    (tmp_path / "events.out.tfevents.1.host.1.0").write_bytes(record + sound)
    series = read_events(tmp_path).scalars[tags.TRAIN_LOSS]
    assert series.values.tolist() == [2.5]


def test_records_made_to_overlap_are_searched_in_linear_time(tmp_path: Path) -> None:
    # Every twelve bytes a header that is sound, and claims all that follows.
    size = 2**18
    header = []
    for at in range(0, size, 12):
        length = struct.pack("<Q", max(0, size - at - 100))
        header.append(length + struct.pack("<I", masked_crc32c(length)))
    path = tmp_path / "events.out.tfevents.1.host.1.0"
    path.write_bytes(b"x" + b"".join(header))
    checked = []
    masked = event_file.masked_crc32c

    def counting(data: Any, starts: Any, lengths: Any) -> Any:
        checked.append(int(lengths.sum()))
        return masked(data, starts, lengths)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(event_file, "masked_crc32c", counting)
        events = read_events(tmp_path)
    assert sum(checked) < 40 * size
    assert "damaged" in events.left_out[0]


def test_a_file_of_a_terabyte_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "events.out.tfevents.1.host.1.0"
    path.touch()
    os.truncate(path, 2**40)
    (sentence,) = read_events(tmp_path).left_out
    assert "larger than" in sentence


def test_event_files_of_any_name_can_be_followed(tmp_path: Path) -> None:
    from normlab.training.tensorboard import _newest_stamp

    for name in ("", ".", ".²", ".9999999999999999999999999.h", ".12.h"):
        (tmp_path / f"events.out.tfevents{name}").touch()
    assert _newest_stamp(tmp_path) == 12


@pytest.mark.parametrize("note", ['{"pid": "x", "host": 3}', '{"pid": 1e400}', "[" * 10**5, "null"])
def test_a_note_of_an_owner_that_is_none_holds_nothing(note: str, tmp_path: Path) -> None:
    (tmp_path / ".locks").mkdir()
    (tmp_path / ".locks" / "0.json").write_text(note)
    assert not is_run_locked(tmp_path, "0")


def test_a_draft_is_not_written_through_a_link_that_waits(tmp_path: Path) -> None:
    precious, path = tmp_path / "precious", tmp_path / "runs.csv"
    precious.write_text("mine")
    with replace_atomically(path) as draft:
        name = draft.name
    (tmp_path / name).symlink_to(precious)
    with replace_atomically(path) as draft:
        draft.write_text("table")
    assert (precious.read_text(), path.read_text()) == ("mine", "table")
    assert not path.is_symlink()
