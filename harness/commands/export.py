"""`mapflow export`: a run in the format of another tool."""

from __future__ import annotations

import argparse
import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING

from mapflow.harness.cli.arguments import add_data_dir, add_margin, chosen_margin
from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.files import check_writable
from mapflow.results.contract.visible_text import counted, quoted

if TYPE_CHECKING:
    from mapflow.results.exchange.content import Exported

SHOWN = 6
"""Names of written files that are printed; a folder may get hundreds."""

UNUSED = {"baseline": None, "dataset": None, "margin": 2.0}
"""Flags that only some formats take, and their values where they are not given."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from mapflow.results.exchange.formats import FORMATS

    parser.add_argument(
        "run",
        metavar="RUN",
        help="folder of a run, folder:intervention, or logs of lmms-eval, lm-evaluation-harness"
        " or Inspect; for csv and parquet also the folder of an analysis",
    )
    parser.add_argument(
        "--to",
        required=True,
        choices=list(FORMATS),
        metavar="FORMAT",
        help="; ".join(f"{name}: {one.help}" for name, one in FORMATS.items()),
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="OUT", help="a file or folder"
    )
    parser.add_argument(
        "--baseline", metavar="INTERVENTION", help="of paired differences (default: the first)"
    )
    parser.add_argument(
        "--dataset",
        metavar="OWNER/NAME[:TASK]",
        help="data set on the Hugging Face Hub, where mapflow does not know it",
    )
    add_data_dir(parser)
    add_margin(parser)


def run(options: argparse.Namespace) -> int:
    from mapflow.results.exchange.formats import FORMATS

    if options.dataset and not re.fullmatch(r"[\w.-]+/[\w.-]+(?::[\w.-]+)?", options.dataset):
        raise MapflowError(
            f"--dataset {quoted(options.dataset)} is not OWNER/NAME or OWNER/NAME:TASK"
        )
    chosen = FORMATS[options.to]
    if options.output.is_file():
        check_writable(options.output, [options.run])
    suffix = options.output.suffix.lower().removeprefix(".")
    if suffix in FORMATS and suffix != options.to:
        raise MapflowError(
            f"{quoted(str(options.output))} would hold {options.to}: name it otherwise, or export"
            f" --to {suffix}"
        )
    for flag, default in UNUSED.items():
        if getattr(options, flag) != default and flag not in chosen.takes:
            takers = " and ".join(name for name, one in FORMATS.items() if flag in one.takes)
            raise MapflowError(f"--{flag} has no effect on {options.to}, only on {takers}")
    chosen_margin(options)
    if not options.output.absolute().parent.is_dir():
        raise MapflowError(
            f"{quoted(str(options.output), 300)} cannot be written: its folder does not exist"
        )
    files = chosen.write((_scored if chosen.scored else _records)(options), options.output)
    for file in files[:SHOWN]:
        print(f"written: {file}")
    if len(files) > SHOWN:
        print(f"and {counted(len(files) - SHOWN, 'other file')}")
    return 0


def _records(options: argparse.Namespace) -> Exported:
    """All records of a run, a log or an analysis, also of answers that nothing here scores."""
    from mapflow.harness.analyses.registry import question_analyses
    from mapflow.harness.cli.chosen_runs import named_place, recorded_name
    from mapflow.results.records.record import Record
    from mapflow.results.runs.folder import reported_records
    from mapflow.results.runs.manifest import read_manifest
    from mapflow.results.runs.run import open_records

    place, intervention = named_place(options.run)
    kinds = [Record, *(one.RECORD for one in question_analyses().values())]
    kind = next((one for one in kinds if (place / one.FILE).is_file()), None)
    if kind is None:
        manifest, records = open_records(place)  # says what is missing
        found = list(records)
    else:
        manifest, found = read_manifest(place), reported_records(place, kind)
    if not found:
        raise MapflowError(f"{str(place)!r} holds no answers yet; there is nothing to export")
    names = dict.fromkeys(one.key[1] for one in found)
    wanted = recorded_name(names, intervention)
    named = [one for one in found if not intervention or one.key[1] == wanted]
    if not named:
        there = ", ".join(names)
        raise MapflowError(f"{str(place)!r} has nothing on {quoted(intervention)}; it has {there}")
    from mapflow.results.exchange.content import Exported

    return Exported(place, [], named, manifest)


def _scored(options: argparse.Namespace) -> Exported:
    """The runs of the place, with what else their formats hold."""
    from mapflow.harness.analyses.registry import question_analyses
    from mapflow.harness.cli.chosen_runs import all_runs, named_place, with_baseline
    from mapflow.results.records.record import Record
    from mapflow.results.runs.folder import reported_records
    from mapflow.results.runs.run import left_out_notes, open_records
    from mapflow.tasks.registry import benchmark_repositories

    place, _ = named_place(options.run)
    own_kind = (place / Record.FILE).is_file()
    files = [one.RECORD.FILE for one in question_analyses().values()]
    if not own_kind and any((place / file).is_file() for file in files):
        raise MapflowError(
            f"{str(place)!r} is the folder of an analysis, which has no answers to score: export it"
            " --to csv or --to parquet"
        )
    runs = all_runs([options.run])
    manifest, found = open_records(place)
    if own_kind:
        found = iter(reported_records(place))
    chosen = {(run.intervention, run.benchmark) for run in runs}
    records = [one for one in found if (one.intervention, one.benchmark) in chosen]
    own = {run.benchmark: options.dataset for run in runs if options.dataset}
    if len(own) > 1:
        raise MapflowError(
            f"--dataset {options.dataset} is one data set, and {quoted(options.run)} holds"
            f" {len(own)} benchmarks ({', '.join(own)}); export their folders apart"
        )
    for note in left_out_notes(runs):
        logging.getLogger(__name__).warning(note)

    from mapflow.harness.reporting.viewer import known_questions
    from mapflow.results.exchange.content import Exported

    return Exported(
        place,
        with_baseline(runs, options.baseline),
        records,
        manifest,
        known_questions([record.question_id for record in records], options.data_dir)[0],
        {**benchmark_repositories(), **own},
        chosen_margin(options),
    )
