"""`mapflow sweep`, `trace`, `lens`, `attention`, `discover`: any analysis of the registry."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from mapflow.harness.analyses.registry import Entry
from mapflow.harness.cli.arguments import chosen_model, chosen_model_args, chosen_questions
from mapflow.harness.cli.early_checks import check_folder, check_wording, early_model


@dataclass(frozen=True)
class AnalysisCommand:
    """The command of one analysis, with the two functions that every command has."""

    entry: Entry

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        self.entry.load().add_arguments(parser)

    def run(self, options: argparse.Namespace) -> int:
        """Exit code: 0 done, 1 an audit failed, 2 wrong usage, 3 some questions failed."""
        analysis = self.entry.load().from_options(options)
        early = early_model(
            options.model,
            chosen_model_args(options),
            allow_uncut_layers=options.allow_uncut_layers,
        )
        if early.place is not None and early.place.n_layers is not None:
            analysis.check_depth(early.place.n_layers)
        described = early.described(analysis.early_interventions)
        questions = chosen_questions(options)
        analysis.check(questions)
        check_wording(options.model, questions)
        identity = early.identity(options.protocol)
        held = [  # until the command ends
            check_folder(folder, {**identity, **settings}, described, file)
            for folder, file, settings in analysis.run_folders(options.output_path)
        ]
        model = chosen_model(options)

        from mapflow.model_adapters.inference.subject import Subject

        code = analysis.run(Subject(options.model, model, questions), options.output_path)
        del held
        return code
