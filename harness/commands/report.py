"""`mapflow report`: one HTML file about some runs, which needs no network."""

from __future__ import annotations

import argparse
from pathlib import Path

from mapflow.harness.cli.arguments import add_data_dir, at_least, chosen_margin
from mapflow.harness.cli.table_output import add_comparison, write_text
from mapflow.results.contract.errors import MapflowError


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
    # What is wrong with the arguments is said before statistics and models are imported.
    from mapflow.harness.analyses.registry import analyses_in
    from mapflow.harness.cli.chosen_runs import all_runs
    from mapflow.results.contract.files import check_writable
    from mapflow.results.records.record import Record

    check_writable(options.output, options.runs)
    margin = chosen_margin(options)
    if options.data_dir and not options.data_dir.is_dir():
        raise MapflowError(f"--data_dir {str(options.data_dir)!r} is not a folder")
    words = list(dict.fromkeys(str(Path(word)) if word else "" for word in options.runs))
    analyses = [(name, Path(word)) for word in words for name in analyses_in(Path(word))]
    analysed = {str(folder) for _, folder in analyses}
    runs = all_runs(
        [word for word in words if word not in analysed or (Path(word) / Record.FILE).is_file()]
    )

    from mapflow.harness.reporting.contents import report_contents
    from mapflow.model_adapters.progress import steps
    from mapflow.results.report import render_report

    questions = {question for run in runs for question in run.question_id.tolist()}
    compared = len(runs) - len({run.benchmark for run in runs})
    with steps("report", compared + len(analyses) + min(options.frames, len(questions))) as step:
        contents = report_contents(
            runs,
            analyses,
            title=options.title,
            baseline=options.baseline,
            margin=margin,
            intersect=options.intersect,
            data=options.data_dir,
            n_pictured=options.frames,
            step=step,
        )
        page = render_report(contents)
    write_text(options.output, page)
    return 0
