"""`mapflow compare`, `leaderboard` and `ablate` as a user types them: exit codes, one-line errors,
files, the grid.
"""

import csv
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import mapflow
from mapflow.harness.cli.chosen_runs import compared_runs
from mapflow.harness.cli.main import main
from mapflow.harness.commands import ablate
from mapflow.results.contract.errors import MapflowError
from tests.results.run_folders import answers, write_run

FULL, EFFECTIVE = [1] * 30 + [0] * 10, [1] * 29 + [0] * 11


@pytest.fixture
def folder(tmp_path):
    records = answers("full", FULL) + answers("effective", EFFECTIVE)
    for seed in (0, 1):
        records += answers(f"random:seed={seed}", FULL[::-1], seed=seed)
    return write_run(tmp_path / "run", records)


def test_compare_prints_a_sentence_a_pair(folder, capsys):
    assert main(["compare", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "whether effective is inferior to full on TVBench: −2.5 points" in said
    assert "1 lost, 0 gained" in said and "random:seed=1 is inferior to full on TVBench" in said


def test_compare_takes_folders_with_an_intervention_and_another_baseline(folder, tmp_path, capsys):
    other = write_run(
        tmp_path / "other:one", answers("full", EFFECTIVE), identity={"checkpoint": "big"}
    )
    assert (
        main(
            ["compare", f"{folder}:full", str(other), f"{folder}:random:seed=0", "--format", "json"]
        )
        == 0
    )
    rows = json.loads(capsys.readouterr().out)[0]["rows"]
    assert [(r["baseline"], r["treatment"]) for r in rows] == [
        ("tiny full", "big full"),
        ("tiny full", "tiny random:seed=0"),
    ]
    assert main(["compare", str(folder), "--baseline", "effective", "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)[0]["rows"]
    assert (rows[0]["baseline"], rows[0]["treatment"], rows[0]["gained"]) == (
        "effective",
        "full",
        1,
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["{0}/absent"], "does not exist"),
        (["{0}:nothing"], "has no intervention 'nothing'; it has full, effective"),
        (["{0}", "{0}:full"], "holds several interventions"),
        (["{0}", "--baseline", "nothing"], "no intervention 'nothing' on 'tvbench'"),
        (["{0}:full"], "only one run is given"),
        (["{0}", "--margin", "0"], "--margin 0 must lie between 0 and 100 points"),
        (["{0}", "--margin", "nan"], "--margin nan must lie"),
        (["{0}:full", "{0}:effective", "--baseline", "full"], "belongs to a single folder"),
        (["{0}", "-o", "{0}/absent/table.md"], "cannot be written"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(folder, capsys, words, said):
    assert main(["compare", *(word.format(folder) for word in words)]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


@pytest.mark.parametrize("flags", [[], ["--intersect"]])
def test_an_interaction_over_disjoint_questions_is_one_line(folder, tmp_path, capsys, flags):
    records = [
        one
        for name in ("full", "effective")
        for one in answers(name, FULL, question_id="tvbench/other/{:04d}")
    ]
    other = write_run(tmp_path / "other", records, identity={"checkpoint": "big"})
    words = [f"{folder}:full", f"{folder}:effective", str(other), "--interaction", *flags]
    assert main(["compare", *words]) == 2
    error = capsys.readouterr().err
    assert "the runs share no question: 'tiny full' has 40" in error and error.count("\n") == 1


def test_an_intervention_of_a_folder_may_be_written_as_on_a_command_line(tmp_path, capsys):
    """`>` is a redirect in shells, so routes have a colon there; records have the arrow."""
    cut = answers("video->last@2-3", EFFECTIVE)
    run = write_run(tmp_path / "run", [*answers("full", EFFECTIVE), *cut])
    for words in (
        [f"{run}:full", f"{run}:video:last@2-3"],
        [str(run), "--baseline", "video:last@2-3"],
    ):
        assert main(["compare", *words, "--format", "json"]) == 0
        (row,) = json.loads(capsys.readouterr().out)[0]["rows"]
        assert "video->last@2-3" in row["treatment"] + row["baseline"]
    assert main(["compare", str(run), "--baseline", "video:last@2-4"]) == 2
    assert "no intervention 'video:last@2-4'" in capsys.readouterr().err


def test_the_margin_decides_the_verdict(folder, capsys):
    for points, verdict in (("2", "inconclusive"), ("30", "non-inferior")):
        main(
            [
                "compare",
                f"{folder}:full",
                f"{folder}:effective",
                "--margin",
                points,
                "--format",
                "json",
            ]
        )
        assert json.loads(capsys.readouterr().out)[0]["rows"][0]["verdict"] == verdict


def test_benchmarks_that_only_one_run_has_need_intersect(folder, tmp_path):
    more = answers("full", FULL) + answers("full", FULL, question_id="tomato/one/{:04d}")
    other = write_run(tmp_path / "two", more)
    for words in ([f"{folder}:full", str(other)], [str(other), f"{folder}:full"]):
        with pytest.raises(MapflowError, match=r"has no answers to 'tomato'.*--intersect"):
            compared_runs(words)
        assert [
            [run.benchmark for run in group]
            for group in compared_runs(words, intersect=True).groups
        ] == [["tvbench", "tvbench"]]


def test_a_benchmark_that_intersect_leaves_out_is_noted(folder, tmp_path, capsys):
    """The table showed TVBench alone, without a word about 40 answers to TOMATO."""
    more = answers("full", FULL) + answers("full", FULL, question_id="tomato/one/{:04d}")
    other = write_run(tmp_path / "two", more)
    note = f"TOMATO is left out, as not all runs have answers to it: 40 of {other}."
    for words in ([f"{folder}:full", str(other)], [str(other), f"{folder}:full"]):
        assert main(["compare", *words, "--intersect", "--format", "csv"]) == 0
        assert note in capsys.readouterr().out
        assert note in mapflow.compare(*words, intersect=True).sentences
    assert main(["compare", *words[::-1][:1], f"{folder}:effective", "--format", "csv"]) == 0
    assert "left out" not in capsys.readouterr().out


def test_ablate_refuses_folders_of_several_models(folder, tmp_path, capsys):
    other = write_run(
        tmp_path / "other", answers("effective", EFFECTIVE), identity={"checkpoint": "big"}
    )
    assert main(["ablate", f"{folder}:full", str(other)]) == 2
    error = capsys.readouterr().err
    assert "ablate compares interventions of one model" in error and error.count("\n") == 1
    assert "model tiny and big" in error and "mapflow compare" in error


@pytest.mark.parametrize(
    ("suffix", "sign"),
    [
        (".md", "### "),
        (".tex", "\\toprule"),
        (".csv", "benchmark,"),
        (".json", "["),
        (".html", "<!doctype"),
    ],
)
def test_the_outputs_name_chooses_the_format(folder, tmp_path, suffix, sign, capsys):
    path = tmp_path / f"board{suffix}"
    assert main(["leaderboard", str(folder), "-o", str(path)]) == 0
    assert sign in path.read_text() and "TVBench" in path.read_text()
    assert capsys.readouterr().out == f"written: {path}\n"


@pytest.mark.parametrize("command", ["leaderboard", "compare", "report", "export"])
@pytest.mark.parametrize("name", ["records.jsonl", "manifest.json"])
def test_no_output_replaces_the_files_of_a_run(folder, capsys, command, name):
    before = (folder / name).read_bytes()
    more = ["--to", "parquet"] if command == "export" else []
    assert main([command, str(folder), *more, "-o", str(folder / name)]) == 2
    error = capsys.readouterr().err
    assert "cannot be written: it is there already" in error and error.count("\n") == 1
    assert (folder / name).read_bytes() == before


def test_places_that_are_not_runs_are_named_for_what_they_are(folder, tmp_path, capsys):
    sweep = tmp_path / "sweep"
    sweep.mkdir()
    (sweep / "sweep.jsonl").write_text("{}")
    for command in ("leaderboard", "compare", "power", "ablate"):
        assert main([command, str(sweep)]) == 2
        error = capsys.readouterr().err
        assert "holds an analysis (sweep)" in error and "mapflow figure" in error
        assert main([command, str(folder / "records.jsonl")]) == 2
        assert "is one file of a run: name its folder" in capsys.readouterr().err


def test_results_without_samples_name_the_flag_that_writes_samples(tmp_path, capsys):
    (tmp_path / "20260101_000000_results.json").write_text("{}")
    assert main(["leaderboard", str(tmp_path)]) == 2
    assert "run it again with --log_samples" in capsys.readouterr().err


def test_an_output_is_no_input(folder, tmp_path, capsys):
    log = tmp_path / "log.json"
    log.write_text("{}")
    assert main(["compare", str(folder), str(log), "-o", str(log)]) == 2
    assert "it is also an input" in capsys.readouterr().err and log.read_text() == "{}"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--seeds", ""], "--seeds '' is not a list of numbers"),
        (["--ratios", ""], "--ratios '' is not a list of numbers"),
        (["--interventions", "full"], "a grid of full alone compares nothing"),
        (["other_run"], "'other_run' beside --run"),
    ],
)
def test_a_grid_that_shows_nothing_is_not_run(tmp_path, monkeypatch, capsys, words, said):
    monkeypatch.setattr(ablate.subprocess, "run", lambda *_, **__: pytest.fail("the grid ran"))
    assert main(["ablate", "--run", str(tmp_path / "grid"), *words]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_a_csv_or_latex_file_holds_one_kind_of_table(folder, tmp_path, capsys):
    more = answers("full", FULL, task="t_two", question_id="tvbench/two/{:04d}")
    other = answers("full", FULL, question_id="tomato/one/{:04d}")
    changed = [replace(one, intervention="effective") for one in [*more, *other]]
    records = [*answers("full", FULL), *answers("effective", EFFECTIVE), *more, *other, *changed]
    run = str(write_run(tmp_path / "several", records))
    for suffix in ("csv", "tex", "md"):
        assert main(["compare", run, "--subtasks", "-o", str(tmp_path / f"out.{suffix}")]) == 0
    written = sorted(file.name for file in tmp_path.glob("out*"))
    assert written == ["out-subtasks.csv", "out-subtasks.tex", "out.csv", "out.md", "out.tex"]
    for name, benchmarks in (("out", ["TVBench", "TOMATO"]), ("out-subtasks", ["TVBench"] * 2)):
        lines = (tmp_path / f"{name}.csv").read_text().splitlines()
        rows = list(csv.DictReader(line for line in lines if not line.startswith("#")))
        assert [row["benchmark"] for row in rows] == benchmarks, name
    capsys.readouterr()
    assert main(["compare", run, "--subtasks", "--format", "csv"]) == 0
    assert len(capsys.readouterr().out.split("\n\n")) == 2


def test_columns_captions_and_labels_are_chosen(folder, tmp_path, capsys):
    out = tmp_path / "board.tex"
    words = ["--columns", "intervention,micro", "--caption", "50 % of A_b", "--label", "tab:main"]
    assert main(["leaderboard", str(folder), *words, "-o", str(out)]) == 0
    text = out.read_text()
    assert "\\caption{50 \\% of A\\_b}\n\\label{tab:main}" in text
    assert "\nintervention & micro [95 \\% CI] \\\\\n" in text
    for command in ("leaderboard", "compare", "ablate"):
        capsys.readouterr()
        assert main([command, str(folder), "--compact", "--format", "json"]) == 0
        (table, *_) = json.loads(capsys.readouterr().out)
        assert 2 < len(table["rows"][0]) < 20, command


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--columns", "treatmnt"], "unknown column 'treatmnt': did you mean 'treatment'?"),
        (["--columns", ","], "--columns names no column"),
        (["--columns", "n", "--compact"], "keep one"),
        (["--label", "x"], "--label is of LaTeX: add --format latex"),
        (["--label", "a}b", "--format", "latex"], "--label 'a}b' may hold letters"),
        (["--caption", " "], "--caption is empty"),
        (["--output", "table.docx"], "no format is known for '.docx'"),
    ],
)
def test_mistakes_in_what_a_table_shows_are_one_line(folder, capsys, words, said):
    assert main(["compare", str(folder), *words]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_ablate_reports_seeds_as_one_condition(folder, capsys):
    assert main(["ablate", str(folder), "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)[0]["rows"]
    assert [(row["condition"], row["seeds"]) for row in rows] == [
        ("effective", []),
        ("random", [0, 1]),
    ]


def test_the_grid_is_interventions_times_seeds_times_ratios():
    assert ablate.grid("full,random", "0,1", "0.25,0.5") == [
        "full",
        "random:ratio=0.25,seed=0",
        "random:ratio=0.25,seed=1",
        "random:ratio=0.5,seed=0",
        "random:ratio=0.5,seed=1",
    ]
    assert ablate.grid("random:ratio=0.5,full", "3,3", None) == ["random:ratio=0.5,seed=3", "full"]
    for seeds, ratios in (("x", None), ("0.5", None), ("0", "many")):
        with pytest.raises(MapflowError, match="is not a list of numbers"):
            ablate.grid("random", seeds, ratios)


def test_ablate_runs_the_grid_with_what_follows_two_dashes(tmp_path, monkeypatch, capsys):
    asked = []

    def pretend(command, **_):
        asked.append(command)
        write_run(
            tmp_path / "grid", answers("full", FULL) + answers("random:seed=4", EFFECTIVE, seed=4)
        )
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(ablate.subprocess, "run", pretend)
    words = ["--interventions", "full,random", "--seeds", "4", "--run", str(tmp_path / "grid")]
    assert main(["ablate", *words, "--", "--model", "mapflow_hf", "--limit", "3"]) == 0
    assert asked[0][1:] == [
        *("-m", "mapflow", "run", "--model", "mapflow_hf", "--limit", "3"),
        *("--intervention", "full", "--intervention", "random:seed=4"),
        *("--output_path", str(tmp_path / "grid")),
    ]
    assert "random" in capsys.readouterr().out
    assert main(["ablate"]) == 2


@pytest.mark.parametrize("code", [1, 3])
def test_a_failed_grid_hands_on_its_exit_code_and_missing_questions_are_reported_nevertheless(
    folder, monkeypatch, capsys, code
):
    monkeypatch.setattr(
        ablate.subprocess, "run", lambda words, **_: subprocess.CompletedProcess(words, code)
    )
    assert main(["ablate", "--run", str(folder)]) == code
    assert ("Ablation on TVBench" in capsys.readouterr().out) == (code == 3)


def test_help_of_the_tables_imports_no_statistics():
    code = (
        "import sys; from mapflow.harness.cli.main import main\n"
        "try: main(['{0}', '--help'])\nexcept SystemExit: pass\n"
        "assert not {{'statsmodels', 'scipy', 'torch', 'numpy'}} & set(sys.modules), 'heavy"
        " imports'"
    )
    for name in ("compare", "leaderboard", "ablate", "power", "report"):
        done = subprocess.run(
            [sys.executable, "-c", code.format(name)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr


def test_tables_need_no_torch(folder):
    code = (
        "import sys; from mapflow.harness.cli.main import main\n"
        f"assert main(['compare', {str(folder)!r}]) == 0\nassert main(['leaderboard',"
        f" {str(folder)!r}]) == 0\n"
        "assert not {'torch', 'lmms_eval'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=Path.cwd()
    )
    assert done.returncode == 0, done.stderr
