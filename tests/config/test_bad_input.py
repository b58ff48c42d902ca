"""What cannot be carried out is one sentence: the key, the value, what is allowed."""

from collections.abc import Callable
from pathlib import Path

import pytest

CASES = {
    "norm=foo": ["norm=foo", "rmsnorm", "layernorm"],
    "placement=middle": ["placement=middle", "pre", "post"],
    "experiment=foo": ["experiment=foo", "nanogpt_cpu"],
    "norm.epss=1": ["norm.epss", "did you mean norm.eps"],
    "norm.eps=abc": ["norm.eps=abc", "number"],
    "norm.eps=true": ["norm.eps=True", "number"],
    "model.widht=3": ["model.widht", "did you mean model.width"],
    "model.width=abc": ["model.width=abc", "whole number"],
    "model.width=3 of 4": ["model.width=3 of 4", "whole number"],
    "model.bias=maybe": ["model.bias=maybe", "true or false"],
    "seed=1.5": ["seed=1.5", "whole number"],
    "seed=-1": ["seed=-1", "from 0"],
    "margin=0": ["margin=0", "null or a number above 0"],
    "margin=-0.01": ["margin=-0.01", "null or a number above 0"],
    "margin=small": ["margin=small"],
    "+zzz=1": ["zzz", "seed"],
    "++zzz=1": ["zzz", "seed"],
    "+model.zzz=1": ["model.zzz", "width"],
    "+norm.zzz=1": ["norm.zzz", "eps"],
    "+norm=layernorm": ["norm=", "without the +"],
    "normm=rmsnorm": ["normm", "did you mean norm"],
    # Words that a key can have.
    "trainer.precision=bf16": ["did you mean bf16-mixed?", "auto, 32-true, bf16-mixed, 16-mixed"],
    "trainer.precision=16": ["did you mean 16-mixed?"],
    "trainer.precision=32": ["did you mean 32-true?"],
    "trainer.precision=fp16": ["did you mean 16-mixed?"],
    "trainer.compile=graph": ["did you mean graphs?"],
    "trainer.compile=ture": ["did you mean true?"],
    "trainer.stack=aut": ["did you mean auto?"],
    "jobs=aut": ["did you mean auto?"],
    "model.positions=rotery": ["did you mean rotary?"],
    "trainer.device=gpu": ["did you mean cuda?"],
    "placement.qk=ture": ["did you mean true?"],
    "placement.skip={init: 1, per: featur}": ["placement.skip.per=featur", "did you mean feature?"],
    "norm.cast=lama": ["cast=lama", "did you mean llama?"],
    # What other programs call them.
    "epochs=3": ["epochs is not a key", "did you mean trainer.max_steps?"],
    "steps=3": ["did you mean trainer.max_steps?"],
    "lr=1e-3": ["did you mean optimizer.lr?"],
    "+learning_rate=1e-3": ["did you mean optimizer.lr?"],
    "n_layer=3": ["did you mean model.depth?"],
    "d_model=64": ["did you mean model.width?"],
    "block_size=64": ["did you mean model.context?"],
    "batch_size=4": ["did you mean data.batch_size?"],
    "dataset=mine.txt": ["did you mean data or data.path?"],
    "data.source=foo": ["data.source=foo", "markov, random"],
    "data.order=0": ["data.order=0", "1"],
    "data=text": ["data.path", "no value"],
    "data.kind=foo": ["data.kind=foo", "synthetic"],
    "model.heads": ["model.heads", "key=value"],
    "model=[": ["model=[", "key=value"],
    "model.heads=3": ["model.heads=3", "128", "1, 2, 4, 8"],
    "model.kv_heads=3": ["model.kv_heads=3", "model.heads=4"],
    "model.context=0": ["model.context=0", "from 1"],
    "model.init.output=L.real": ["model.init.output", "L.real"],
    "placement.input=3": ["placement.input=3", "true"],
    "placement.skip='foo(L)'": ["placement.skip", "foo(L)", "sqrt"],
    "placement.branch={per: token}": ["placement.branch", "scalar or feature"],
    "placement.heads={per: feature}": ["placement.heads", "scalar or head"],
    "placement.reads=nothing": ["placement.reads=nothing", "stream", "block"],
    "placement.order=sideways": ["placement.order=sideways", "feedforward_first"],
    "placement=pre/no_skp": ["placement=pre/no_skp", "sandwich"],
    "placement.init.output=1/l": ["placement.init.output", "l is unknown", "out and down"],
    "placement.init.value=0/0": ["placement.init.value", "0/0"],
    "placement.attention.skp=1": ["placement.attention.skp", "did you mean", "skip"],
    "placement.feedforward.qk=true": ["placement.feedforward.qk", "input"],
    "placement.feedforward=${study}": ["placement.feedforward", "synthetic", "keys of its own"],
    "placement.blocks=${study}": ["placement.blocks", "synthetic", "keys of its own"],
    "placement.blocks=${model}": ["placement.blocks", "keys of its own"],
    "model.init=${optimizer}": ["model.init"],
    "optimizer.betas=${study}": ["optimizer.betas", "a list"],
    "data=${study}": ["a group", "one of its options", "${…}"],
    "data=5": ["a group", "one of its options"],
    "placement.norm=3": ["placement.norm=3", "_target_"],
    "placement._target_=torch.nn.Linear": ["placement._target_=torch.nn.Linear", "subclass"],
    "+placement.blocks.one=3": ["placement.blocks.one=3", "where"],
    "+placement.blocks.one={stream: true}": ["placement.blocks.one.where", "no value"],
    "+placement.blocks.one={where: 'l==1', strem: true}": ["placement.blocks.one.strem", "stream"],
    "+placement.blocks.one={where: 'l==1', attention: {inpt: true}}": [
        "placement.blocks.one.attention.inpt",
        "did you mean",
    ],
    "+placement.blocks.one={where: 'k==1'}": ["placement.blocks.one.where", "k", "l"],
    "+placement.blocks.one={where: 'l+1'}": ["placement.blocks.one.where", "condition"],
    "+placement.blocks.one={where: 'l==1', skip: x}": ["placement.blocks.one.skip", "x"],
    "+placement.blocks.one={where: 'l==1', reads: x}": ["placement.blocks.one.reads", "stream"],
    "+placement.blocks.one={where: 'l==1', input: 3}": ["placement.blocks.one.input=3", "true"],
    "norm=batchnorm": ["batchnorm", "future"],
    "norm=powernorm": ["powernorm", "future"],
    "optimizer.lr=nan": ["optimizer.lr=nan", "from 1e-30"],
    "optimizer.lr=0": ["optimizer.lr=0", "from 1e-30"],
    "optimizer.lr=1e300": ["optimizer.lr=1e+300", "to 1e30"],
    "+norm=rmsnorm": ["norm is chosen already", "without the +"],
    "placement=pre/noskip": ["placement=pre/noskip", "did you mean placement=pre/no_skip?"],
    "optimizer.betas=3": ["optimizer.betas=3", "list"],
    "optimizer.betas=[0.9,1.0]": ["optimizer.betas", "below 1"],
    "optimizer.lr=interval(1,2)": ["interval(1,2)", "list of values"],
    "schedule.warmup=2": ["schedule.warmup=2", "share"],
    "trainer.precision=fp8": ["trainer.precision=fp8", "bf16-mixed"],
    "trainer.max_steps=0": ["trainer.max_steps=0", "from 1"],
    "norm=null": ["null", "--help"],
    "norm.eps=-1": ["eps=-1", "0 or more"],
    "model.depth=1000000000": ["model.depth=1000000000", "from 1 to 1000"],
    "model.width=10000000": ["model.width=10000000", "memory"],
    "norm=glob(x*)": ["norm=glob(x*)", "matches nothing"],
    "norm.eps=glob(*)": ["norm.eps=glob(*)", "matches nothing"],
    "data=[1,2]": ["option"],
    "model.context=200000": ["model.context=200000", "16384"],
    "trainer.device=mps": ["trainer.device=mps", "cpu"],
    "study=../up": ["study='../up'", "folder"],
    "study=": ["study=''", "folder"],
    "study=/tmp": ["study='/tmp'", "folder"],
    f"study={'x' * 65}": ["folder", "64"],
}


@pytest.mark.parametrize("override", CASES)
def test_a_request_that_cannot_be_met_is_one_sentence(
    override: str, train_py: Callable, tmp_path: Path
) -> None:
    answer = train_py(override, f"output_dir={tmp_path / 'outputs'}")
    assert answer.code == 2
    assert answer.err.startswith("normlab: ")
    assert answer.err.count("\n") == 1, answer.err
    for word in CASES[override]:
        assert word in answer.err
    assert not answer.out
    assert not (tmp_path / "outputs").exists()


def test_an_empty_value_is_the_value_of_its_key(train_py: Callable, tmp_path: Path) -> None:
    answer = train_py("data=text", "data.path=", f"output_dir={tmp_path / 'outputs'}")
    assert answer.code == 2
    assert answer.err.startswith("normlab: data=text needs data.path=…: give a file, a folder")


LONG = {"a word": "x" * 3000, "words": "ab " * 1000, "a list": "ab, " * 750}
ECHOED = (
    *("norm=VALUE", "VALUE=3", "model.VALUE=3", "study=VALUE", "model.width=VALUE", "jobs=VALUE"),
    *("output_dir=VALUE", "trainer.precision=VALUE", "placement.skip=VALUE", "hydra.run.dir=VALUE"),
    *("data=text data.path=VALUE", "--config-dir VALUE", "--from VALUE", "--VALUE", "--cfg VALUE"),
)


# What repeats a value does not look at its words: one kind everywhere, all kinds where it is parsed
# by Hydra, as a number, as a path, and before Hydra.
LONG_CASES = [(request, "a word") for request in ECHOED] + [
    (request, kind)
    for request in ("norm=VALUE", "model.width=VALUE", "data=text data.path=VALUE", "--from VALUE")
    for kind in ("words", "a list")
]


@pytest.mark.parametrize(("request_", "kind"), LONG_CASES)
def test_a_long_value_does_not_come_back_whole(
    request_: str, kind: str, train_py: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    value = LONG[kind]
    answer = train_py(*(word.replace("VALUE", value) for word in request_.split(" ")))
    assert answer.code in (1, 2)
    assert answer.err.startswith("normlab: ")
    assert answer.err.count("\n") == 1
    assert value[:20] in answer.err
    assert value[:400] not in answer.err
    assert len(answer.err) < 800


def test_one_impossible_combination_stops_the_whole_sweep(
    train_py: Callable, tmp_path: Path
) -> None:
    answer = train_py("-m", "model.heads=4,3", f"output_dir={tmp_path / 'outputs'}")
    assert answer.code == 2
    assert "model.heads=3" in answer.err
    assert not (tmp_path / "outputs").exists()


def test_rotary_positions_need_even_heads(train_py: Callable, tmp_path: Path) -> None:
    answer = train_py("model=minimind", "model.width=12", "model.heads=4", f"output_dir={tmp_path}")
    assert answer.code == 2
    assert "model.positions=rotary" in answer.err
    assert "heads of 3" in answer.err


def test_a_context_longer_than_the_text_says_how_long_it_may_be(
    train_py: Callable, tmp_path: Path
) -> None:
    text = tmp_path / "short.txt"
    text.write_text("to be or not to be " * 20)
    answer = train_py(
        "data=text", f"data.path={text}", "model.context=64", f"output_dir={tmp_path}/o"
    )
    assert answer.code == 2
    assert "model.context=64" in answer.err
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("content", [b"", b"\x00\x01\xff\xfe" * 40])
def test_a_file_that_is_no_text_is_refused_before_anything_is_written(
    content: bytes, train_py: Callable, tmp_path: Path
) -> None:
    path = tmp_path / "file.txt"
    path.write_bytes(content)
    answer = train_py("data=text", f"data.path={path}", f"output_dir={tmp_path}/o")
    assert answer.code in (1, 2)
    assert str(path) in answer.err
    assert answer.err.count("\n") == 1
    assert not (tmp_path / "o").exists()


def test_a_place_that_cannot_be_written_is_named(train_py: Callable, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    answer = train_py(f"output_dir={blocked}/outputs")
    assert answer.code == 1
    assert str(blocked) in answer.err
    assert "output_dir=" in answer.err
    assert answer.err.count("\n") == 1


NORMS = {
    "torch.nn.BatchNorm1d": ["future"],
    "torch.nn.NoSuchNorm": ["NoSuchNorm"],
    "torch.nn.Softmax2d": ["Softmax2d"],
    "torch.nn.Flatten": ["(…, 128)", "shape"],
    "outside_norms.Doubled": ["float64", "dtype"],
    "outside_norms.Cut": ["(3, 4, 64)", "shape"],
    "outside_norms.Mean": ["future"],
    "outside_norms.Infinite": ["gain", "finite"],
    "outside_norms.Pair": ["tuple", "tensor"],
}


@pytest.mark.parametrize("target", NORMS)
def test_a_norm_that_breaks_its_promises_is_refused_before_training(
    target: str, train_py: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "norm").mkdir()
    (tmp_path / "norm" / "mine.yaml").write_text(f"_target_: {target}\n")
    (tmp_path / "outside_norms.py").write_text(OUTSIDE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("NORMLAB_TRUST", "outside_norms")
    answer = train_py("--config-dir", str(tmp_path), "norm=mine", f"output_dir={tmp_path}/o")
    assert answer.code == 2
    assert answer.err.count("\n") == 1
    for word in [target, *NORMS[target]]:
        assert word in answer.err
    assert not (tmp_path / "o").exists()


OUTSIDE = """
import torch
from torch import nn

class Norm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(width))

class Doubled(Norm):
    def forward(self, x): return x.double()

class Cut(Norm):
    def forward(self, x): return x[..., :64]

class Mean(Norm):
    def forward(self, x): return x - x.mean(-2, keepdim=True)

class Pair(Norm):
    def forward(self, x): return x, x

class Infinite(Norm):
    def __init__(self, width):
        super().__init__(width)
        self.gain.data[3] = float("nan")
"""


def test_a_norm_that_cannot_be_built_stops_before_training(
    train_py: Callable, tmp_path: Path
) -> None:
    answer = train_py("norm._target_=torch.nn.NoSuchNorm", f"output_dir={tmp_path}/o")
    assert answer.code == 2
    assert "torch.nn.NoSuchNorm" in answer.err
    assert answer.err.count("\n") == 1
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("placement/own.yaml", "skp: 1", ["placement/own.yaml", "did you mean placement.skip"]),
        ("model/own.yaml", "width: wide", ["model/own.yaml", "model.width", "whole number"]),
        ("norm/own.yaml", "_target_: [", ["not YAML", "norm/own.yaml"]),
        ("budget/own.yaml", "max_steps: 3\nval_every: 2\na: !!set {b}", ["set", "plain values"]),
    ],
)
def test_a_mistake_in_a_file_of_ones_own_is_found_in_that_file(
    file: str, content: str, words: list[str], train_py: Callable, tmp_path: Path
) -> None:
    path = tmp_path / "own" / file
    path.parent.mkdir(parents=True)
    path.write_text(content)
    group = file.split("/")[0]
    answer = train_py(
        "--config-dir", str(tmp_path / "own"), f"{group}=own", f"output_dir={tmp_path}/o"
    )
    assert answer.code == 2
    assert answer.err.count("\n") == 1
    for word in words:
        assert word in answer.err
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_a_file_that_is_not_utf_8_is_named(
    encoding: str, train_py: Callable, tmp_path: Path
) -> None:
    path = tmp_path / "own" / "norm" / "own.yaml"
    path.parent.mkdir(parents=True)
    path.write_bytes("# Grösse\n_target_: normlab.norms.RMSNorm\n".encode(encoding))
    answer = train_py("--config-dir", str(tmp_path / "own"), "norm=own", f"output_dir={tmp_path}/o")
    assert answer.code == 2
    assert answer.err.count("\n") == 1
    assert f"{path} is not text in UTF-8" in answer.err


def test_the_multirun_flag_may_stand_anywhere(train_py: Callable, tmp_path: Path) -> None:
    answer = train_py("model.depth=1", "-m", "norm=rmsnorm,foo", f"output_dir={tmp_path}/o")
    assert "norm=foo is not an option" in answer.err
    assert train_py("-m", "--cfg", "job").out.startswith("seed: 0")


@pytest.mark.parametrize("word", ["--cfg=job", "hydra.mode=RUN"])
def test_several_values_where_one_configuration_is_meant(train_py: Callable, word: str) -> None:
    answer = train_py(word, "seed=0,1")
    assert answer.code == 2
    assert "seed=0,1 lists several values" in answer.err
    assert word.partition("=")[0] in answer.err


@pytest.mark.parametrize(
    ("override", "hint"),
    {
        "experiment=lr": "sweep=lr",
        "norm=pre": "placement=pre",
        "placement=layernorm": "norm=layernorm",
    }.items(),
)
def test_an_option_of_another_group_is_suggested(
    override: str, hint: str, train_py: Callable, tmp_path: Path
) -> None:
    answer = train_py(override, f"output_dir={tmp_path}/o")
    assert answer.code == 2
    assert f"{override} is not an option; did you mean {hint}? " in answer.err


def test_a_claim_is_no_option_of_a_run(train_py: Callable, tmp_path: Path) -> None:
    answer = train_py("norm=rmsnorm_parity", f"output_dir={tmp_path}/o")
    assert answer.code == 2
    assert "norm=rmsnorm_parity is not an option; did you mean norm=rmsnorm? " in answer.err
    assert "claim" not in answer.err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["seed=range(0,100000000000)"], "gives more than 10,000 values"),
        (["seed=range(0,1000)", "optimizer.lr=range(1,100)"], "asks for 99,000 runs (1000 × 99)"),
    ],
)
def test_more_runs_than_a_command_can_have_are_refused_at_once(
    words: list[str], expected: str, train_py: Callable, tmp_path: Path
) -> None:
    answer = train_py("-m", *words, f"output_dir={tmp_path}/o")
    assert answer.code == 2
    assert expected in answer.err
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("placement=prenorm", "did you mean placement=pre?"),
        ("placement=Post-LN", "did you mean placement=post?"),
        ("--norm=rmsnorm", "a choice is written without dashes, as norm=…"),
        ("hydra.launcher=joblib", "hydra/launcher=joblib"),
        ("trainer.device=gpu", "did you mean cuda?"),
        ("schedule.decay=cos", "did you mean cosine?"),
        ("data.path=foo", "it is one of data=shakespeare and data=text"),
        ("~trainer.max_steps", "trainer.max_steps cannot be removed; give it a value."),
        ("seed=${seed}", "remove the entry that closes the circle"),
        ("seed=${nosuch}", "seed has an interpolation ${…} that cannot be resolved"),
        ("hydra/job_logging=nope", "hydra/job_logging has default, disabled, none, stdout."),
    ],
)
def test_what_was_meant_is_named(word: str, hint: str, train_py: Callable, tmp_path: Path) -> None:
    answer = train_py(word, f"output_dir={tmp_path}/o")
    assert answer.code == 2
    assert hint in answer.err


@pytest.mark.parametrize(
    ("target", "meant"),
    [
        ("normlab.norms.Formla", "normlab.norms.Formula"),
        ("torch.nn.LayrNorm", "torch.nn.LayerNorm"),
    ],
)
def test_a_misspelt_class_is_named(
    target: str, meant: str, train_py: Callable, tmp_path: Path
) -> None:
    path = tmp_path / "own" / "norm" / "own.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(f"_target_: {target}\n")
    answer = train_py("--config-dir", str(tmp_path / "own"), "norm=own", f"output_dir={tmp_path}/o")
    assert answer.code == 2
    assert f"{target} does not exist; did you mean {meant}?" in answer.err


def test_options_inside_no_group_are_explained(train_py: Callable, tmp_path: Path) -> None:
    path = tmp_path / "own" / "experiment" / "own.yaml"
    path.parent.mkdir(parents=True)
    path.write_text("defaults:\n  - override /schedule: cosine\n")
    answer = train_py("--config-dir", str(tmp_path / "own"), "experiment=own")
    assert answer.code == 2
    assert "begin the file with the line `# @package _global_`" in answer.err


def test_a_folder_of_options_that_is_not_there_is_answered_with_the_nearest(
    train_py: Callable, tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    for flag in ("--config-dir", "--config-path"):
        answer = train_py(flag, str(tmp_path / "minne"), "norm=mine")
        assert answer.code == 2
        assert answer.err.count("\n") == 1
        assert f"is not a folder; did you mean {tmp_path}/mine? give one that holds" in answer.err
        assert "norm/my_norm.yaml" in answer.err


def test_a_value_with_letters_beyond_ascii_is_answered_with_its_quotes(
    train_py: Callable, tmp_path: Path
) -> None:
    path = f"{tmp_path}/tête.txt"
    answer = train_py("data=shakespeare", f"data.path={path}")
    assert answer.code == 2
    given = f"'data.path=\"{path}\"'"
    assert answer.err.endswith(f"quotes of its own, as in {given}.\n")
    answer = train_py("data=shakespeare", given[1:-1])  # as a shell hands it over
    assert f"data.path={path} is neither" in answer.err


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("model=[1,2]", "a group takes the name of one of its options, as --help lists"),
        ("norm=null", "a group takes the name of one of its options, as --help lists"),
        ("hydra.sweeper.arms={a: b}", "={a: b} is not allowed: one is a list, the other has keys"),
    ],
)
def test_a_list_or_keys_where_others_belong_are_explained(
    given: str, sentence: str, train_py: Callable
) -> None:
    answer = train_py("-m", given)
    assert answer.code == 2
    assert sentence in answer.err
