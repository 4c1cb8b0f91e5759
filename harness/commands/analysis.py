"""`mapflow sweep`, `trace`, `lens`, `attention`, `discover`: any analysis of the registry."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from mapflow.harness.analyses.registry import Entry
from mapflow.harness.cli.arguments import chosen_model, chosen_model_args, chosen_questions
from mapflow.model_adapters.families.registry import family


@dataclass(frozen=True)
class AnalysisCommand:
    """The command of one analysis, with the two functions that every command has."""

    entry: Entry

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        self.entry.load().add_arguments(parser)

    def run(self, options: argparse.Namespace) -> int:
        """Exit code: 0 done, 1 an audit failed, 2 wrong usage, 3 some questions failed."""
        analysis = self.entry.load().from_options(options)
        if options.model_args:
            chosen_model_args(options)  # refuses a misspelt name before files are read
        questions = chosen_questions(options)
        analysis.check(questions)
        style = family(options.model).prompt_style
        for question in {one.task: one for one in questions}.values():
            question.prompt(style)  # refused before weights are loaded
        model = chosen_model(options)

        from mapflow.model_adapters.inference.subject import Subject

        return analysis.run(Subject(options.model, model, questions), options.output_path)
