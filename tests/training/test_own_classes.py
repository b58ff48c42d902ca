"""A class of the user's own: an error names its line, and what of it is not trained is said."""

import importlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from normlab.errors import ConfigError, describe_error
from normlab.training.build import build_model, check_networks
from normlab.training.run import train
from normlab.training.stack_run import train_stack
from tiny_run import TINY, SilentDisplay

pytestmark = pytest.mark.usefixtures("without_figures")

HEAD = """\
import functools, json
import numpy
import torch
from torch import nn
from normlab.model.placement import Residual
from normlab.norms import RMSNorm
"""
OWN = """
class Own(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(width))
        {built}

    def forward(self, x):
        {called}
        return self.gain * x
"""
BACKWARD = """
class Function(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        raise ValueError("no way back")  # HERE

class Own(nn.Module):
    def __init__(self, width):
        super().__init__()

    def forward(self, x):
        return Function.apply(x)
"""
PLACEMENT = """
class Own(Residual):
    def __init__(self, sublayer, wiring, width):
        super().__init__(sublayer, wiring, width)
        {built}

    def forward(self, x, entered):
        {called}
        return super().forward(x, entered)
"""


def own(built: str = "", called: str = "", code: str = OWN) -> str:
    return code.format(built=built, called=called)


Write = Callable[[str], tuple[str, int]]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes a module of the user's that is trusted; its class, and the line marked by HERE."""
    name = f"own_{tmp_path.name}"
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("NORMLAB_TRUST", name)

    def write_module(code: str) -> tuple[str, int]:
        lines = (HEAD + code).splitlines()
        (tmp_path / f"{name}.py").write_text("\n".join(lines))
        importlib.invalidate_caches()
        return f"{name}.Own", next((n for n, line in enumerate(lines, 1) if "# HERE" in line), 0)

    return write_module


RANDOM = """
class Own(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.mix = nn.Linear(width, width)
        self.order = torch.randperm(width)

    def forward(self, x):
        return self.mix(x) + x[..., self.order]
"""


def test_what_a_class_draws_when_it_is_built_is_the_seeds(
    write: Write, specified: Callable
) -> None:
    target, _ = write(RANDOM)
    words = (*TINY, "norm=none", f"norm._target_={target}")

    def draw(seed: int) -> list[torch.Tensor]:
        model = build_model(specified(*words, f"seed={seed}").config, 8)
        norm = next(module for module in model.modules() if type(module).__name__ == "Own")
        return [norm.mix.weight.detach(), norm.order]

    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = draw(0)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(7)  # another run in this process
    assert all(map(torch.equal, first, draw(0)))
    assert not any(map(torch.equal, first, draw(1)))


FAILING = {
    "in its constructor": own("raise ValueError('too wide')  # HERE"),
    "in a class that it extends": "class Own(RMSNorm):\n    def __init__(self, width):\n"
    "        super().__init__(width, eps=-1)  # HERE\n",
    "in torch": own(called="x @ x  # HERE"),
    "in the standard library": own(called="json.loads('{')  # HERE"),
    "in a package that it calls": own(called="numpy.linalg.inv(numpy.zeros((2, 2)))  # HERE"),
    "for a long sequence": own(called="assert x.shape[1] < 100  # HERE"),
    "in evaluation": own(called="self.training or self.nothing  # HERE"),
    "in its backward pass": BACKWARD,
    "while it is imported": f"{own()}\n1 / 0  # HERE\n",
}


@pytest.mark.parametrize("code", FAILING.values(), ids=FAILING)
def test_what_a_norm_raises_is_named_with_its_line(
    code: str, write: Write, specified: Callable, tmp_path: Path
) -> None:
    target, line = write(code)
    with pytest.raises(ConfigError) as refused:
        check_networks([specified(*TINY, "norm=none", f"norm._target_={target}")])
    message = str(refused.value)
    assert f", at {tmp_path}/own_{tmp_path.name}.py, line {line})" in message
    assert message.count(", at ") == 1
    assert "\n" not in message


@pytest.mark.parametrize(
    "code",
    [
        own("raise ValueError('too wide')  # HERE", code=PLACEMENT),
        own(called="x @ x  # HERE", code=PLACEMENT),
        f"{own(code=PLACEMENT)}\n1 / 0  # HERE\n",
    ],
    ids=["in its constructor", "in its forward pass", "while it is imported"],
)
def test_what_a_placement_raises_is_named_with_its_line(
    code: str, write: Write, specified: Callable, tmp_path: Path
) -> None:
    target, line = write(code)
    with pytest.raises(ConfigError) as refused:
        check_networks([specified(*TINY, f"placement._target_={target}")])
    assert f", at {tmp_path}/own_{tmp_path.name}.py, line {line})" in str(refused.value)


@pytest.mark.parametrize("stacked", [False, True])
def test_what_a_norm_raises_while_it_trains_is_named_with_its_line(
    stacked: bool, write: Write, specified: Callable, tmp_path: Path
) -> None:
    # The networks are tried on other lengths.
    target, line = write(own(called="assert x.shape[-2] != 48, 'too long'  # HERE"))
    overrides = (*TINY, "norm=none", f"norm._target_={target}", "model.context=48")
    spec = specified(*overrides, f"output_dir={tmp_path}")
    check_networks([spec])
    if stacked:
        (record,) = train_stack([spec], "", [SilentDisplay()])
    else:
        record = train(spec, "", SilentDisplay())
    file = f"{tmp_path}/own_{tmp_path.name}.py"
    assert record.reason == f"AssertionError: too long, at {file}, line {line}"


def test_an_error_of_the_program_names_no_line(specified: Callable) -> None:
    with pytest.raises(ConfigError, match=r"argument 'cast'\); its arguments are") as refused:
        check_networks([specified(*TINY, "norm._target_=torch.nn.RMSNorm")])
    assert ", at " not in str(refused.value)
    assert describe_error(ValueError("a\nb")) == "ValueError: a b"
    assert describe_error(AssertionError()) == "AssertionError"


PLAIN = own("self.scale = torch.ones(width)", "x = x * self.scale")


def test_what_is_not_trained_is_said_once_and_kept_in_the_log_of_each_run(
    write: Write, train_py: Callable, tmp_path: Path
) -> None:
    target, _ = write(PLAIN)
    norm = ("norm=none", f"norm._target_={target}", "placement=pre,sandwich", "seed=0,1")
    answer = train_py("-m", *norm, *TINY, f"output_dir={tmp_path}/out")
    assert answer.code == 0, answer.err
    words = " ".join(answer.out.split())
    sentence = f"norm._target_={target} holds scale outside its parameters and buffers: "
    assert words.count(sentence) == 1
    assert words.index(f"note {sentence}") < words.index("run 1/4")
    logs = [path.read_text() for path in tmp_path.glob("out/*/*/train.log")]
    assert [log.count(f"WARNING {sentence}") for log in logs] == [1] * 4


def test_a_single_run_says_it_too(write: Write, train_py: Callable, tmp_path: Path) -> None:
    target, _ = write(PLAIN)
    answer = train_py("norm=none", f"norm._target_={target}", *TINY, f"output_dir={tmp_path}/out")
    assert answer.code == 0, answer.err
    words = " ".join(answer.out.split())
    assert words.count(f"note norm._target_={target} holds scale outside") == 1
