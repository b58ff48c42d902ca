"""Files from elsewhere are stopped before Hydra reads them: what they ask for, and their size."""

import itertools
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from normlab.apps.claims.main import main as claims_main
from normlab.config import gate
from normlab.config.compose import composed_config
from normlab.config.gate import UntrustedError, check_file, check_folder
from normlab.config.safe_yaml import read_yaml
from normlab.errors import ConfigError
from tiny_run import TINY

ROOT = Path(__file__).resolve().parents[2]
HOSTILE = ROOT / "tests" / "hostile"

# NAME.GROUP.yaml is an option of GROUP; two need a name that their content refers to.
OPTIONS = {
    "norm-searchpath.yaml": ("norm", "x"),
    "experiment-arms.yaml": ("experiment", "x"),
    "n_defaults.norm.yaml": ("norm", "x"),
    "n_defaultsself.norm.yaml": ("norm", "x"),
    **{
        path.name: (path.name.split(".")[1], path.name.split(".")[0])
        for path in HOSTILE.glob("[ch]_*.experiment.yaml")
    },
    **{f"{name}.norm.yaml": ("norm", name) for name in ("n_esckey", "n_hexint", "n_lol")},
    "n_anchorcycle2.norm.yaml": ("norm", "n_anchorcycle2"),
}


@pytest.fixture
def strangers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for --config-dir beside a module that leaves a mark when it is imported."""
    shutil.copy(HOSTILE / "evil.py", tmp_path / "evil.py")
    folder = tmp_path / "mine"
    folder.mkdir()
    shutil.copy(HOSTILE / "evil.py", folder / "evil.py")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return folder


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def assert_refused(answer: object, folder: Path) -> None:
    assert answer.code == 2, answer
    assert answer.err.startswith("normlab: "), answer.err
    assert answer.err.count("\n") == 1, answer.err
    assert not (folder.parent / "PWNED").exists()
    assert not (folder.parent / "outputs").exists()


@pytest.mark.parametrize("name", OPTIONS)
def test_every_hostile_file_is_one_sentence(name: str, strangers: Path, train_py: Callable) -> None:
    group, option = OPTIONS[name]
    write(strangers, f"{group}/{option}.yaml", (HOSTILE / name).read_text())
    answer = train_py("-m", "--config-dir", "mine", f"{group}={option}")
    assert_refused(answer, strangers)


SEARCH_PATH = "hydra.searchpath=[structured://mine.evil]"
SWEEPERS = {
    "params": "params: {hydra.searchpath: '[structured://mine.evil]'}",
    "a prefixed key": "params: {'++hydra.searchpath': '[structured://mine.evil]'}",
    "a quoted key": "params: {'\"hydra.searchpath\"': '[structured://mine.evil]'}",
    "a key that holds a value": f"params: {{'{SEARCH_PATH},x': 1}}",
    "a budget": "budgets: {quick: {hydra.searchpath: '[structured://mine.evil]'}}",
    "a second word of an arm": f"arms: ['norm=layernorm {SEARCH_PATH}']",
    "a launcher": "arms: ['hydra/launcher=basic']",
    "a callback": "params: {'+hydra.callbacks.x': '{_target_: mine.evil.X}'}",
    "a class": "params: {norm._target_: mine.evil.X}",
    "a mapping that is built": "params: {seed: {_target_: mine.evil.X}}",
    "defaults": "params: {+defaults: '[norm: x]'}",
    "a path for an option": "params: {norm: ../../../tmp/x}",
}


@pytest.mark.parametrize("case", SWEEPERS)
@pytest.mark.parametrize("how", ["experiment", "primary"])
def test_a_sweep_of_a_file_reaches_no_code(
    case: str, how: str, strangers: Path, train_py: Callable
) -> None:
    text = f"hydra: {{sweeper: {{{SWEEPERS[case]}}}}}\n"
    if how == "experiment":
        write(strangers, "experiment/x.yaml", f"# @package _global_\n{text}")
        chosen = "experiment=x"
    else:
        write(strangers, "x.yaml", f"defaults: [train, _self_]\n{text}")
        chosen = "--config-name=x"
    assert_refused(train_py("-m", "--config-dir", "mine", chosen, *TINY), strangers)


REFUSED = {
    "a launcher": "hydra: {launcher: {n_jobs: 2}}",
    "the search path": "hydra: {searchpath: [mine]}",
    "a sweeper's class": "hydra: {sweeper: {_target_: mine.evil.X}}",
    "hydra, no mapping": "hydra: 5",
    "the sweeper, no mapping": "hydra: {sweeper: [1]}",
    "hydra by a merged alias": "x: &x {launcher: {n_jobs: 2}}\nhydra: {<<: *x}",
    "a header": "# @package hydra\nsearchpath: [mine]",
    "a header behind another line": "# x\n  #  @package hydra.sweeper\nparams: {}",
    "a header behind a line separator": "# x\u2028# @package hydra.job\nchdir: true",
    "a header that is cut": f"#{'x' * 492}\n# @package hydraulic",
    "defaults of hydra": "defaults: [override hydra/launcher: basic]",
    "defaults in hydra": "defaults: ['/norm@hydra.launcher: rmsnorm']",
    "defaults with hydra as package": "defaults: [{/norm@hydra.launcher: rmsnorm}]",
    "defaults of a package": "defaults: [pkg://mine/evil]",
    "defaults elsewhere": "defaults: [/norm: ../../x]",
    "an interpolated default": "defaults: [{/norm: '${placement}'}]",
    "an unknown group": "defaults: [/secret: x]",
    "text that doubles": "norm: {a: xx, b: '${norm.a}${norm.a}'}",
    "lists that multiply": "norm: {a: [1, 1], b: ['${norm.a}', '${norm.a}']}",
    "a key that is interpolated": "norm: {'${oc.env:HOME}x': 1}",
    "a node that is made": "norm: '${oc.create:{_target_:mine.evil.X}}'",
    "what is decoded": "norm: '${oc.decode:\"mine.evil.X\"}'",
    "an interpolation in an interpolation": "seed: '${oc.env:${study}}'",
    "what is resolved later": "norm: {a: '\\${oc.create:{a:b}}'}",
    "a class of the optimizer": "optimizer: {_target_: torch.optim.SGD}",
    "a tag": "norm: !!python/name:mine.evil.X",
    "a tag of YAML's": "norm: !!binary aGk=",
    "two documents": "seed: 1\n---\nseed: 2",
    "a deep list": f"norm: {'[' * 3000}",
    "a long value": f"norm: {'x' * 5000}",
    "a large number": f"seed: 0x{'f' * 400}",
    "a large number of one kind": f"seed: {'9' * 3000}",
    "merged aliases": "a: &a {x: 1}\n"
    + "".join(
        f"{n}: &{n} {{<<: [{', '.join([f'*{m}'] * 9)}]}}\n" for m, n in itertools.pairwise("abcde")
    ),
    "no mapping": "[1, 2]",
    "a number of base 60": "trainer: {max_steps: 1:30:00}",
    "a fraction of base 60": "optimizer: {lr: 1:30.5}",
    "an octal number": "seed: 010",
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_file_may_not_ask_for_is_refused(
    case: str, strangers: Path, train_py: Callable
) -> None:
    text = REFUSED[case]
    head = "" if text.startswith("#") else "# @package _global_\n"
    write(strangers, "experiment/x.yaml", head + text)
    # A question composes as well; nothing is trained either way.
    assert_refused(train_py("--config-dir", "mine", "experiment=x", "--cfg", "job"), strangers)


ALLOWED = {
    "a sweep": "hydra: {sweeper: {arms: [norm=layernorm placement=post], params: {seed: '0,1'}}}",
    "budgets": "hydra: {sweeper: {budgets: {quick: {optimizer.lr: 1e-3, seed: 0}}}}",
    "other options": "defaults:\n  - override /norm: layernorm\n  - override /data: synthetic",
    "a number": "model: {heads: 2, depth: '${model.heads}'}",
    "a text like a number of base 60": "study: 'x1:30'\nlogger: {flush_seconds: 0}",
    "the environment": "study: '${oc.env:USER,somebody}'",
    "the study's name": "study: mine-${normlab.study:}",
    "an alias": "optimizer: {lr: &rate 1e-3}\nschedule: {warmup: *rate}",
    "a class of torch.nn": "norm: {_target_: torch.nn.RMSNorm, eps: 1e-6}",
}


@pytest.mark.parametrize("case", ALLOWED)
def test_what_users_need_passes(case: str, strangers: Path, train_py: Callable) -> None:
    write(strangers, "experiment/x.yaml", f"# @package _global_\n{ALLOWED[case]}")
    answer = train_py("--config-dir", "mine", "experiment=x", "--cfg", "job", "--resolve")
    assert answer.code == 0, answer.err


def test_a_primary_config_of_ones_own_is_accepted(strangers: Path, train_py: Callable) -> None:
    write(strangers, "mine.yaml", "defaults: [train, _self_]\nmodel: {width: 32}\n")
    answer = train_py("--config-dir", "mine", "--config-name", "mine", "--cfg", "job")
    assert answer.code == 0, answer.err
    assert "width: 32" in answer.out


def test_everything_of_conf_but_hydras_own_passes() -> None:
    for path in sorted((ROOT / "conf").rglob("*.yaml")):
        group = path.parent.relative_to(ROOT / "conf").as_posix()
        if group.startswith("hydra") or path.name == "train.yaml":
            continue
        check_file(path, group)


@pytest.mark.parametrize(
    "arguments",
    [
        ("hydra.searchpath=[structured://mine.evil]",),
        ("hydra.searchpath=[pkg://mine.evil]",),
        ("++hydra.searchpath=[pkg://mine.evil]",),
        ("hydra.searchpath=[mine]", "norm=x"),
        ("hydra.searchpath=['file://mine']", "norm=x"),
        ("--config-path", "mine", "norm=x"),
        ("-cd", "mine", "norm=x"),
        ("-cd=mine", "norm=x"),
        ("norm=../mine/norm/x",),
        ("norm=rmsnorm,../mine/norm/x",),
        ("+secret=x", "--config-dir=mine"),
    ],
)
def test_no_other_way_leads_around_the_gate(
    arguments: tuple[str, ...], strangers: Path, train_py: Callable
) -> None:
    write(strangers, "norm/x.yaml", "_target_: mine.evil.X")
    write(strangers, "secret/x.yaml", "# @package hydra\nsearchpath: [pkg://mine.evil]")
    assert_refused(train_py("-m", *arguments, *TINY), strangers)


def test_a_folder_of_hydras_options_is_refused(strangers: Path, train_py: Callable) -> None:
    write(strangers, "hydra/launcher/x.yaml", "n_jobs: 2")
    assert_refused(train_py("--config-dir", "mine", "hydra/launcher=x", *TINY), strangers)


EVIL = "# @package _global_\nhydra: {callbacks: {x: {_target_: mine.evil.X}}}"


@pytest.mark.parametrize(
    "group", ["schema", "seed", "jobs", "trainer.precision", "placement.blocks.deep", "Hydra"]
)
def test_no_folder_becomes_a_group_that_the_gate_does_not_read(
    group: str, strangers: Path, train_py: Callable
) -> None:
    write(strangers, f"{group}/0.yaml", EVIL)
    write(
        strangers,
        "norm/x.yaml",
        "defaults: [{/schema@_global_: '0'}, _self_]\n_target_: torch.nn.RMSNorm",
    )
    assert_refused(train_py("--config-dir", "mine", "norm=x", *TINY), strangers)


HYDRAS = "# @package hydra\ncallbacks: {x: {_target_: mine.evil.X}}"


@pytest.mark.parametrize(
    ("folder", "experiment", "word"),
    [
        ("trainer.precision", "params: {+trainer.precision: x}", "experiment=e"),
        ("trainer.precision", "arms: [+trainer.precision=x norm=rmsnorm]", "experiment=e"),
        ("placement.blocks.deep.where", "params: {}", "+placement.blocks.deep.where=x"),
    ],
)
def test_a_folder_named_like_a_nested_key_runs_nothing(
    folder: str, experiment: str, word: str, strangers: Path, train_py: Callable
) -> None:
    write(strangers, f"{folder}/x.yaml", HYDRAS)
    text = f"# @package _global_\nhydra: {{sweeper: {{{experiment}}}}}"
    write(strangers, "experiment/e.yaml", text)
    answer = train_py("--config-dir", "mine", word, *TINY)
    assert_refused(answer, strangers)
    assert f"mine/{folder} is not taken" in answer.err


def test_a_folder_of_the_search_path_brings_no_group(strangers: Path, train_py: Callable) -> None:
    write(strangers, "evil/x.yaml", HYDRAS)
    path = f"hydra.searchpath=[file://{strangers.resolve()}]"
    for word in ("+evil=x", "evil=x", "evil.y=x"):
        assert_refused(train_py(path, word, *TINY), strangers)


def test_a_primary_config_of_a_subfolder_is_refused(strangers: Path, train_py: Callable) -> None:
    write(strangers, "sub/top.yaml", "# @package _global_\ndefaults: [train, _self_]")
    write(strangers, "sub/train.yaml", EVIL)
    assert_refused(train_py("--config-dir", "mine", "--config-name", "sub/top", *TINY), strangers)


def test_a_root_config_of_another_folder_is_read_by_the_gate(
    strangers: Path, train_py: Callable
) -> None:
    write(strangers, "top.yaml", "defaults: [train, _self_]")
    write(strangers, "train.yaml", EVIL)
    assert_refused(train_py("--config-path", "mine", "--config-name", "top", *TINY), strangers)


def test_a_sweep_entry_reads_no_other_group(strangers: Path, train_py: Callable) -> None:
    write(strangers, "foo/lol.yaml", (HOSTILE / "n_lol.norm.yaml").read_text())
    write(
        strangers,
        "experiment/x.yaml",
        "# @package _global_\nhydra: {sweeper: {arms: ['+foo=lol']}}",
    )
    assert_refused(train_py("-m", "--config-dir", "mine", "experiment=x", *TINY), strangers)


PACKAGES = (
    "+norm@hydra.job_logging=x",
    "+norm@hydra=x",
    "+norm@_global_.hydra.job=x",
    "+norm@foo:hydra.job=x",
    "+norm@_name_=hydra",
    "+norm@ 'hydra.job'=x",
)


@pytest.mark.parametrize("entry", PACKAGES)
@pytest.mark.parametrize("way", ["arms", "params", "typed"])
def test_no_option_is_merged_into_hydra(
    entry: str, way: str, strangers: Path, train_py: Callable, tmp_path: Path
) -> None:
    """Python's logging imports the classes that hydra.job_logging names, and opens files."""
    precious = tmp_path / "precious.txt"
    precious.write_text("numbers")
    handler = {"class": "logging.FileHandler", "filename": str(precious), "mode": "w"}
    logging = {"version": 1, "handlers": {"a": handler}, "root": {"handlers": ["a"]}}
    (strangers / "norm").mkdir(exist_ok=True)
    for name in ("x", "hydra"):
        (strangers / "norm" / f"{name}.yaml").write_text(json.dumps(logging))
    name, _, value = entry.partition("=")
    sweeper = {"arms": [f"{entry} norm=rmsnorm"]} if way == "arms" else {"params": {name: value}}
    (strangers / "experiment").mkdir(exist_ok=True)
    (strangers / "experiment" / "a.yaml").write_text(
        "# @package _global_\n" + json.dumps({"hydra": {"sweeper": sweeper}})
    )
    word = entry if way == "typed" else "experiment=a"
    answer = train_py("--config-dir", str(strangers), "-m", word, *TINY)
    assert answer.code in (1, 2), answer.err
    assert "Traceback" not in answer.err
    assert precious.read_text() == "numbers"


def test_a_named_pipe_does_not_stop_the_program(strangers: Path) -> None:
    (strangers / "norm").mkdir()
    os.mkfifo(strangers / "norm" / "x.yaml")
    with pytest.raises(ConfigError, match="not a regular file"):
        check_folder(strangers)


def test_a_linked_folder_is_checked_and_a_circle_of_links_ends(
    strangers: Path, tmp_path: Path
) -> None:
    write(tmp_path, "far/x.yaml", "_target_: mine.evil.X")
    (strangers / "norm").mkdir()
    (strangers / "norm" / "again").symlink_to(strangers / "norm")
    check_folder(strangers)
    (strangers / "norm" / "far").symlink_to(tmp_path / "far")
    with pytest.raises(UntrustedError, match="evil"):
        check_folder(strangers)


def test_a_folder_of_very_many_files_is_refused(
    strangers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "MAX_FILES", 3)
    for number in range(4):
        write(strangers, f"norm/{number}.yaml", "_target_: torch.nn.Identity")
    with pytest.raises(ConfigError, match="more than 3"):
        check_folder(strangers)


def test_defaults_that_multiply_are_refused(strangers: Path) -> None:
    for number in range(12):
        write(
            strangers,
            f"norm/n{number}.yaml",
            f"defaults: [n{number + 1}, n{number + 1}]\n_target_: torch.nn.Identity",
        )
    with pytest.raises(ConfigError, match="more than 200 files"):
        check_folder(strangers)


@pytest.mark.parametrize(
    "entries", ["[{{/norm/abs: a{0}}}, {{/norm/abs@b: a{0}}}]", "[a{0}, /norm/abs/a{0}]"]
)
def test_defaults_of_a_subfolder_that_multiply_are_refused(entries: str, strangers: Path) -> None:
    for number in range(12):
        text = f"defaults: {entries.format(number + 1)}\n_target_: torch.nn.Identity"
        write(strangers, f"norm/abs/a{number}.yaml", text)
    with pytest.raises(ConfigError, match="more than 200 files"):
        check_folder(strangers)


def test_options_of_conf_count_as_often_as_they_are_reached(strangers: Path) -> None:
    many = ", ".join(f"/norm@placement.blocks.b{number}: dyt" for number in range(20))
    write(strangers, "norm/many.yaml", f"defaults: [{{{many.replace(', ', '}, {')}}}]\nx: 1")
    check_folder(strangers)
    again = ", ".join(["many"] * 12)
    write(strangers, "norm/again.yaml", f"defaults: [{again}]\nx: 1")
    with pytest.raises(ConfigError, match="more than 200 files"):
        check_folder(strangers)


UNNAMED = "The command does not name this file, but every file of "
BAD = {
    "a class": "_target_: mine.evil.X",
    "no YAML": "_target_: [",
    "a circle": "defaults: [theirs]\n_target_: torch.nn.Identity",
}


@pytest.mark.parametrize("case", BAD)
def test_a_refused_file_that_the_command_does_not_name_says_what_to_do(
    case: str, strangers: Path, train_py: Callable
) -> None:
    write(strangers, "norm/own.yaml", "_target_: torch.nn.Identity")
    write(strangers, "norm/theirs.yaml", BAD[case])
    searched = f"hydra.searchpath=[file://{strangers}]"
    for folder, arguments in ((Path("mine"), ["--config-dir", "mine"]), (strangers, [searched])):
        answer = train_py(*arguments, "norm=own", *TINY)
        assert_refused(answer, strangers)
        assert "norm/theirs" in answer.err
        assert f"{UNNAMED}{folder} is checked" in answer.err
        assert answer.err.endswith(f"correct it, or move it out of {folder}.\n")
        for chosen in ("norm=theirs", "norm=own,theirs", "+norm@placement.attention.norm=theirs"):
            named = train_py("-m", *arguments, chosen, *TINY)
            assert_refused(named, strangers)
            assert "norm/theirs" in named.err
            assert UNNAMED not in named.err
    with pytest.raises(ConfigError, match=UNNAMED), composed_config(["norm=own"], strangers):
        pass


def test_a_file_of_many_bytes_is_not_read(tmp_path: Path) -> None:
    path = write(tmp_path, "x.yaml", "a: 1\n" + "#" * 70_000)
    with pytest.raises(ConfigError, match="bytes"):
        read_yaml(path)


@pytest.mark.parametrize("name", ["c_claim_deep", "c_claim_test"])
def test_a_hostile_claim_is_one_sentence(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, f"own/claim/{name}.yaml", (HOSTILE / f"{name}.claim.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as left:
        claims_main([f"claim={name}", "--config-dir", "own"])
    assert left.value.code == 2
    assert capfd.readouterr().err.count("\n") == 1
