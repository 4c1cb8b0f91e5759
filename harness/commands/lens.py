"""`mapflow lens`: which words video tokens look like in every layer, and how many are spatial or temporal.

mapflow lens --limit 5 --output_path lens/
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from mapflow.harness.cli import arguments as analysis_arguments
from mapflow.results.contract.errors import MapflowError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    analysis_arguments.add_arguments(parser)
    parser.add_argument(
        "--topk",
        type=int,
        default=5,
        metavar="K",
        help="words a token and layer (default: %(default)s)",
    )
    parser.add_argument(
        "--raw-embeddings",
        action="store_true",
        help="as the released code: layers' inputs, un-normed, against the input embeddings (default: layers' outputs"
        " through the final norm and the head)",
    )
    parser.add_argument(
        "--words",
        type=Path,
        metavar="YAML",
        help="named word lists, e.g. 'spatial: [left, right]' (default: shipped)",
    )
    analysis_arguments.add_overlay(
        parser,
        "also write each patch's most probable word on the frames, for each of LAYERS (default: the last)",
    )


def run(options: argparse.Namespace) -> int:
    """Exit code: 0 done, 2 wrong usage, 3 some questions could not be asked."""
    from mapflow.harness.analyses.word_lists import SHIPPED, read_word_lists

    if options.topk < 1:
        raise MapflowError(f"--topk {options.topk} must be at least 1 word")
    words = read_word_lists(options.words or SHIPPED)
    interventions = analysis_arguments.chosen_interventions(options)
    documents = analysis_arguments.chosen_documents(options)
    model = analysis_arguments.chosen_model(options)
    weight: Any = model.decoder.core.get_input_embeddings().weight
    vocabulary = len(weight)
    if options.topk > vocabulary:
        raise MapflowError(
            f"--topk {options.topk} is more than the vocabulary's {vocabulary} tokens"
        )
    layers = analysis_arguments.overlay_layers(options, model, str(model.decoder.n_layers))

    from mapflow.harness.analyses.lens import Lens, failed, lens_question
    from mapflow.harness.analyses.overlays import draw_lens
    from mapflow.harness.analyses.run import Analysis, described, run_analysis
    from mapflow.harness.analyses.shard import Shard
    from mapflow.harness.cli.table_output import write_text
    from mapflow.results.contract.errors import QUESTIONS_MISSING
    from mapflow.results.records.lens import LensRecord, frequencies, frequency_csv, frequency_table

    lens = Lens(
        analysis_arguments.fitted(interventions, model), options.topk, options.raw_embeddings
    )
    analysis = Analysis(
        LensRecord,
        [str(one) for one in lens.interventions],
        {"raw_embeddings": options.raw_embeddings, "topk": options.topk},
        lambda prepared: lens_question(model, prepared, lens),
        lambda question, reason: failed(question, lens, reason),
        described(lens.interventions, model),
    )
    folder = Path(options.output_path)
    records = run_analysis(
        analysis,
        options.model,
        model,
        documents,
        options.protocol,
        folder,
        Shard.from_environment(),
    )
    if records is None:
        return 0  # the last process to finish writes the curves
    names = [str(one) for one in lens.interventions]
    found = frequencies(records, names, words)
    print(frequency_table(found))
    print(
        f"\nshares of the {options.topk} most probable words of every video token, in percent; records: {folder}"
    )
    write_text(folder / "frequency.csv", frequency_csv(found))
    if layers is not None:
        draw_lens(model, documents, records, names, layers, folder)
    return QUESTIONS_MISSING if any(record.error for record in records) else 0
