"""`mapflow report`: one HTML file about some runs, which needs no network."""

from __future__ import annotations

import argparse
from pathlib import Path

from mapflow.harness.cli.arguments import add_data_dir, at_least, chosen_margin
from mapflow.harness.cli.table_output import add_comparison, write_text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="folders of runs, of analyses (sweep, trace, lens, attention, discover),"
        " folder:intervention, logs of lmms-eval, lm-evaluation-harness or Inspect",
    )
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("report.html"), help="default: %(default)s"
    )
    parser.add_argument("--baseline", metavar="INTERVENTION", help="default: each folder's first")
    parser.add_argument("--title", default="mapflow report", help="default: %(default)s")
    parser.add_argument(
        "--frames",
        type=at_least(0),
        default=40,
        metavar="N",
        help="embed the frames of so many questions: flipped ones first, then wrong, then least"
        " sure (default: 40)",
    )
    add_data_dir(parser)
    add_comparison(parser)


def run(options: argparse.Namespace) -> int:
    from mapflow.harness.cli.chosen_runs import all_runs
    from mapflow.harness.reporting.analyses import analyses_in
    from mapflow.harness.reporting.contents import report_contents
    from mapflow.results.contract.files import check_writable
    from mapflow.results.records.record import Record
    from mapflow.results.report import render_report

    check_writable(options.output)
    words = list(dict.fromkeys(options.runs))
    analyses = {word: analyses_in(Path(word).expanduser()) for word in words}
    runs = [
        word
        for word in words
        if not analyses[word] or (Path(word).expanduser() / Record.FILE).is_file()
    ]
    contents = report_contents(
        all_runs(runs),
        [(name, Path(word).expanduser()) for word in words for name in analyses[word]],
        title=options.title,
        baseline=options.baseline,
        margin=chosen_margin(options),
        intersect=options.intersect,
        data=options.data_dir,
        n_pictured=options.frames,
    )
    write_text(options.output, render_report(contents))
    return 0
