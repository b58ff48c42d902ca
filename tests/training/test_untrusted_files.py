"""Files of a run or of the cache that came from a stranger: read as data, or refused in words."""

import ast
import json
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import yaml
from tensorboard.plugin_util import markdown_to_safe_html

import normlab
from normlab.apps.sample import main
from normlab.archive import tags
from normlab.archive.study import read_run
from normlab.data import build_source
from normlab.errors import NormlabError
from normlab.training.checkpoints import load_weights
from normlab.training.run import train
from normlab.training.tensorboard import _card, _fence
from tiny_run import TINY, SilentDisplay

SOURCES = sorted(Path(normlab.__file__).parent.rglob("*.py"))


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable, tuple[str, str]]:
        return open, (str(self.mark), "w")


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "exploded"


@pytest.fixture(scope="module")
def original(specified: Callable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = specified(*TINY, f"output_dir={tmp_path_factory.mktemp('original')}")
    assert train(spec, "", SilentDisplay()).state == "finished"
    folder: Path = spec.folder
    return folder


@pytest.fixture
def run(original: Path, tmp_path: Path) -> Path:
    """The folder of a run: trained once, copied for each test."""
    return Path(shutil.copytree(original, tmp_path / "outputs" / original.name))


def sampled(run: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    with pytest.raises(SystemExit) as left:
        main([str(run), "--length", "3"])
    return int(left.value.code or 0), capsys.readouterr().err


def test_the_bomb_works(mark: Path) -> None:
    pickle.loads(pickle.dumps(Bomb(mark)))
    assert mark.exists()


@pytest.mark.parametrize("kind", ["pickle", "torch", "old torch", "state"])
def test_a_bomb_as_checkpoint_is_refused(
    kind: str, mark: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run / "checkpoints" / "best.ckpt"
    if kind == "pickle":
        path.write_bytes(pickle.dumps(Bomb(mark)))
    else:
        content = {"state_dict": {"model.x": Bomb(mark)}} if kind == "state" else Bomb(mark)
        torch.save(content, path, _use_new_zipfile_serialization=kind != "old torch")
    with pytest.raises(NormlabError, match="damaged or no checkpoint"):
        load_weights(path)
    code, err = sampled(run, capsys)
    assert code == 1
    assert err.count("\n") == 1
    assert str(path) in err
    assert not mark.exists()


@pytest.mark.parametrize("name", ["vocabulary.json", "config.yaml"])
def test_a_bomb_as_a_runs_file_is_refused(
    name: str, mark: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / name).write_bytes(pickle.dumps(Bomb(mark), protocol=0))
    code, err = sampled(run, capsys)
    assert code == 1
    assert f"{run / name} is damaged" in err
    assert err.count("\n") == 1
    assert not mark.exists()


def test_a_bomb_as_record_is_left_out_of_the_study(mark: Path, run: Path) -> None:
    (run / "run.json").write_bytes(pickle.dumps(Bomb(mark)))
    assert any("run.json is unreadable" in said for said in read_run(run).left_out)
    assert not mark.exists()


def test_a_runs_config_does_not_name_code_to_run(
    mark: Path,
    run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "sprung_norms.py").write_text(f"open({str(mark)!r}, 'w')\n")
    monkeypatch.syspath_prepend(tmp_path)
    plain = yaml.safe_load((run / "config.yaml").read_text())
    plain["placement"]["final"] = {"_target_": "sprung_norms.Norm"}
    (run / "config.yaml").write_text(yaml.safe_dump(plain))
    code, err = sampled(run, capsys)
    assert code == 2
    assert "placement.final._target_=sprung_norms.Norm is not trusted" in err
    assert err.count("\n") == 1
    assert not mark.exists()


@pytest.mark.parametrize("suffix", [".ids", ".json"])
def test_a_bomb_in_the_cache_is_made_anew(
    suffix: str, mark: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, text = _cached(tmp_path, monkeypatch)
    stored = kept.with_suffix(suffix)
    whole = stored.read_bytes()
    stored.write_bytes(pickle.dumps(Bomb(mark)))
    build_source({"kind": "text", "path": str(text)}, 8)
    assert stored.read_bytes() == whole
    assert not mark.exists()


@pytest.mark.parametrize("dtype", ["O", "f8", "<u8", [["a", "O"]]])
def test_a_cache_of_anything_but_token_ids_is_made_anew(
    dtype: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from normlab.data import text as user_text

    kept, text = _cached(tmp_path, monkeypatch)
    whole = kept.read_text()
    kept.write_text(json.dumps(json.loads(whole) | {"dtype": dtype}))
    opened = []
    map_ids = user_text._map_ids
    monkeypatch.setattr(user_text, "_map_ids", lambda *a: opened.append(a[1]) or map_ids(*a))
    build_source({"kind": "text", "path": str(text)}, 8)
    assert kept.read_text() == whole
    assert dtype not in opened


def _cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    monkeypatch.setattr("normlab.data.text.user_cache_path", lambda name: tmp_path / "cache")
    text = tmp_path / "text.txt"
    text.write_text("to be or not to be " * 50)
    build_source({"kind": "text", "path": str(text)}, 8)
    (kept,) = (tmp_path / "cache" / "corpora").glob("*.json")
    return kept, text


def test_nothing_in_the_package_unpickles_or_evaluates() -> None:
    assert len(SOURCES) > 50
    found = [f"{path.name}: {what}" for path in SOURCES for what in _dangers(path)]
    assert not found


def _dangers(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [one.name for one in node.names] + [getattr(node, "module", "") or ""]
            yield from {"pickle", "marshal", "shelve", "dill", "joblib"}.intersection(names)
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            words = {word.arg: ast.unparse(word.value) for word in node.keywords}
            if called == "torch.load" and words.get("weights_only") != "True":
                yield ast.unparse(node)
            if called in ("eval", "exec", "np.load", "yaml.load", "yaml.unsafe_load", "__import__"):
                yield ast.unparse(node)


WILD = "```\n````yaml\n</code></pre><img src=http://x/y>\n![p](http://x/y) [a](http://x) **b**"


@pytest.mark.parametrize("where", ["norm", "placement", "data", "config"])
def test_no_value_leaves_its_place_in_tensorboards_text(where: str, run: Path) -> None:
    record = read_run(run).record
    if where == "config":
        record.config["norm"]["x"] = [WILD, {WILD: WILD}]
    else:
        setattr(record, where, WILD)
    shown = markdown_to_safe_html(_card(record))
    assert shown.count("<pre>") == shown.count("<h1>") == 1
    assert shown.count("<strong>") == 4
    assert "<img" not in shown
    assert "<a " not in shown
    assert "![p](http://x/y)" in shown


def test_a_fence_is_longer_than_any_in_its_text() -> None:
    text = "````yaml\n```\n````\n<img src=http://x/y>"
    shown = markdown_to_safe_html(_fence("yaml", text))
    assert shown.count("<pre>") == shown.count("</pre>") == 1
    assert shown.rstrip().endswith("&lt;img src=http://x/y&gt;\n</code></pre>")


def test_a_record_with_a_fence_in_it_is_read_back_from_the_events(
    specified: Callable, tmp_path: Path
) -> None:
    spec = specified(*TINY, f"output_dir={tmp_path}")
    spec.plain["norm"]["x"] = WILD
    spec.config.trainer.max_steps = 3
    assert train(spec, "", SilentDisplay()).state == "finished"
    (spec.folder / "run.json").unlink()
    rebuilt = read_run(spec.folder)
    assert rebuilt.record.config["norm"]["x"] == WILD
    text = rebuilt.events.texts[tags.RECORD]
    assert markdown_to_safe_html(text).count("<pre>") == 1
