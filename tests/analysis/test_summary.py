import csv
import math
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from torch.utils.tensorboard import SummaryWriter

from normlab.analysis.arms import group_runs
from normlab.analysis.plot import write_study_report
from normlab.analysis.runs_csv import write_runs_csv
from normlab.analysis.summary import summarise_arms
from normlab.analysis.terminal_tables import summary_table
from normlab.archive import tags
from normlab.archive.study import read_study


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "runs.csv").open(newline="") as lines:
        return list(csv.DictReader(lines))


def test_runs_csv_has_a_row_a_run_with_the_records_values(maker: Any) -> None:
    config = {"optimizer": {"lr": 3e-3, "betas": [0.9, 0.99]}, "note": 'a "b", c'}
    record = maker.run(config=config, steps=100, versions={"torch": "2.13.0"})
    maker.run("layernorm", "post", 1, diverge_at=60, steps=100)
    write_runs_csv(read_study(maker.folder))
    diverged, finished = rows(maker.folder)
    assert float(finished["best.val_loss"]) == record.best.val_loss
    assert float(finished["final.val_loss"]) == record.final.val_loss
    assert finished["config.optimizer.lr"] == "0.003"
    assert finished["config.optimizer.betas"] == "[0.9, 0.99]"
    assert finished["config.note"] == 'a "b", c'
    assert finished["versions.torch"] == "2.13.0"
    assert finished["choices.norm"] == "rmsnorm"
    assert (finished["state"], finished["diverged_step"]) == ("finished", "")
    assert (diverged["state"], diverged["diverged_step"]) == ("diverged", "60")
    assert (diverged["final.val_loss"], diverged["config.optimizer.lr"]) == ("", "")


def test_the_columns_of_runs_csv_stay_where_they_are(maker: Any) -> None:
    maker.run(steps=50, versions={"torch": "2", "python": "3"})
    path = write_runs_csv(read_study(maker.folder))
    first = path.read_bytes()
    assert first.decode().splitlines()[0] == (
        "id,name,state,reason,step,command,seed,norm,placement,data,parameters,tokens_per_second,"
        "train_seconds,precision,device,floor,diverged_step,final.val_loss,final.train_loss,"
        "best.val_loss,best.step,started,ended,unigram,target,steps_to_target,loss_spikes,"
        "final.selection_loss,final.test_loss,"
        "versions.python,versions.torch,choices.norm,choices.placement,config.norm.eps,config.seed"
    )
    write_runs_csv(read_study(maker.folder))
    assert path.read_bytes() == first


def test_a_summary_counts_every_run_and_averages_the_finished(maker: Any) -> None:
    finished = [maker.run(seed=s, steps=100) for s in range(3)]
    maker.run(seed=3, diverge_at=60)
    maker.run(seed=4, state="failed", steps=50)
    (arm,) = summarise_arms(group_runs(read_study(maker.folder).runs))
    printed_rows = summary_table([arm])
    assert [list(column.cells) for column in printed_rows.columns[1::3]] == [
        ["3 of 5, 1 failed"],
        ["1 of 5"],
    ]
    best = [record.best.val_loss for record in finished]
    mean, half = arm.best_val
    assert mean == pytest.approx(np.mean(best))
    assert half == pytest.approx(stats.t.ppf(0.975, 2) * stats.sem(best))
    assert arm.final_val[0] == pytest.approx(np.mean([r.final.val_loss for r in finished]))
    assert arm.gap == pytest.approx(np.mean(best) - 1.43)
    assert arm.tokens_per_second == 47_000
    assert arm.parameters == 801_234


def test_arms_are_ordered_by_loss_and_those_that_only_diverged_come_last(maker: Any) -> None:
    maker.run("none", "any", diverge_at=60)
    maker.run("rmsnorm", level=1.6, steps=300)
    maker.run("layernorm", level=1.5, steps=300)
    found = summarise_arms(group_runs(read_study(maker.folder).runs))
    assert [summary.arm.label for summary in found] == ["layernorm · pre", "rmsnorm · pre", "none"]
    assert math.isnan(found[-1].best_val[0])


def printed(maker: Any, width: int = 80) -> str:
    from rich.console import Console

    console = Console(width=width, record=True, file=StringIO())
    console.print(summary_table(summarise_arms(group_runs(read_study(maker.folder).runs))))
    return console.export_text()


def test_the_printed_table_fits_eighty_columns_and_names_the_floor(maker: Any) -> None:
    for seed in range(2):
        maker.run("layernorm", "post", seed, steps=100)
    maker.run("layernorm", "post", 2, diverge_at=60)
    text = printed(maker)
    (row,) = [line for line in text.splitlines() if "layernorm · post" in line]
    assert "2 of 3" in row
    assert "1 of 3" in row
    assert "±" in row
    assert "801,234" in row
    assert "Floor: 1.4300" in text


@pytest.mark.parametrize("width", [40, 50, 60, 80, 120])
def test_every_name_and_number_is_whole_in_every_window(maker: Any, width: int) -> None:
    for seed in range(2):
        for norm in ("layernorm", "gemma_rmsnorm[x]"):
            record = maker.run(norm, "post", seed, steps=100, config={"optimizer": {"lr": 3e-3}})
            with SummaryWriter(str(maker.folder / record.name)) as writer:
                for step in range(9, 100, 10):
                    writer.add_scalar(tags.TOKENS_PER_SECOND, record.tokens_per_second, step)
    text = printed(maker, width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    for arm in summarise_arms(group_runs(read_study(maker.folder).runs)):
        speed = f"{arm.tokens_per_second:,.0f}"
        loss = f"{arm.best_val[0]:.4f} ± {arm.best_val[1]:.4f}"
        for word in (*arm.arm.label.split(), loss, speed, "801,234"):
            assert word in text


def test_a_loss_reads_the_same_in_terminal_report_figure_and_sentence(maker: Any) -> None:
    for seed in range(3):
        maker.run(seed=seed, steps=100)
    report = write_study_report(maker.folder)
    (arm,) = report.result.summaries
    loss = f"{arm.final_val[0]:.4f} ± {arm.final_val[1]:.4f}"
    drawn = (maker.folder / "figures" / "final_validation_loss.svg").read_text()
    texts = {
        "terminal": printed(maker),
        "report": report.page.read_text(),
        "figure": drawn,
        "sentence": " ".join(report.result.sentences),
    }
    assert [name for name, text in texts.items() if loss not in text] == []


def test_one_seed_has_no_interval(maker: Any) -> None:
    maker.run(steps=100, floor=None)
    text = printed(maker)
    (row,) = [line for line in text.splitlines() if "rmsnorm" in line]
    assert "±" not in row
    assert "Floor" not in text


def test_a_finished_run_whose_losses_are_lost_is_named_in_the_table(maker: Any) -> None:
    records = [maker.run(seed=seed, steps=50) for seed in range(3)]
    for path in (maker.folder / records[0].name).glob("events.out.tfevents.*"):
        path.unlink()
    assert "3, 1 without a loss" in printed(maker, width=120)


def test_failed_runs_are_named_in_the_table(maker: Any) -> None:
    maker.run(steps=50)
    maker.run(seed=1, state="failed", steps=50)
    assert "1 of 2, 1 failed" in printed(maker, width=120)
