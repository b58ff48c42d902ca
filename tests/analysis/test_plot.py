import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from torch.utils.tensorboard import SummaryWriter

import normlab
from normlab.analysis.plot import main, print_report, write_study_report
from normlab.analysis.terminal_tables import summary_table
from normlab.archive import tags
from normlab.errors import NormlabError

SOURCE = Path(normlab.__path__[0]).parent
SCRIPT = SOURCE.parent / "scripts" / "plot.py"


def plot(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, SCRIPT, *arguments],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(SOURCE), "PATH": "", "HOME": str(Path.home())},
        check=False,
    )


def test_the_script_draws_a_study_and_says_where(maker: Any) -> None:
    maker.run(steps=100)
    lost = maker.run("layernorm", steps=100)
    (maker.folder / lost.name / "run.json").unlink()
    done = plot(maker.folder)
    assert done.returncode == 0, done.stderr
    assert (maker.folder / "runs.csv").is_file()
    assert len(list((maker.folder / "figures").iterdir())) == 8
    assert "rmsnorm · pre" in done.stdout
    assert f"figures  {maker.folder / 'figures'}" in done.stdout
    assert f"report   {maker.folder / 'report.html'}" in done.stdout
    assert (maker.folder / "report.html").is_file()
    (told,) = [line for line in done.stdout.splitlines() if line.startswith("note: ")]
    assert lost.name in told


def test_figures_are_ours_whatever_a_user_has_set_for_matplotlib(
    maker: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    maker.run(steps=50)
    main([str(maker.folder), "--metric", "train/loss"])
    folder = maker.folder / "figures" / "metrics"
    figures = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert len(figures) == 2
    for path in folder.iterdir():
        path.unlink()
    own = tmp_path_factory.mktemp("own")
    (own / "matplotlibrc").write_text("text.usetex: True\nfont.family: serif\nsavefig.dpi: 10\n")
    done = subprocess.run(
        [sys.executable, SCRIPT, maker.folder, "--metric", "train/loss"],
        cwd=own,  # the first place that matplotlib looks for settings in
        capture_output=True,
        text=True,
        env={
            "PYTHONPATH": str(SOURCE),
            "PATH": "",
            "HOME": str(Path.home()),
            "MPLBACKEND": "nonsense",
            "MATPLOTLIBRC": str(own),
        },
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == figures


def test_a_figure_that_fails_costs_a_sentence(
    maker: Any, monkeypatch: pytest.MonkeyPatch, draw_only: Callable
) -> None:
    from normlab.analysis import figures

    draw_only("training_loss", "validation_loss")
    maker.run(steps=50)

    every_loss = figures.loss_figure

    def loss_figure(planned: Any, title: str, tag: str) -> Any:
        if tag == tags.TRAIN_LOSS:
            raise RuntimeError("no such font")
        return every_loss(planned, title, tag)

    with monkeypatch.context() as failing:
        failing.setattr(figures, "loss_figure", loss_figure)
        done = write_study_report(maker.folder)
    assert {path.stem for path in done.figures} == {"validation_loss"}
    (sentence,) = done.left_out
    assert "training_loss" in sentence
    assert "no such font" in sentence
    assert "no such font" in done.page.read_text()
    assert len(write_study_report(maker.folder).figures) == 4  # and is tried again


KILLED = """
import os, signal, sys
from pathlib import Path
from normlab.archive.files import replace_atomically

study = Path(sys.argv[1])
csv = replace_atomically(study / "runs.csv")
png = replace_atomically(study / "figures" / "comparison.png")
for draft in (csv, png):
    draft.__enter__().write_text("half of it")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_writer_left_beside_the_figures_is_swept(
    maker: Any, draw_only: Callable
) -> None:
    draw_only("comparison")
    maker.run(steps=50)
    environment = {"PYTHONPATH": str(SOURCE), "PATH": ""}
    subprocess.run([sys.executable, "-c", KILLED, maker.folder], env=environment, check=False)
    assert len(list(maker.folder.rglob(".*.part"))) == 2
    write_study_report(maker.folder)
    assert not list(maker.folder.rglob(".*.part"))


def refused(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    """Exit code and output of the command for these arguments, in this process."""
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    assert isinstance(left.value.code, int)
    return left.value.code, *capsys.readouterr()


@pytest.mark.parametrize("given", ["missing", "empty", "study/run.txt", "study/run"])
def test_what_is_no_study_gets_one_sentence(
    maker: Any, given: str, capsys: pytest.CaptureFixture[str]
) -> None:
    maker.run(name="run", steps=50)
    (maker.folder / "run.txt").write_text("")
    (maker.folder.parent / "empty").mkdir()
    code, out, err = refused(capsys, maker.folder.parent / given)
    assert (code, out) == (1, "")
    assert err.count("\n") == 1
    assert given in err


def test_the_script_ends_with_that_sentence_and_no_traceback(tmp_path: Path) -> None:
    done = plot(tmp_path / "missing")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert "missing" in done.stderr


@pytest.mark.usefixtures("without_figures")
def test_within_the_margin_of_the_command_arms_end_the_same(
    maker: Any, capfd: pytest.CaptureFixture
) -> None:
    for seed in range(5):
        maker.run("rmsnorm", seed=seed, level=1.5 + 0.01 * seed, steps=100)
        maker.run("layernorm", seed=seed, level=1.5 + 0.01 * seed, steps=100)
    main([str(maker.folder)])
    assert "end the same" not in capfd.readouterr().out
    main([str(maker.folder), "--margin", "1"])
    assert "end the same within 1 nats per token" in capfd.readouterr().out


@pytest.mark.parametrize("given", ["abc", "0", "-1", "nan", "inf"])
def test_a_margin_that_is_none_is_one_sentence(
    maker: Any, given: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = refused(capsys, maker.folder, f"--margin={given}")
    assert (code, out) == (2, "")
    assert err == (
        f"normlab: --margin {given} is not allowed; give a number above 0 of nats per token, as in "
        "--margin 0.01.\n"
    )


def test_a_missing_argument_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = refused(capsys)
    assert code == 2
    assert "required: study" in err


def test_a_folder_that_cannot_be_written_is_one_sentence(
    maker: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    maker.run(steps=50)
    (maker.folder / "figures").write_text("a file where the folder should be")
    with pytest.raises(SystemExit) as left:
        main([str(maker.folder)])
    assert left.value.code == 1
    message = capsys.readouterr().err
    assert "is a file, and the study has a folder of that name; rename or remove it" in message
    assert str(maker.folder / "figures") in message
    assert message.count("\n") == 1


def test_report_gives_what_the_end_of_a_sweep_shows(maker: Any, draw_only: Callable) -> None:
    draw_only("comparison")
    maker.run(steps=100)
    done = write_study_report(maker.folder)
    assert [summary.arm.label for summary in done.result.summaries] == ["rmsnorm · pre"]
    assert [path.name for path in done.figures] == ["comparison.png", "comparison.svg"]
    assert all(path.is_file() for path in [done.csv, *done.figures])
    assert done.left_out == []
    assert summary_table(done.result.summaries).row_count == 1
    with pytest.raises(NormlabError):
        write_study_report(maker.folder / "nothing")


def test_below_the_table_stands_what_it_shows_and_what_weakens_it(
    maker: Any, draw_only: Callable, capfd: pytest.CaptureFixture
) -> None:
    draw_only("comparison")
    for norm, level in (("rmsnorm", 1.5), ("layernorm", 1.6)):
        maker.run(norm, level=level, steps=100)
    main([str(maker.folder)])
    told = capfd.readouterr().out
    verdict, target = [line for line in told.splitlines() if line.startswith("- ")]
    assert target == "- No run reached the target of 1.5300 nats per token, 0.1 above the floor."
    assert "rmsnorm · pre ends lowest" in verdict
    (warning,) = [line for line in told.splitlines() if line.startswith("warning: ")]
    assert "One seed" in warning
    assert told.index("params") < told.index(verdict) < told.index(warning) < told.index("figures ")


@pytest.mark.usefixtures("without_figures")
def test_the_terminal_has_the_differences_that_the_verdict_only_counts(
    maker: Any, capfd: pytest.CaptureFixture
) -> None:
    for at in range(7):
        for seed in range(3):
            maker.run(f"norm{at}", seed=seed, level=1.5 + at / 10, steps=100)
    done = write_study_report(maker.folder)
    print_report(done)
    told, result = capfd.readouterr().out, done.result
    for comparison in result.comparisons:
        by = f"{-comparison.difference.mean:.4f} ± {comparison.difference.half:.4f}"
        (row,) = [line for line in told.splitlines() if by in line]
        assert comparison.other.name in row
        assert comparison.outcome in row
    assert told.index(row) < told.index("ends lower than")


@pytest.mark.usefixtures("without_figures")
def test_in_a_window_sentences_are_wrapped_and_indented(
    maker: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    for norm, level in (("rmsnorm", 1.5), ("layernorm", 1.6)):
        maker.run(norm, level=level, steps=100)
    print_report(write_study_report(maker.folder))
    lines = capsys.readouterr().out.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("- "))
    assert lines[at + 1].startswith("  ")
    assert all(len(line) <= 80 for line in lines[at : at + 2])


@pytest.mark.usefixtures("without_figures")
def test_what_is_piped_keeps_to_columns(
    maker: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    for norm, level in (("rmsnorm", 1.5), ("layernorm", 1.6)):
        maker.run(norm, level=level, steps=100)
    print_report(write_study_report(maker.folder))
    lines = capsys.readouterr().out.splitlines()
    paths = ("figures ", "table ", "report ")
    assert max(len(line) for line in lines if not line.startswith(paths)) <= 40


def pixels(figures: list[Path]) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in figures if path.suffix == ".png"}


def test_event_files_alone_give_the_same_figures(maker: Any, draw_only: Callable) -> None:
    draw_only("comparison", "final_validation_loss")
    record = maker.run(steps=100, config={"trainer": {"max_steps": 100}})
    folder = maker.folder / record.name
    first = pixels(write_study_report(maker.folder).figures)
    with SummaryWriter(str(folder)) as writer:
        writer.add_text("record", f"```json\n{json.dumps(asdict(record))}\n```")
        # What a run writes when it has ended well.
        writer.add_scalar(tags.FINAL_VALIDATION_LOSS, record.final.val_loss, 100)
    (folder / "run.json").unlink()
    second = write_study_report(maker.folder)
    assert pixels(second.figures) == first
    assert len(second.left_out) == 1


def test_reading_results_imports_neither_torch_nor_lightning(maker: Any) -> None:
    maker.run(steps=50)
    code = (
        "import sys; from normlab.analysis.plot import main; "
        "assert 'matplotlib' not in sys.modules and 'scipy' not in sys.modules; "
        f"main([{str(maker.folder)!r}]); "
        "never = {'torch', 'pytorch_lightning', 'tensorflow', 'matplotlib.pyplot'}; "
        "bad = never & set(sys.modules); "
        "sys.exit(str(bad) if bad else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(SOURCE), "PATH": "", "HOME": str(Path.home())},
        check=False,
    )
    assert done.returncode == 0, done.stderr
