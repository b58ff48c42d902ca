"""The report: one page that holds the whole study, and takes every word of a run as text."""

import os
import re
from base64 import b64encode
from collections import Counter
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from html_page import Page
from normlab.analysis import report, report_tables
from normlab.analysis.plot import write_study_report
from normlab.analysis.report_tables import figure_tables
from normlab.analysis.result import analyse_study
from normlab.archive.study import read_study


def written(folder: Path, notes: tuple[str, ...] = ()) -> Page:
    """The page of a study without its figures, which take longest."""
    study = read_study(folder)
    path = folder / "report.html"
    report.write_report(analyse_study(study), [], [*study.left_out, *notes], path)
    return Page(path)


def text_of(page: Page) -> str:
    (body,) = page.all("body")
    return " ".join(body.text.split())


@pytest.fixture
def mixed(maker: Any) -> Any:
    """A study in which runs ended in every way."""
    for seed in range(2):
        maker.run(
            "rmsnorm", "pre", seed, level=1.5, steps=50, config={"trainer": {"max_steps": 50}}
        )
        maker.run("layernorm", "pre", seed, level=1.6, steps=50)
    maker.run("none", "any", 0, diverge_at=40, reason="the loss is not finite")
    maker.run("none", "any", 1, state="failed", steps=10, reason="killed by signal 9")
    maker.run("dyt", "pre", 0, state="interrupted", steps=30, reason="stopped at step 30")
    maker.run("dyt", "pre", 1, state="running", steps=30)
    return maker


def test_every_run_stands_in_the_table_with_how_it_ended(mixed: Any) -> None:
    page = written(mixed.folder)
    found = {row[0]: row[1] for row in page.rows("every")}
    study = read_study(mixed.folder)
    assert found == {run.record.name: run.record.state for run in study.runs}
    assert Counter(found.values()) == {
        "finished": 4,
        "diverged": 1,
        "failed": 1,
        "interrupted": 1,
        "running": 1,
    }
    (diverged,) = page.rows("diverged")
    assert diverged[0] == "none-any--s0"
    assert diverged[1] == "40"
    assert diverged[4] == "the loss is not finite"
    unfinished = {row[0]: row[4] for row in page.rows("unfinished")}
    assert unfinished["none-any--s1"] == "killed by signal 9"
    assert len(unfinished) == 3


def test_the_verdict_comes_first_and_whole(mixed: Any) -> None:
    text = text_of(written(mixed.folder, notes=("a note of the reader's",)))
    found = analyse_study(read_study(mixed.folder))
    said = [*found.sentences, *found.warnings, "a note of the reader's"]
    places = [text.index(" ".join(sentence.split())) for sentence in said]
    assert places == sorted(places)
    assert places[-1] < text.index("Every run")


def test_numbers_are_sorted_by_value_and_unknown_ones_have_none(mixed: Any) -> None:
    page = written(mixed.folder)
    (table,) = [one for one in page.all("table") if one.attributes.get("id") == "every"]
    (body,) = table.all("tbody")
    (heads,) = table.all("thead")
    at = [head.text for head in heads.all("th")].index("final val") - 1
    values = [list(row.all("td"))[at].attributes["data-value"] for row in body.all("tr")]
    finals = [run.record.final.val_loss for run in read_study(mixed.folder).runs]
    assert values == ["nan" if final is None else str(final) for final in finals]


HOSTILE = "<script>alert(1)</script>\"'&\u202e ünïcødé {{7*7}} {% raw %} </style>"


def test_whatever_a_run_says_is_text(maker: Any) -> None:
    maker.run(
        HOSTILE,
        "post' onmouseover='x",
        name="a<b>&amp;' onclick=x",
        steps=60,
        state="failed",
        reason="</script><img src=http://x.invalid/ onerror=alert(1)> \x00\x1b[31m",
        config={"note</style>": "</textarea><script>alert(2)</script>", "seed": 0},
        versions={"torch": "<i>"},
    )
    maker.run(steps=50)
    page = written(maker.folder, notes=("a folder's \udcff name",))
    assert len(page.all("script")) == 1
    assert not page.all("img")
    explained = ["Loss", "±", "Diverged", "Colour", "line style"]
    assert [one.text for one in page.all("b")] == explained
    assert not page.all("i")
    assert page.handlers == []
    text = text_of(page)
    for word in ("<script>alert(1)</script>\"'&", "{{7*7}} {% raw %}", "post' onmouseover='x"):
        assert word in text
    assert "</script><img src=http://x.invalid/ onerror=alert(1)> \ufffd\ufffd[31m" in text
    assert "a folder's \ufffd name" in text
    assert "\u202e" not in text
    assert "a<b>&amp;' onclick=x" in {row[0] for row in page.rows("every")}


def test_the_page_loads_nothing_and_runs_only_its_own_script(mixed: Any) -> None:
    page = written(mixed.folder)
    assert page.loads
    assert all(value == "data:," or value.startswith("#") for value in page.loads)
    (style,), (script,) = page.all("style"), page.all("script")
    assert "url(" not in style.text
    assert "@import" not in style.text
    (policy,) = [
        one.attributes["content"]
        for one in page.all("meta")
        if one.attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    digest = b64encode(sha256(script.text.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory, make_study: Any) -> Any:
    """What a small study ended in, with its figures."""
    maker = make_study(tmp_path_factory.mktemp("drawn") / "study")
    for seed in range(2):
        maker.run(seed=seed, steps=50)
    maker.run("none", "any", diverge_at=40)
    return write_study_report(maker.folder)


def test_the_figures_stand_in_the_page_each_with_ids_of_its_own(drawn: Any) -> None:
    page = Page(drawn.page)
    assert max(Counter(page.ids).values()) == 1
    drawings = {one.attributes["id"]: list(one.all("svg")) for one in page.all("figure")}
    names = [path.stem for path in drawn.figures if path.suffix == ".svg"]
    assert list(drawings) == [f"figure-{name}" for name in names]
    for name, (drawing,) in zip(names, drawings.values(), strict=True):
        assert drawing.attributes["role"] == "img"
        assert drawing.attributes["aria-label"] == report.figure_caption(name)
        assert all(use.attributes["href"][1:] in page.ids for use in drawing.all("use"))
        clips = {group.attributes.get("clip-path") for group in drawing.all("g")} - {None}
        assert {clip.removeprefix("url(#").removesuffix(")") for clip in clips} <= {*page.ids}
    assert all(value == "data:," or value.startswith("#") for value in page.loads)


def test_what_is_drawn_says_what_it_is(drawn: Any) -> None:
    told = {title.text for title in Page(drawn.page).all("title")}
    records = [run.record for run in drawn.result.study.runs if run.record.norm == "rmsnorm"]
    finals = sorted(record.final.val_loss for record in records)
    (seeds,) = {one for one in told if one.startswith("rmsnorm · pre, each seed: ")}
    assert sorted(seeds.partition(": ")[2].split(", ")) == [f"{one:.4f}" for one in finals]
    assert any(one.startswith("none-any--s0: diverged; ") for one in told)
    for path in drawn.figures:
        if path.suffix == ".svg":
            assert "<title>" in path.read_text(encoding="utf-8")


def test_a_run_without_probes_and_again_with_them_has_a_row_each(maker: Any) -> None:
    maker.run("rmsnorm", "pre", 0, name="plain")
    maker.run("rmsnorm", "pre", 0, name="probed", config={"probes": {"every": 10}})
    rows = Page(write_study_report(maker.folder).page).rows("every")
    assert [row[0] for row in rows] == ["plain", "probed"]


def test_the_numbers_beneath_the_figures_are_those_of_the_runs(drawn: Any) -> None:
    page = Page(drawn.page)
    rows = {row[0]: row[1:] for row in page.rows("numbers-final_validation_loss")}
    runs = [run for run in drawn.result.study.runs if run.record.norm == "rmsnorm"]
    finals = [f"{run.record.final.val_loss:.4f} (seed {run.record.seed})" for run in runs]
    assert rows["rmsnorm · pre"][1] == ", ".join(finals)
    assert rows["none"][0] == "–"
    assert rows["none"][2] == "diverged at step 40"
    validation = {row[0]: row[1:] for row in page.rows("numbers-validation_loss")}
    last = [float(run.events.scalars["val/loss"].values[-1]) for run in runs]
    assert validation["rmsnorm · pre"][-2] == f"{sum(last) / len(last):.4f}"
    assert set(validation["none"][:-1]) == {"–"}


def test_a_study_over_learning_rates_has_its_tables(maker: Any) -> None:
    for lr, level in ((1e-3, 1.7), (1e-2, 1.5), (1e-1, 1.6)):
        maker.run(steps=50, level=level, config={"optimizer": {"lr": lr}})
    maker.run("none", "any", steps=50, config={"optimizer": {"lr": 1e-3}})
    for lr in (1e-2, 1e-1):
        maker.run("none", "any", diverge_at=40, config={"optimizer": {"lr": lr}})
    tuned, by_rate = figure_tables(analyse_study(read_study(maker.folder)))["learning_rate"]
    rows = [[cell.text for cell in row] for row in tuned.rows]
    assert [(row[0], row[1], row[4], row[5]) for row in rows] == [
        ("rmsnorm · pre", "1e-2", "0.1", "0 of 3"),
        ("none", "1e-3", "1e-3", "2 of 3"),
    ]
    assert [column.title for column in by_rate.columns][1:] == ["lr=1e-3", "lr=1e-2", "lr=0.1"]
    assert [cell.text for cell in by_rate.rows[1]][2:] == ["1 of 1 diverged"] * 2


def test_a_drawing_too_large_for_a_page_is_a_picture(
    drawn: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "_LARGEST_DRAWING", 1000)
    found = report.inline_figures(drawn.figures[-2:])
    assert [one.is_vector for one in found] == [False]
    assert found[0].image.startswith('<img src="data:image/png;base64,')


def test_the_same_study_gives_the_same_bytes_wherever_it_is_named_from(
    mixed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (mixed.folder / "dyt-pre--s0" / "run.json").write_text("{")
    written(mixed.folder)
    first = (mixed.folder / "report.html").read_bytes()
    monkeypatch.chdir(mixed.folder.parent)
    page = written(Path(mixed.folder.name))
    assert (mixed.folder / "report.html").read_bytes() == first
    assert "dyt-pre--s0 was left out" in text_of(page)
    assert os.fsencode(mixed.folder.parent) not in first


def test_one_run_of_one_seed_is_a_page_that_says_so(maker: Any) -> None:
    maker.run(steps=60)
    text = text_of(written(maker.folder))
    assert "1 run:" in text
    assert "One seed: no number has an interval" in text
    assert "Nothing: every run has the same configuration." in text


@pytest.mark.parametrize("state", ["failed", "interrupted", "running"])
def test_a_study_without_a_result_says_so(maker: Any, state: str) -> None:
    maker.run(state=state, steps=5, reason=None, tokens_per_second=None, parameters=None)
    text = text_of(written(maker.folder))
    assert "No run has finished, so there is no loss to compare." in text
    assert "Runs without a result; they are in no mean." in text
    assert "not recorded" in text


def test_two_hundred_arms_all_stand_in_the_tables(maker: Any) -> None:
    for at in range(200):
        maker.run(f"norm{at:03d}", steps=1)
    page = written(maker.folder)
    assert len(page.rows("every")) == 200
    assert len(page.rows("arms")) == 200
    assert (maker.folder / "report.html").stat().st_size < 500_000


def test_what_varies_is_listed_with_how_often_and_the_rest_as_fixed(maker: Any) -> None:
    for lr in (3e-3, 1e-2, 1e-2):
        maker.run(seed=int(lr * 1000), name=f"run{len(list(maker.folder.glob('*')))}", steps=1,
                  config={"optimizer": {"lr": lr, "eps": 1e-8}, "output_dir": str(lr)})  # fmt: skip
    maker.run("dyt", seed=3, name="last", steps=1, config={"optimizer": {"lr": 3e-3, "eps": 1e-8}})
    found = report_tables.configuration_differences(read_study(maker.folder).runs)
    varying = dict(found.varying)
    assert varying["optimizer.lr"] == "3e-3 (2 runs), 1e-2 (2 runs)"
    assert varying["norm"] == "dyt (1 run), rmsnorm (3 runs)"
    assert varying["seed"] == "3 (2 runs), 10 (2 runs)"
    assert "output_dir" not in varying
    assert dict(found.fixed)["optimizer.eps"] == "1e-8"


def test_many_values_are_cut_and_counted(maker: Any) -> None:
    for seed in range(20):
        maker.run(seed=seed, steps=1)
    found = dict(report_tables.configuration_differences(read_study(maker.folder).runs).varying)
    assert found["seed"].endswith("11 (1 run), and 8 other values")


def test_commands_can_be_typed_as_they_stand(maker: Any) -> None:
    maker.run(name="a b", steps=1, config={"output_dir": "my outputs"})
    found = report.repeat_commands(read_study(maker.folder))
    assert found["The study"] == ["python train.py -m norm=rmsnorm,layernorm placement=pre,post"]
    assert found["Draw it again"] == ["python scripts/plot.py 'my outputs/study'"]
    assert found["Browse every curve"] == ["tensorboard --logdir 'my outputs'"]
    (one,) = found["One run again, to compare it bit by bit"]
    assert one == "python train.py --from 'my outputs/study/a b'"
    study = read_study(maker.folder)
    study.runs[0].record.command = "  "
    assert report.repeat_commands(study)["The study"] == []


def test_a_drawing_has_other_colours_on_a_dark_ground(maker: Any) -> None:
    maker.run(steps=50)
    write_study_report(maker.folder)
    page = (maker.folder / "report.html").read_text()
    style = page[page.index("<style>") : page.index("</style>")]
    drawing = page[page.index("<svg") : page.rindex("</svg>")]
    dark = dict(re.findall(r"--on-([0-9a-f]{6}): (#[0-9a-f]{6})", style))
    used = set(re.findall(r"var\(--on-([0-9a-f]{6}), #\1\)", drawing))
    assert {"222222", "ffffff", "0072b2", "e6e6e6"} <= used
    assert used <= dark.keys()
    assert not re.findall(r"(?:fill|stroke): #(?:222222|ffffff)", drawing)
    assert "max-height" not in style[style.index(".paper {") :].partition("}")[0]
    assert "var(--on" not in (maker.folder / "figures" / "comparison.svg").read_text()
