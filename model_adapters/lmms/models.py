"""The model classes of lmms-eval: from its requests to answers, and to the records of the run.

One class serves all families. lmms-eval receives the answer under the first intervention as text,
and those under the others if it asks again (`requested.Request`).
The answers under all interventions are appended to the records at once, because lmms-eval writes
nothing before it ends.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from lmms_eval.api.instance import Instance
from lmms_eval.api.model import lmms

from mapflow.model_adapters.families.model_args import REMOTE_CODE
from mapflow.model_adapters.families.registry import checkpoint, families, load_model
from mapflow.model_adapters.inference import answering
from mapflow.model_adapters.inference.batch_size import read_batch_size
from mapflow.model_adapters.inference.identity import package_version
from mapflow.model_adapters.inference.run_loop import answer_questions
from mapflow.model_adapters.inference.subject import fit_interventions, run_identity
from mapflow.model_adapters.interventions import parse_interventions
from mapflow.model_adapters.lmms.foreign_tasks import TaskScoring, scoring_of
from mapflow.model_adapters.lmms.generation import DEFAULT_LENGTH, Generation, task_generation
from mapflow.model_adapters.lmms.requested import current_request, requested_generation
from mapflow.results.contract.answers import NOT_ASKED
from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.foreign_prompt import foreign_question
from mapflow.results.contract.question import WRITTEN_LENGTH, Clip, Question, QuestionVideo
from mapflow.results.contract.visible_text import counted
from mapflow.results.records.record import Record
from mapflow.results.runs.folder import RunFolder, read_records
from mapflow.results.runs.provenance import git_state

LOG = logging.getLogger(__name__)


class _Told(NamedTuple):
    """What lmms-eval is told of one record."""

    prediction: str | None
    correct: bool | None
    valid: bool | None

    @classmethod
    def of(cls, record: Record) -> _Told:
        return cls(record.prediction, record.correct, record.valid)


class MapflowModel(lmms):
    """One family in lmms-eval. The arguments are `--model_args`; values may be strings.

    Args:
        pretrained: checkpoint folder; by default the small bundled model, if the family has one.
        intervention: one or more in the one-line form, `;` between them and inside
            (`full;random:seed=1`).
        records: folder for records.jsonl and manifest.json; by default no records are written.
        batch_size, max_batch_size: see `inference.batch_size.read_batch_size`.
        dtype, device, device_map: see `families.registry.load_model`.
        lora: folder of a LoRA adapter on top of the checkpoint.
        allow_uncut_layers: see `load_model`.
    """

    model_name: ClassVar[str]
    is_simple = True

    def __init__(
        self,
        pretrained: str | None = None,
        intervention: str = "full",
        records: str | None = None,
        batch_size: int | str = 1,
        dtype: str = "auto",
        device: str | None = None,
        device_map: str | None = None,
        lora: str | None = None,
        max_batch_size: int | str | None = None,
        allow_uncut_layers: bool | str = False,
        **options: Any,
    ) -> None:
        super().__init__()
        if "trust_remote_code" in options:
            raise MapflowError(REMOTE_CODE)
        # kept, since lmms-eval scores answers in threads, which have no such context
        request = self._request = current_request()
        self.interventions = request.interventions if request else ()
        self.interventions = self.interventions or parse_interventions([str(intervention)])
        self.batch_size = read_batch_size(batch_size, max_batch_size)
        folder = checkpoint(self.model_name, pretrained)
        if pretrained is None:
            LOG.info(
                "%s: no pretrained= given, so the small bundled model runs (%s)",
                self.model_name,
                folder.name,
            )
        self.video_llm = load_model(
            self.model_name,
            pretrained,
            dtype=dtype,
            device=device_map or device,
            lora=lora,
            allow_uncut_layers=str(allow_uncut_layers).lower() == "true",
            **options,
        )
        n_layers = self.video_llm.decoder.n_layers
        self.interventions = fit_interventions(self.interventions, self.video_llm)
        for one in self.interventions:
            if one.scaled_from:
                said = f"layer ranges of {one.scaled_from}, scaled to {counted(n_layers, 'layer')}"
                LOG.info("%s: %s takes the %s: %s", self.model_name, one, said, one.describe(None))
        self._scored: dict[str, tuple[TaskScoring, Any, bool]] = {}
        self._ids: dict[tuple[str, str, int], str] = {}
        self._told: dict[str, tuple[_Told, ...]] = {}
        self.device = self.video_llm.decoder.device  # read by lmms-eval if several processes run
        self.run = RunFolder(Path(records), self._identity(), self._about()) if records else None
        if torch.distributed.is_initialized():
            # lmms-eval starts the process group and never ends it. At the interpreter's exit gloo's
            # threads may still hold tensors, and now and then a rank that has finished aborts
            # (pytorch#190489).
            atexit.register(torch.distributed.destroy_process_group)

    @classmethod
    def create_from_arg_string(
        cls, arg_string: str, additional_config: dict[str, Any] | None = None
    ) -> MapflowModel:
        """The model that the current request has loaded already, else a new one."""
        request = current_request()
        if request is None:
            return super().create_from_arg_string(arg_string, additional_config)
        if request.model is None:
            request.model = super().create_from_arg_string(arg_string, additional_config)
        return request.model

    def _identity(self) -> dict[str, Any]:
        """Values that records of one run share. The questions are chosen by lmms-eval."""
        identity = run_identity(
            self.model_name, self.video_llm, os.environ.get("MAPFLOW_PROTOCOL", "paper")
        )
        versions = {**identity["versions"], "lmms-eval": package_version("lmms-eval")}
        generation = requested_generation() or Generation()
        chosen = {} if generation == Generation() else {"generation": asdict(generation)}
        return identity | {"versions": versions} | chosen

    def _about(self) -> dict[str, Any]:
        described = {str(i): i.describe(self.video_llm.pathways) for i in self.interventions}
        return {
            "interventions": described,
            "frames_per_segment": self.video_llm.frames_per_segment,
            "device": str(self.device),
            "git": git_state(),
            "command": sys.orig_argv,
        }

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """Each request's answer under the intervention that is reported, NOT_ASKED for failed
        questions. All interventions are asked the first time.

        Raises MapflowError for a task that cannot be answered or scored here.
        """
        reported = self._reported()
        if reported == 0:
            self._ask(requests)
        known = (self._told.get(self._ids[self._key(request)]) for request in requests)
        answers = [told[reported].prediction if told else None for told in known]
        return [NOT_ASKED if text is None else text for text in answers]

    @staticmethod
    def _key(request: Instance) -> tuple[str, str, int]:
        """Task, split and number of a request's document."""
        doc_id, task, split = request.args[-3:]
        return task, split, doc_id

    def _reported(self) -> int:
        """Position of the intervention whose answers lmms-eval gets now."""
        return self._request.reported if self._request else 0

    def _ask(self, requests: list[Instance]) -> None:
        """Every question under all interventions, except those that the records answer."""
        questions: list[Question] = []
        known = self._answered()
        failed: list[tuple[Question, str]] = []
        asked: list[tuple[str, str]] = []
        sizes: dict[str, int] = {}
        for request in requests:
            question, trouble = self._question(request)
            self._ids[self._key(request)] = question.question_id
            asked.append((question.task, question.question_id))
            task, split = request.args[-2:]
            sizes[question.task] = len(self.task_dict[task][split])
            if trouble is None and self.run is not None:
                self.run.check_unchanged(question)
            if question.question_id in known:
                continue
            if trouble is None:
                questions.append(question)
            else:
                failed.append((question, trouble))
        if self.run is not None:
            self.run.note_asked(asked, sizes)  # before the first record: readers rely on it
        for question, trouble in failed:
            self._fail(question, trouble)
        for question, records in answer_questions(
            self.video_llm,
            questions,
            self.interventions,
            self.batch_size,
            self.run,
            show=self.rank == 0,
            finish=self._finish,
        ):
            known[question.question_id] = tuple(map(_Told.of, records))
        self._told |= known
        if self.run is not None and self.rank == 0 and questions:
            used = {"asked": self.batch_size.asked, "largest": self.batch_size.largest}
            self.run.describe({"batch_size": used})

    def _answered(self) -> dict[str, tuple[_Told, ...]]:
        """Question id → what the records say, of completely answered questions."""
        if self.run is None or not self.run.answered:
            return {}
        names = [str(one) for one in self.interventions]
        found: dict[str, dict[str, _Told]] = {}
        for record in read_records(self.run.folder):
            key = (record.question_id, record.intervention)
            if record.intervention in names and key in self.run.answered:
                found.setdefault(record.question_id, {})[record.intervention] = _Told.of(record)
        return {
            question: tuple(told[name] for name in names)
            for question, told in found.items()
            if len(told) == len(names)
        }

    def _fail(self, question: Question, reason: str) -> None:
        records = [answering.failed(question, one, reason) for one in self.interventions]
        if self.run is not None:
            self.run.append(records)

    def _finish(self, record: Record) -> Record:
        """The record of another task's question with the task's own scores."""
        if record.question_id not in self._scored:
            return record
        scoring, document, right_or_wrong = self._scored[record.question_id]
        return scoring.score(record, document, right_or_wrong=right_or_wrong)

    def _question(self, request: Instance) -> tuple[Question, str | None]:
        """The question of one of our tasks as it is; for other tasks it is parsed from the prompt.

        The second value says why the question cannot be asked, if so. Raises MapflowError for a
        task that cannot be asked or scored.
        """
        _, options, doc_to_visual, doc_id, task, split = request.args
        document = self.task_dict[task][split][doc_id]
        owner = getattr(doc_to_visual, "__self__", None)
        given = getattr(getattr(owner, "config", None), "doc_to_visual", None)
        show = getattr(given, "whole", doc_to_visual)  # our tasks' videos, not cut into files
        try:
            visuals = show(document)
        except MapflowError:
            raise
        except (Exception, SystemExit) as error:  # many tasks exit where a video is missing
            return self._foreign(request, document, "")[0], f"{type(error).__name__}: {error}"
        if len(visuals) != 1:
            raise MapflowError(
                f"task {task!r} shows {counted(len(visuals), 'visual')} in a question; one video"
                f" is supported"
            )
        shown = visuals[0]
        own = shown.question if isinstance(shown, QuestionVideo) else shown
        if isinstance(own, Question):
            return self._own(own, options, owner), None
        if not isinstance(visuals[0], (str, Path)):
            raise MapflowError(
                f"task {task!r} shows a {type(visuals[0]).__name__}, not a video file, which models"
                " here read themselves; leave it out"
            )
        return self._foreign(request, document, str(visuals[0]))

    def _own(self, question: Question, options: dict[str, Any], task: Any) -> Question:
        """One of our questions, with the command's settings of generation.

        Without mapflow's command, settings show where they differ from those of our task files.
        """
        chosen = requested_generation()
        if chosen is None:
            length = int(options.get("max_new_tokens", WRITTEN_LENGTH))
            chosen = Generation() if length == WRITTEN_LENGTH else Generation(length)
            if chosen != Generation() and self.run is not None:
                raise MapflowError(
                    "gen_kwargs together with records= need mapflow's own command: lmms_eval"
                    " --gen_kwargs … --output_path …"
                )
        question = with_generation(question, chosen)
        if task is not None:
            self._grade_as_recorded(task)
        return question

    def _grade_as_recorded(self, task: Any) -> None:
        """lmms-eval counts a task's answers as the records do, by the protocol's rule.

        Our tasks themselves parse whatever a model writes, as other models need it.
        """
        if "process_results" in vars(task):
            return
        original = task.process_results

        def process_results(doc: Any, results: Any, **options: Any) -> dict[str, Any]:
            metrics = original(doc, results, **options)
            known = self._told.get(metrics["answer"]["question_id"])
            told = known[self._reported()] if known else None
            if told is None or told.correct is None:
                return metrics
            own = dict.fromkeys(metrics, float(told.correct))
            return own | {"answer": metrics["answer"] | {"valid": told.valid}}

        task.process_results = process_results

    def _foreign(self, request: Instance, document: Any, video: str) -> tuple[Question, str | None]:
        """A question of another task, and why its prompt is not understood, if so."""
        prompt, options, doc_to_visual, doc_id, task, _ = request.args
        generation = task_generation(options, task)
        owner = getattr(doc_to_visual, "__self__", None)
        scoring = None if owner is None else scoring_of(owner)

        def parsed(prompt: str, document: Any) -> Question:
            return foreign_question(
                prompt,
                question_id=f"{task}/{doc_id:06d}",
                video_id=Path(video).name,
                task=task,
                clip=Clip(video),
                document=document,
                max_new_tokens=generation.max_new_tokens or DEFAULT_LENGTH,
                until=generation.until,
            )

        try:
            question = parsed(prompt, document)
        except MapflowError as error:
            return parsed("", {}), str(error)  # what an error record needs
        if scoring is None:
            return question, None
        right = scoring.right_options(document, question.letters, question.options)
        if question.options:
            right_or_wrong = 0 < len(right) < len(question.options)
        else:
            right_or_wrong = scoring.exact
        self._scored[question.question_id] = scoring, document, right_or_wrong
        return replace(question, target=right[0]) if len(right) == 1 else question, None

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Not supported: upstream's likelihood requests have no video position to score; use
        `generate_until`."""
        raise MapflowError(
            f"{self.model_name} scores options inside generate_until; use tasks with that output"
            " type"
        )

    def generate_until_multi_round(self, requests: list[Instance]) -> list[str]:
        """Not supported: every question is one round."""
        raise MapflowError(
            f"{self.model_name} answers in one round; use tasks with output type generate_until"
        )


def with_generation(question: Question, generation: Generation) -> Question:
    """The question, answered with the command's settings; scored as its protocol says."""
    length = generation.max_new_tokens or question.max_new_tokens
    return replace(
        question,
        max_new_tokens=length,
        first_token=question.max_new_tokens == 1 and length > 1,
        until=generation.until,
    )


@cache
def model_class(name: str) -> type[MapflowModel]:
    """The class that lmms-eval instantiates for a family."""
    return type(name, (MapflowModel,), {"model_name": name, "__module__": __name__})


def __getattr__(name: str) -> type[MapflowModel]:
    """`mapflow_llava` and so on: manifests give lmms-eval an import path, not a class."""
    if name in families():
        return model_class(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
