"""What a run may be told about speed and memory: it changes neither the weights nor the data."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partialmethod
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from normlab.archive.record import RunRecord
from normlab.config.run_spec import RunSpec
from normlab.model.gpt import Block
from normlab.training import hardware, run, stack_run
from normlab.training.build import build_model
from normlab.training.hardware import resolve_hardware
from normlab.training.lightning import pl
from normlab.training.module import LanguageModel, prepare_uncompiled_step
from run_equality import assert_same_run
from tiny_run import TINY, InterruptingDisplay, SilentDisplay


class Listening(SilentDisplay):
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, sentence: str) -> None:
        self.said.append(sentence)


@pytest.fixture
def here(specified: Callable, tmp_path: Path) -> Callable[..., RunSpec]:
    def spec_in(place: str, *overrides: str) -> RunSpec:
        extra = ("model.dropout=0.1", "trainer.device=cpu", "norm=rmsnorm")
        return specified(*TINY, *extra, *overrides, f"output_dir={tmp_path / place}")

    return spec_in


@pytest.fixture
def quickly_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.compile without its last stage, the C++ compiler."""
    monkeypatch.setattr(nn.Module, "compile", partialmethod(nn.Module.compile, backend="aot_eager"))


def test_checkpointed_blocks_are_computed_again_and_the_run_is_the_same(
    here: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[bool] = []
    forward = Block.forward

    def counted(self: Block, stream: Any) -> Any:
        calls.append(self.training)
        return forward(self, stream)

    monkeypatch.setattr(Block, "forward", counted)
    monkeypatch.setattr(run, "check_trained_model", lambda *_: None)  # it computes nothing again
    plain, again = here("plain"), here("again", "trainer.gradient_checkpointing=true")
    assert plain.id == again.id
    assert run.train(plain, "", SilentDisplay()).state == "finished"
    once = sum(calls)
    calls.clear()
    assert run.train(again, "", SilentDisplay()).state == "finished"
    assert sum(calls) == 2 * once
    assert_same_run(plain.folder, again.folder)


@pytest.mark.usefixtures("quickly_compiled")
def test_compiling_leaves_the_run_as_it_was(
    here: Callable, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    compiling = run.compile_model
    from_here_on = torch._dynamo.config.patch(error_on_recompile=True)

    def strictly(*arguments: Any) -> None:
        compiling(*arguments)
        from_here_on.__enter__()  # every graph must be there
        request.addfinalizer(lambda: from_here_on.__exit__(None, None, None))

    monkeypatch.setattr(run, "compile_model", strictly)
    plain, compiled = here("plain"), here("compiled", "trainer.compile=true")
    assert plain.id != compiled.id  # it rounds otherwise
    display = Listening()
    records = [run.train(plain, "", SilentDisplay()), run.train(compiled, "", display)]
    assert [(record.state, record.reason) for record in records] == [("finished", None)] * 2
    assert records[1].hardware["compile"] is True
    assert any("compiled in" in sentence for sentence in display.said)
    assert records[1].final.val_loss == pytest.approx(records[0].final.val_loss, abs=1e-3)


def test_what_cannot_be_compiled_is_told(here: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: nn.Module, mode: str | None) -> None:
        def fail(*_: Any) -> None:
            raise RuntimeError("no compiler\nwas found")

        self._compiled_call_impl = fail

    monkeypatch.setattr(nn.Module, "compile", broken)
    record = run.train(here("broken", "trainer.compile=true"), "", SilentDisplay())
    assert record.state == "failed"
    assert record.reason is not None
    assert record.reason.startswith("this model cannot be compiled here")
    assert "RuntimeError: no compiler was found" in record.reason
    assert record.reason.endswith("take trainer.compile=false.")


@pytest.fixture
def compiled_if_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    """trainer.compile=auto as on a GPU, with a model so slow that compiling pays."""
    resolve = hardware.resolve_hardware

    def automatic(*arguments: Any) -> hardware.Hardware:
        return replace(resolve(*arguments), compile_if_faster=True)

    for module in (run, stack_run):
        monkeypatch.setattr(module, "resolve_hardware", automatic)
        monkeypatch.setattr(
            module,
            "decide_compilation",
            lambda *_, **__: (True, "compiled"),
        )


def fail_without_compiler(*_: Any) -> None:
    raise RuntimeError("no compiler\nwas found")


@pytest.mark.usefixtures("compiled_if_faster")
def test_by_itself_a_run_is_trained_where_nothing_can_be_compiled(
    here: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        nn.Module, "compile", partialmethod(nn.Module.compile, backend=fail_without_compiler)
    )
    display = Listening()
    record = run.train(here("auto"), "", display)
    assert (record.state, record.reason) == ("finished", None)
    assert record.hardware["compile"] is False
    (sentence,) = (said for said in display.said if said.startswith("not compiled: "))
    assert "this model cannot be compiled here" in sentence
    assert "no compiler was found" in sentence
    monkeypatch.undo()
    plain = here("plain")
    assert run.train(plain, "", SilentDisplay()).state == "finished"
    assert_same_run(plain.folder, here("auto").folder)


@pytest.mark.usefixtures("compiled_if_faster")
def test_by_itself_a_stack_is_trained_where_nothing_can_be_compiled(
    specified: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(torch, "compile", lambda function: fail_without_compiler)
    specs = [specified(*TINY, f"seed={seed}", f"output_dir={tmp_path}") for seed in (0, 1)]
    display = Listening()
    outcomes = stack_run.train_stack(specs, "", [display, SilentDisplay()])
    assert [(record.state, record.reason) for record in outcomes] == [("finished", None)] * 2
    assert any("not compiled: this stack cannot be compiled" in said for said in display.said)


@pytest.mark.usefixtures("compiled_if_faster")
def test_a_stack_that_was_compiled_says_so(
    specified: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(torch, "compile", lambda function: function)
    spec = specified(*TINY, f"output_dir={tmp_path}")
    record = stack_run.train_single(spec, "", SilentDisplay())
    assert record.hardware["stack"]["compiled"] is True
    assert record.hardware["compile"] is True


@pytest.mark.usefixtures("quickly_compiled", "compiled_if_faster")
def test_a_compiled_run_that_is_stopped_says_so(here: Callable) -> None:
    spec = here("stopped")
    with pytest.raises(KeyboardInterrupt):
        run.train(spec, "", InterruptingDisplay(2))
    assert RunRecord.read(spec.folder).hardware["compile"] is True


def test_the_step_that_is_timed_has_no_validation(
    here: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = here("timed")
    module = LanguageModel(build_model(spec.config, 8), spec.config)
    monkeypatch.setattr(LanguageModel, "validation_step", lambda *_: pytest.fail("validated"))
    trainer = pl.Trainer(accelerator="cpu", devices=1, logger=False, enable_progress_bar=False)
    tokens = torch.zeros(2, 4, dtype=torch.int64)
    prepare_uncompiled_step(trainer, module, (tokens, tokens))()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_torch_compiles_a_run_and_finds_it_again(here: Callable) -> None:
    first, second = Listening(), Listening()
    for place, display in (("first", first), ("second", second)):
        spec = here(place, "trainer.compile=true", "seed=1")
        assert run.train(spec, "", display).state == "finished"
        torch._dynamo.reset()
    assert_same_run(
        *(here(place, "trainer.compile=true", "seed=1").folder for place in ("first", "second"))
    )
    seconds = [
        int(d.said[0].partition("compiled in ")[2].partition(" s")[0]) for d in (first, second)
    ]
    assert seconds[1] < max(seconds[0], 10)


def test_by_itself_a_cpu_compiles_nothing(here: Callable) -> None:
    assert resolve_hardware(here("auto").config.trainer).compile is False
    assert resolve_hardware(here("yes", "trainer.compile=true").config.trainer).compile is True


def test_graphs_are_asked_of_torch_and_only_on_a_gpu(
    here: Callable, train_py: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    answer = train_py("trainer.compile=graphs", "trainer.device=cpu", f"output_dir={tmp_path}")
    assert answer.code == 2
    assert "trainer.compile=graphs makes CUDA graphs, and this run would be on cpu" in answer.err
    assert not list(tmp_path.iterdir())

    # The rest of the way as it would be on a GPU; torch makes no graphs of what is on a CPU.
    asked: list[str | None] = []

    def compiled(self: nn.Module, mode: str | None) -> None:
        asked.append(mode)

    monkeypatch.setattr(hardware, "resolve_device", lambda trainer: "cpu")
    monkeypatch.setattr(nn.Module, "compile", compiled)
    for value in ("graphs", "true"):
        record = run.train(here(value, f"trainer.compile={value}"), "", SilentDisplay())
        assert record.hardware.get("cuda_graphs", False) is (value == "graphs")
    assert asked == ["reduce-overhead", None]


@pytest.mark.parametrize("value", ["maybe", "1.5", "null", "1", "0", "1.0"])
def test_another_value_for_compile_is_refused(
    train_py: Callable, value: str, tmp_path: Path
) -> None:
    answer = train_py(f"trainer.compile={value}", f"output_dir={tmp_path}")
    assert answer.code == 2
    assert "it must be true, false, auto or graphs" in answer.err
    assert len(answer.err.splitlines()) == 1


PAGES = """
import resource, torch
from normlab.training.hardware import retain_freed_memory
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        torch.ones(2**24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
default = faults()
retain_freed_memory()
torch.ones(2**24)
print(default, faults())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
def test_freed_memory_is_kept() -> None:
    done = subprocess.run([sys.executable, "-c", PAGES], capture_output=True, text=True, check=True)
    default, kept = map(int, done.stdout.split())
    assert kept < default / 4
