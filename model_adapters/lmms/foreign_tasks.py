"""Tasks of lmms-eval that are not mapflow's: their own scoring, for every intervention.

A task's `process_results` turns an answer into metrics, and its aggregations turn the metrics of
all questions into scores. Both are called here, without a network and without randomness that
depends on anything but the question. A metric of one question is what the aggregation makes of that
question alone. The right option is the one letter that the task's own scoring counts as right.

A question is right or wrong if its scoring tells its options apart, or, without options, if the
metric is an accuracy that no near miss of an answer gets a part of. Others have scores only.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import io
import math
import random
import re
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from importlib import import_module
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import numpy as np
from lmms_eval.api.instance import Instance
from lmms_eval.api.reasoning import parse_reasoning_tags_config, strip_reasoning_tags
from loguru import logger

from mapflow.model_adapters.lmms.generation import task_generation
from mapflow.model_adapters.lmms.network_guard import network_client, no_network
from mapflow.results.contract.answers import NOT_ASKED
from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.foreign_prompt import document_options
from mapflow.results.contract.question import LETTERS
from mapflow.results.contract.visible_text import quoted
from mapflow.results.records.record import Record

REASONING_TAGS = '[["<think>", "</think>"], ["<analysis>", "</analysis>"]]'
"""The default of lmms-eval's --reasoning_tags."""
PROBES = ("A", "B", "yes", "no")
"""Answers that rules without a judge can score, in multiple choice and in yes/no tasks."""

NEAR_MISSES_OF = 8
"""Documents of a task without options whose near misses are scored."""

_ACCURACY = re.compile(r"(^|_)(acc|accuracy|exact_?match|em)($|_|\d)", re.IGNORECASE)
_GOLD = re.compile(
    r"((correct|right|true|gold|gt|ground_?truth)_?)?(answer|option|choice|label|target)(_?text)?"
    r"|gold|gt|ground_?truth",
    re.IGNORECASE,
)
"""Names of fields that hold a document's right answer."""

_scoring = threading.RLock()


class TaskScoring:
    """The scoring of one task.

    Args:
        task: lmms-eval's task object. Its `process_results` is replaced for the rest of the
            process: failed questions and questions without a score get no metric there either.
    """

    def __init__(self, task: Any) -> None:
        self.task = task
        self.name = str(task.config.task)
        self.unscored = 0
        own = inspect.unwrap(type(task).process_results)  # without five retries of two seconds
        self._process = own.__get__(task)
        task.process_results = self._process_for_lmms_eval
        if network_client(task.config.process_results) and find_spec("openai"):
            import_module("openai")  # so that the guard sees its constructors

    def metrics(self, document: Any, text: str) -> dict[str, Any] | None:
        """What the task's `process_results` makes of a model's text; None if it needs a network.

        Raises MapflowError if it fails.
        """
        responses = [self._filtered(text)]
        return self._metrics(document, responses)

    def scores(self, document: Any, text: str) -> dict[str, float] | None:
        """Metric → score of this answer; None if there is none. Raises as `metrics`."""
        found = self.metrics(document, text)
        return None if found is None else self.aggregate({k: [v] for k, v in found.items()}) or None

    def aggregate(self, values: Mapping[str, Sequence[Any]]) -> dict[str, float]:
        """The task's own scores over these metrics of questions.

        Metrics without an aggregation, and those that are only written to a file, are left out.
        """
        functions = self.task.aggregation()
        found: dict[str, float] = {}
        for metric, items in values.items():
            function = functions.get(metric)
            if function is None or network_client(function):
                continue
            with tempfile.TemporaryDirectory() as folder, _quiet(metric), no_network() as network:
                try:
                    named = inspect.signature(function).parameters
                except (TypeError, ValueError):
                    named = {}
                arguments = SimpleNamespace(output_path=folder, log_samples_suffix="", tasks="")
                try:
                    value = function([*items], **({"args": arguments} if "args" in named else {}))
                except Exception:
                    continue  # such as a correlation, which one question does not have
                number = _number(value)
                if number is not None and not network.made:
                    found[metric] = number
        return found

    def document(self, question_id: str) -> Any:
        """The row of one of the task's questions."""
        return self.task.eval_docs_no_media[int(question_id.rpartition("/")[2])]

    def right_options(
        self, document: Any, marks: Sequence[str], options: Sequence[str]
    ) -> list[int]:
        """The options whose mark alone counts as right; where no mark does, those whose text does.

        Empty without options and if nothing here can score them. Raises MapflowError if the
        document contradicts the task's scoring: its answer is the text of another option.
        """
        right: list[int] = []
        for answers in (marks, options):
            try:
                scores = [self.scores(document, answer) for answer in answers]
            except MapflowError:
                continue
            right = [i for i, one in enumerate(scores) if one and self._main(one) in (1, 100)]
            if right:
                break
        for field in self._fields_of_texts if right else ():
            stated = _places(document, field)
            if stated and not set(stated) & set(right):
                counted, meant = quoted(options[right[0]]), quoted(options[stated[0]])
                raise self._refused(
                    f"where a document's {field!r} is {meant}, the text of an option, its scoring"
                    f" counts the option {counted}, as if {meant} were a letter or a number"
                )
        return right

    def _check_texts(self) -> None:
        """Raises MapflowError if a document contradicts the scoring, see `right_options`."""
        for document in self.task.eval_docs_no_media if self._fields_of_texts else ():
            if any(len(str(document[field])) <= 2 for field in self._fields_of_texts):
                options = document_options(document)
                self.right_options(document, LETTERS[: len(options)], options)

    @cached_property
    def _fields_of_texts(self) -> list[str]:
        """Fields of the right answer that hold the text of an option in every document."""
        documents = self.task.eval_docs_no_media
        first = next(iter(documents), None)
        names = [name for name in first or () if _GOLD.fullmatch(name)]
        return [name for name in names if all(_places(one, name) for one in documents)]

    @cached_property
    def exact(self) -> bool:
        """Whether answers to questions without options are right or wrong, and nothing between.

        The metric must be an accuracy by name, and none of the near misses of the documents' own
        texts and numbers may get a part of it.
        """
        first = next((name for name in self.task.aggregation()), "")
        if not _ACCURACY.search(first):
            return False
        for _, document in zip(range(NEAR_MISSES_OF), self.task.eval_docs_no_media, strict=False):
            for answer in _near_misses(document):
                try:
                    scores = self.scores(document, answer)
                except MapflowError:
                    continue
                if scores and self._main(scores) not in (0, 1, 100):
                    return False
        return True

    def score(self, record: Record, document: Any, *, right_or_wrong: bool) -> Record:
        """The record with the task's own scores; an error record if its scoring fails.

        `correct` follows the task's first metric if the question is `right_or_wrong`; otherwise it
        is None, as for an answer that only a judge could score.
        """
        if record.error is not None:
            return record
        try:
            scores = self.scores(document, record.prediction or "")
        except MapflowError as error:
            fields = {name: getattr(record, name) for name in ("seed", "n_options", "target")}
            identity = {
                name: getattr(record, name)
                for name in ("question_id", "video_id", "task", "protocol", "intervention")
            }
            return Record(**identity, **fields, error=" ".join(str(error).split()))
        if scores is None:
            self.unscored += 1
            return replace(record, correct=None, scores=None)
        main = self._main(scores)
        decided = right_or_wrong and main in (0, 1, 100)
        return replace(record, correct=main > 0 if decided else None, scores=scores)

    def check(self) -> None:
        """Raises MapflowError for a task that these models cannot answer or nothing here can score.

        The message says why: settings of its generation, or a judge.
        """
        if self.task.OUTPUT_TYPE != "generate_until":
            raise MapflowError(
                f"task {self.name!r} has the output type {self.task.OUTPUT_TYPE!r}; models here"
                " answer tasks of type generate_until"
            )
        task_generation(self.task.config.generation_kwargs or {}, self.name)
        for metric, function in self.task.aggregation().items():
            if client := network_client(function):
                raise self._refused(
                    f"metric {metric!r} is computed over the network ({client}), which mapflow"
                    " never does"
                )
        process = self.task.config.process_results
        if (client := network_client(process)) and not self._scored_by_rules():
            raise self._refused(
                f"its answers are scored over the network ({client}), which mapflow never does"
            )
        self._check_texts()

    def _refused(self, why: str) -> MapflowError:
        return MapflowError(
            f"task {self.name!r} is refused: {why}; leave it out, or ask its questions as a task"
            " with rules of its own (`mapflow_…`)"
        )

    def _scored_by_rules(self) -> bool:
        """Whether some plain answer to the first question is scored without a judge."""
        document = next(iter(self.task.eval_docs_no_media), None)
        for probe in PROBES if document is not None else ():
            try:
                if self.metrics(document, probe) is not None:
                    return True
            except MapflowError:
                continue
        return False

    def _main(self, scores: Mapping[str, float]) -> float:
        """The value of the task's first metric."""
        return next(scores[name] for name in (*self.task.aggregation(), *scores) if name in scores)

    def _metrics(self, document: Any, responses: list[Any], **options: Any) -> Any:
        with _quiet(self.name, document), no_network() as network:
            try:
                found = self._process(document, responses, **options)
            except Exception as error:
                raise MapflowError(
                    f"task {self.name!r} cannot score the answer: {type(error).__name__}: {error}"
                ) from error
            if not network.made:
                return found
        return None

    def _filtered(self, text: str) -> Any:
        """The text as lmms-eval passes it on: first filter, no reasoning."""
        filters = getattr(self.task, "_filters", None) or []
        found: Any = text
        for one in filters[:1]:
            instance = Instance(
                request_type="generate_until",
                arguments=(),
                idx=0,
                metadata={"task": self.name, "doc_id": 0, "repeats": 1},
            )
            instance.resps = [text]
            one.apply([instance], None)
            found = instance.filtered_resps[one.name]
        tags = parse_reasoning_tags_config(
            REASONING_TAGS, getattr(self.task.config, "reasoning_tags", None)
        )
        return strip_reasoning_tags(found, tags) if tags and isinstance(found, str) else found

    def _process_for_lmms_eval(self, doc: Any, results: list[Any], **options: Any) -> Any:
        """`process_results` as lmms-eval calls it for the first intervention's answers."""
        if self.unscored or NOT_ASKED in map(_first_text, results):
            return {}
        found = self._metrics(doc, results, **options)
        return {} if found is None else found


_SCORINGS: dict[int, TaskScoring] = {}


def scoring_of(task: Any) -> TaskScoring:
    """The one scoring of a task object, checked. Raises as `TaskScoring.check`."""
    if id(task) not in _SCORINGS:
        scoring = TaskScoring(task)
        scoring.check()
        _SCORINGS[id(task)] = scoring
    return _SCORINGS[id(task)]


def own_scores(records: Sequence[Record]) -> dict[str, dict[str, dict[str, float]]]:
    """Intervention → task → metric → the task's own score over all of its answered questions.

    Tasks that this process has not asked, and those with an answer without a score, are left out.
    """
    tasks = {one.name: one for one in _SCORINGS.values()}
    values: dict[tuple[str, str], dict[str, list[Any]] | None] = {}
    for record in records:
        scoring, key = tasks.get(record.task), (record.intervention, record.task)
        if scoring is None or record.error is not None or values.get(key, {}) is None:
            continue
        document = scoring.document(record.question_id)
        found = scoring.metrics(document, record.prediction or "")
        if found is None:
            values[key] = None
            continue
        own = values.get(key) or {}
        for metric, value in found.items():
            own.setdefault(metric, []).append(value)
        values[key] = own
    scores: dict[str, dict[str, dict[str, float]]] = {}
    for (intervention, task), own in values.items():
        if own is not None and (found := tasks[task].aggregate(own)):
            scores.setdefault(intervention, {})[task] = found
    return scores


def _places(document: Mapping[str, Any], field: str) -> list[int]:
    """The options of a document whose text its field holds, in the options' own type."""
    value, options = document.get(field), document_options(document)
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return []
    if not isinstance(value, str) and not any(
        isinstance(one, list) and value in one for one in document.values()
    ):
        return []  # a number among texts is an index
    return [i for i, one in enumerate(options) if _plain(one) == _plain(str(value))]


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def _near_misses(document: Any) -> Iterator[str]:
    """Texts and numbers of a document, whole, in part and slightly off, as answers."""
    for value in document.values() if isinstance(document, Mapping) else ():
        text = str(value)
        if not isinstance(value, (str, int, float, list)) or not 0 < len(text) <= 500:
            continue
        words = text.split()
        half = " ".join(words[: (len(words) + 1) // 2])
        yield from (text, text[:-1], half, f"{text} {text}")
        with contextlib.suppress(ValueError):
            number = float(text)
            yield from (f"{changed:g}" for changed in (number + 1, number * 1.1, number * 0.8))


def _first_text(result: Any) -> Any:
    return result[0] if isinstance(result, list) and result else result


def _number(value: Any) -> float | None:
    if isinstance(value, (bool, int, float, np.number, np.bool_)) and math.isfinite(value):
        return float(value)
    return None


@contextmanager
def _quiet(name: str, document: Any = None) -> Iterator[None]:
    """One scoring at a time, without log lines, with random numbers drawn from the question."""
    fields = [
        f"{key}={value}"
        for key, value in (document.items() if isinstance(document, Mapping) else ())
        if isinstance(value, (str, int, float))
    ]
    digest = hashlib.sha256("\n".join([name, *fields]).encode(errors="replace")).digest()
    seed = int.from_bytes(digest[:4], "big")
    with _scoring, contextlib.redirect_stdout(io.StringIO()):
        states = random.getstate(), np.random.get_state()
        random.seed(seed)
        np.random.seed(seed)
        logger.disable("lmms_eval")
        try:
            yield
        finally:
            logger.enable("lmms_eval")
            random.setstate(states[0])
            np.random.set_state(states[1])
