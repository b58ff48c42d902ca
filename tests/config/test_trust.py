"""A file from a stranger runs nothing: not on import, not when built, not through Hydra."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from command_calls import read_refusal
from normlab.config.gate import UntrustedError, check_trusted
from tiny_run import TINY

ROOT = Path(__file__).resolve().parents[2]

# Leaves a mark when it is imported.
TRAP = """
from pathlib import Path
from torch import nn
from hydra.experimental.callback import Callback
Path(__file__).with_name("sprung").touch()

class Norm(nn.RMSNorm): pass
class Call(Callback): pass
"""

NODE = "{_target_: trap.Norm}"

NORMS = {
    "the norm": "_target_: trap.Norm",
    "an argument": f"_target_: torch.nn.RMSNorm\neps: {NODE}",
    "in a list": f"_target_: torch.nn.RMSNorm\neps: [1, [{NODE}]]",
    "positional": f"_target_: torch.nn.RMSNorm\n_args_: [{NODE}]",
    "said not to be built": f"_target_: torch.nn.RMSNorm\n_recursive_: false\neps: {NODE}",
    "partial": "_target_: trap.Norm\n_partial_: true\n_convert_: none",
    "from another key": "_target_: ${.eps}\neps: trap.Norm",
    "from the environment": "_target_: ${oc.env:TRAP}",
    "decoded": "_target_: ${oc.decode:\"'trap.Norm'\"}",
    "a node that is made": "_target_: torch.nn.RMSNorm\neps: ${oc.create:{_target_:trap.Norm}}",
    "made later": "_target_: torch.nn.RMSNorm\neps: \\${oc.create:{_target_:trap.Norm}}",
    "made even later": "_target_: torch.nn.RMSNorm\neps: \\\\\\${oc.create:{_target_:trap.Norm}}",
    "no text": "_target_: [trap.Norm]",
    "an object of Python's": "_target_: !!python/name:trap.Norm",
    "applied by YAML": "_target_: torch.nn.RMSNorm\neps: !!python/object/apply:trap.Norm [4]",
}

PLACEMENTS = {
    **{
        site: f"{site}: {NODE}"
        for site in ("input", "output", "stream", "inner", "final", "embedding", "qk", "v", "norm")
    },
    "q": f"q: {NODE}",
    "attention": f"attention: {{output: {NODE}}}",
    "feedforward": f"feedforward: {{norm: {NODE}}}",
    "a rule": f"blocks: {{deep: {{where: l > 1, stream: {NODE}}}}}",
    "a kind in a rule": f"blocks: {{deep: {{where: l > 1, attention: {{q: {NODE}}}}}}}",
    "a rule that is made": f"blocks: ${{oc.create:{{deep:{{where:'l > 1',input:{NODE}}}}}}}",
    "its class": "_target_: trap.Norm",
}

LOGGING = "{version: 1, root: {level: INFO, handlers: [x]}, handlers: {x: {(): trap.Norm}}}"
HYDRA = {
    "a callback": "callbacks: {x: {_target_: trap.Call}}",
    "a callback's argument": "callbacks: {x: {_target_: hydra.experimental.callbacks."
    "LogJobReturnCallback, y: {_target_: trap.Call}}}",
    "a callback that is made": "callbacks: ${oc.create:{x:{_target_:trap.Call}}}",
    "a callback made later": "callbacks: {x: {_target_: hydra.experimental.callbacks."
    "LogJobReturnCallback, y: '\\${oc.create:{_target_:trap.Call}}'}}",
    "a launcher": "launcher: {_target_: trap.Norm}",
    "a launcher's argument": "launcher: {x: {_target_: trap.Norm}}",
    "a sweeper": "sweeper: {_target_: trap.Norm}",
    "a sweep": "sweeper: {params: {'+hydra.callbacks.x': '{_target_: trap.Call}'}}",
    "an arm": "sweeper: {arms: ['+hydra.callbacks.x={_target_:trap.Call}']}",
    "a budget": "sweeper: {budgets: {quick: {'+hydra.callbacks.x': '{_target_: trap.Call}'}}}",
    "the search path of a sweep": "sweeper: {params: {hydra.searchpath: '[pkg://trap]'}}",
    "the log of a run": f"job_logging: {LOGGING}",
    "the log of Hydra": f"hydra_logging: {LOGGING}",
    "a log that is made": "job_logging: {root: '${oc.env:TRAP}'}",
    "the environment": "job: {env_set: {NORMLAB_TRUST: trap}}",
    "a single run's environment": "{mode: RUN, job: {env_set: {NORMLAB_TRUST: trap}}}",
    "files elsewhere": "output_subdir: /tmp",
}

FILES = {
    **{f"norm: {name}": ("norm/x.yaml", text) for name, text in NORMS.items()},
    **{f"placement: {name}": ("placement/x.yaml", text) for name, text in PLACEMENTS.items()},
    **{
        f"hydra: {name}": ("experiment/x.yaml", f"# @package _global_\nhydra:\n  {text}")
        for name, text in HYDRA.items()
    },
    "a group of Hydra's": ("hydra/job_logging/x.yaml", LOGGING),
    "a launcher's group": ("hydra/launcher/x.yaml", "_target_: trap.Norm"),
    "a list of defaults": ("experiment/x.yaml", "defaults: [pkg://trap/norm]"),
}

Offer = Callable[[str, str], list[str]]


@pytest.fixture
def offer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Offer:
    """Puts a stranger's file where it is looked for, and gives the arguments that take it."""
    (tmp_path / "trap.py").write_text(TRAP)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("TRAP", "trap.Norm")
    monkeypatch.delitem(sys.modules, "trap", raising=False)

    def write(name: str, text: str) -> list[str]:
        path = tmp_path / "theirs" / name
        path.parent.mkdir(parents=True)
        path.write_text(text + "\n")
        group = str(path.parent.relative_to(tmp_path / "theirs"))
        return ["--config-dir", str(tmp_path / "theirs"), f"{group}=x", f"output_dir={tmp_path}/o"]

    return write


@pytest.mark.parametrize("case", FILES)
def test_a_strangers_file_runs_nothing(
    case: str, offer: Offer, train_py: Callable, tmp_path: Path
) -> None:
    answer = train_py(*offer(*FILES[case]), *TINY)
    assert answer.code == 2, answer.err
    assert answer.err.startswith("normlab: ")
    assert answer.err.count("\n") == 1, answer.err
    assert not (tmp_path / "sprung").exists()
    assert "trap" not in sys.modules
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("flag", ["--help", "--cfg=all", "--hydra-help"])
def test_questions_run_nothing_either(
    flag: str, offer: Offer, train_py: Callable, tmp_path: Path
) -> None:
    text = f"# @package _global_\nhydra: {{hydra_logging: {LOGGING}, job_logging: {LOGGING}}}"
    train_py(*offer("experiment/x.yaml", text), flag)
    assert not (tmp_path / "sprung").exists()


def test_the_refusal_names_the_key_the_target_what_is_allowed_and_what_to_do(
    offer: Offer, train_py: Callable
) -> None:
    text = "_target_: torch.nn.RMSNorm\neps: {_target_: trap.deep.Norm}"
    err = train_py(*offer("norm/x.yaml", text)).err
    for words in (
        "norm.eps._target_=trap.deep.Norm is not trusted",
        "torch.nn",
        "normlab.norms",
        "NORMLAB_TRUST=trap.deep in the environment",
    ):
        assert words in err


def test_what_the_user_trusts_is_built_and_trained(
    offer: Offer, train_py: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NORMLAB_TRUST", "another, trap")
    answer = train_py(*offer("norm/x.yaml", "_target_: trap.Norm"), *TINY)
    assert answer.code == 0, answer.err
    assert (tmp_path / "sprung").exists()


def test_callbacks_are_given_on_the_command_line(
    offer: Offer, train_py: Callable, tmp_path: Path
) -> None:
    norm = offer("norm/x.yaml", "_target_: torch.nn.RMSNorm")
    answer = train_py(*norm, "+hydra.callbacks.x._target_=trap.Call", *TINY)
    assert answer.code == 0, answer.err
    assert (tmp_path / "sprung").exists()


def test_a_variable_may_be_handed_to_the_runs(
    train_py: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_PATH", "there")
    answer = train_py(
        "hydra.job.env_copy=[SOME_PATH]", "norm=none", *TINY, f"output_dir={tmp_path}"
    )
    assert answer.code == 0, answer.err


@pytest.mark.parametrize(
    ("trusted", "target"),
    [("pack", "package.Norm"), ("package.norms", "package.Norm"), ("", "Norm"), (",", ".Norm")],
)
def test_trust_ends_at_a_dot(trusted: str, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NORMLAB_TRUST", trusted)
    with pytest.raises(UntrustedError):
        check_trusted({"_target_": target}, {})


@pytest.mark.parametrize(
    "target",
    [
        "normlab.study.command.main",
        "normlab.archive.files.write_text",
        "normlab.norms.factory",
        "normlab.norms.formula.torch.hub.load",
        "normlab.norms.nn.RMSNorm",
        "torch.nn.functional.relu",
        "torch.nn.init.warnings.warn",
        "torch.nn.modules.module.torch.load",
        "torch.nn.modules.module.torch.utils.collect_env.subprocess.Popen",
        "torch.nn.utils.prune.l1_unstructured",
        "torch.nn.RMSNorm.load_state_dict",
        "torch.hub.load",
        "hydra.utils.instantiate",
        "hydra_plugins.normlab_study.StudySweeper",
        "torch.nn.",
        "",
        None,
        7,
    ],
)
def test_what_an_allowed_module_imports_is_not_allowed(target: object) -> None:
    with pytest.raises(UntrustedError):
        check_trusted({"_target_": target}, {})


def test_everything_that_comes_with_the_lab_is_allowed() -> None:
    files = [*ROOT.glob("conf/norm/*.yaml"), *ROOT.glob("conf/placement/*.yaml")]
    assert len(files) > 30
    for path in files:
        check_trusted(OmegaConf.to_container(OmegaConf.load(path)), {})


def test_a_strangers_words_do_not_reach_the_terminal_as_they_are() -> None:
    with pytest.raises(UntrustedError) as refusal:
        check_trusted({"_target_": "\x1b[2Jtrap\n." + "N" * 5000}, {})
    assert str(refusal.value).isprintable()
    assert len(str(refusal.value)) < 1000


@pytest.mark.parametrize("flag", ["--experimental-rerun", "--exp"])
def test_a_pickled_run_is_not_read(flag: str, train_py: Callable, tmp_path: Path) -> None:
    (tmp_path / "config.pickle").write_bytes(b"cbuiltins\nexit\n(tR.")
    answer = train_py(f"{flag}={tmp_path / 'config.pickle'}")
    assert answer.code == 2
    assert "is not a flag" in answer.err


def test_a_refusal_needs_no_torch() -> None:
    said = read_refusal("train.py", "norm._target_=trap.Norm", "torch", "trap")
    assert "norm._target_=trap.Norm is not trusted" in said
