"""LaTeX of a table: its text by hand and as pdflatex and lualatex print it."""

import re
import shutil
import subprocess
from dataclasses import replace

import pytest

from mapflow.results.runs.run import read_runs
from mapflow.results.tables.ablation import ablation_table
from mapflow.results.tables.comparison import compare_with_baseline, comparison_table
from mapflow.results.tables.formats import Column, Marks, Row, Table, render
from mapflow.results.tables.latex import lacking, latex_cell, latex_text
from mapflow.results.tables.leaderboard import leaderboard
from mapflow.results.tables.subtasks import subtask_table
from tests.results.run_folders import answers, write_run

ENGINES = [one for one in ("pdflatex", "lualatex") if shutil.which(one)]
needs_latex = pytest.mark.skipif(not ENGINES, reason="neither pdflatex nor lualatex is installed")
WESTERN = (
    "Ünïcödé ß é à ç ñ ő ř ż ș ē ď Ł ø æ œ «x» ‹y› „Wort“ ‘a’ \"b\" a--b a---b don''t ,, x– y— z‐"
    " 50 % a_b & $x$ #1 {y} ~^ \\ < > | → ← ↔ ≥ ≤ ≠ ≈ ± × · ∞ ° ² µ α β Ω Δ € £ § © ¿ ¡ … −0.3"
    " `tick` !` ?` \\input{x} %comment ^^41"
)
HOSTILE = f"{WESTERN} 日本 Привет 🙂 ế \u202e"
COLUMNS: tuple[Column[Row], ...] = (
    Column("[name] _ %", lambda r: r["name"], right=False),
    Column("95 % CI", lambda r: "−1.5…+0.9"),
)
ROWS = [{"name": HOSTILE}, {"name": "[1, 2]"}, {"name": "*"}, {"name": ""}]
TABLE = Table(
    HOSTILE, COLUMNS, ROWS, [f"Note {HOSTILE}"], [("run", "checkpoint x; digest 0aff91; git 1a2b")],
    marks=[Marks("95 % CI", frozenset({1}), frozenset({1, 2}))], legend=("Bold: best.", "†: tied."),
    apart=[2],
)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("é ß Ł", r"\'{e} \ss{} \L{}"),
        ("ő Ç ñ å", r"\H{o} \c{C} \~{n} \r{a}"),
        ("e\u0301", r"\'{e}"),  # decomposed
        ('say "so" ("x")', r"say ``so'' (``x'')"),
        ("“so” ‘x’ „y“", r"``so'' `x' ,,y``"),
        ("--limit a–b −1", r"-\mbox{}-limit a--b $-$1"),
        ("50 % a_b & c #1 {x} ~ ^ \\", r"50 \% a\_b \& c \#1 \{x\} \textasciitilde{} "
         r"\textasciicircum{} \textbackslash{}"),
        ("video→question ≥ 2 α Ω", r"video$\rightarrow$question $\geq$ 2 $\alpha$ $\Omega$"),
        ("日 Ж 🙂", "[U+65E5] [U+0416] [U+1F642]"),
        ("don''t ''", r"don'\mbox{}'t '\mbox{}'"),
    ],
)  # fmt: skip
def test_signs_become_commands(text, expected):
    assert latex_text(text) == expected


def test_text_is_ascii_without_a_special_sign():
    text = latex_text(HOSTILE)
    assert text.isascii()
    plain = re.sub(r"\\[a-zA-Z]+(?![a-zA-Z])|\\[&%$#_{}`'^\"~=.,]|\$[^$]*\$|[{}]", "", text)
    assert not set("&%$#_~^\\<>") & set(plain)
    assert lacking(HOSTILE) == [*dict.fromkeys("日本Привет🙂ế\u202e")]


def test_intervals_have_brackets_and_no_cell_begins_with_one():
    assert latex_cell("−1.5…+0.9") == "{[}$-$1.5, +0.9]"
    assert latex_cell("−41.8 −52.0…−32.2 (n = 98)") == "$-$41.8 [$-$52.0, $-$32.2] (n = 98)"
    assert latex_cell("*x") == "{*}x" and latex_cell("a…b") == r"a\dots{}b"


def test_the_table_is_booktabs_with_marks_and_its_notes_are_comments():
    text = render([TABLE], "latex")
    code = [line for line in text.split("\n") if not line.startswith("%")]
    for rule, times in (("toprule", 1), ("midrule", 2), ("bottomrule", 1), ("hline", 0)):
        assert "\n".join(code).count(f"\\{rule}") == times
    rows = [line for line in code if line.endswith(r"\\")]
    assert [len(re.findall(r"(?<!\\)&", row)) for row in rows] == [1] * 5
    assert rows[2].endswith(r"& \textbf{{[}$-$1.5,}$^{\dagger}$ +0.9] \\")
    assert code[code.index(rows[2]) + 1] == r"\midrule"
    escaped = re.sub(r"\\[{}]", "", "\n".join(code))
    assert escaped.count("{") == escaped.count("}")
    assert f"% Note {WESTERN}" in text and "Note" not in "\n".join(code)
    assert "Bold: best. $\\dagger$: tied." in text
    unmarked = render([replace(TABLE, marks=[Marks("95 % CI", frozenset({1}))])], "latex")
    assert "Bold: best." in unmarked and "tied" not in unmarked
    assert "digest" not in text and "0aff91" not in text and "git 1a2b" in text
    assert "[U+65E5] is 日" in text


def pages(folder, body, engine):
    """What the compiled page says, as pdftotext reads it, and the engine's log."""
    (folder / "table.tex").write_text(
        "\\documentclass{article}\\usepackage{booktabs,graphicx}\\begin{document}\n"
        + body
        + "Table~\\ref{tab:x}.\\end{document}\n",
        encoding="utf-8",
    )
    for _ in range(2 if "\\label" in body else 1):
        done = subprocess.run(
            [engine, "-no-shell-escape", "-interaction=nonstopmode", "-halt-on-error", "table"],
            cwd=folder,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-2000:]
    assert (folder / "table.pdf").stat().st_size > 1000
    return done.stdout


@needs_latex
@pytest.mark.parametrize("engine", ENGINES)
def test_hostile_text_wide_tables_and_no_rows_compile(tmp_path, engine):
    wide = Table("Wide", [Column(f"c {k}", lambda r: "51.2 [49.3–53.1]") for k in range(14)], [{}])
    empty = Table("Empty", COLUMNS, [])
    log = pages(tmp_path, render([TABLE, wide, empty], "latex"), engine)
    assert "Missing character" not in log
    assert "Overfull \\hbox" not in log.partition("Wide")[2]


@needs_latex
def test_tables_of_runs_compile_with_a_label(tmp_path):
    right = [1] * 30 + [0] * 10
    records = [
        one
        for name, correct in (
            ("full", right),
            ("effective", [0, *right[1:]]),
            ("x&_%", right[::-1]),
        )
        for task in ("t_one", "t_two")
        for one in answers(name, correct, task=task, question_id=f"tvbench/{task}/{{:04d}}")
    ]
    runs = read_runs(write_run(tmp_path / "run", records, identity={"checkpoint": "größe_50%"}))
    pairs = compare_with_baseline(runs[0], runs[1:])
    tables = [
        leaderboard(runs),
        comparison_table(pairs),
        subtask_table(pairs),
        ablation_table(runs[0], runs[1:]),
    ]
    body = render([*tables, *(table.compacted() for table in tables)], "latex")
    log = pages(tmp_path, body.replace(r"\centering", r"\label{tab:x}\centering", 1), ENGINES[0])
    assert "undefined references" not in log and body.count(r"\begin{table}") == 8
