"""A loaded model that answers questions under interventions: `mapflow.load()` and `Model.ask()`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mapflow.harness.api.answer import Answer
from mapflow.harness.api.display import html_table
from mapflow.model_adapters.checkpoints.folder import architecture_of, find_folder
from mapflow.model_adapters.families.model_args import COMMON
from mapflow.model_adapters.families.registry import (
    BUNDLED,
    BUNDLED_MODEL,
    family_for,
    load_model,
)
from mapflow.model_adapters.inference.answering import answer
from mapflow.model_adapters.inference.subject import fit_interventions
from mapflow.model_adapters.interventions import Intervention, parse_intervention
from mapflow.model_adapters.video_llm import VideoLLM
from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.files import read_json
from mapflow.results.contract.question import LETTERS, Clip, Question
from mapflow.results.contract.visible_text import counted
from mapflow.tasks.registry import BENCHMARKS

if TYPE_CHECKING:
    import torch


def load(
    path: str | Path | None = None,
    *,
    family: str | None = None,
    device: str | None = None,
    dtype: str | torch.dtype = "auto",
    lora: str | Path | None = None,
    model_args: Mapping[str, Any] | None = None,
    allow_uncut_layers: bool = False,
) -> Model:
    """Loads a VideoLLM.

    path: a checkpoint folder, or a hub name that is in the download cache; None loads the small
        bundled model.
    family: e.g. "mapflow_llava"; None chooses the family that reads the checkpoint's architecture.
    device: e.g. "cpu", "cuda:0", or "auto" to spread the model; None takes the GPU if there is one.
    dtype: precision of the weights, "auto" for that of the checkpoint.
    lora: folder of a LoRA adapter on top of the checkpoint.
    model_args: arguments that the family adds, e.g. {"vision_attention": "isolated"}.
    allow_uncut_layers: load also a model with layers that mix positions outside attention, where
        cuts do not act.

    Raises MapflowError if the checkpoint is missing, incomplete or of an unknown family, and for an
    argument that the family does not have.
    """
    name = family or (BUNDLED_MODEL if path is None else _family_of(path))
    bundled = path is None or Path(path).resolve().parent == BUNDLED.parent.resolve()
    if own := (model_args or {}).keys() & {*COMMON, "allow_uncut_layers"}:
        raise MapflowError(f"model_args names {min(own)!r}, which is an argument of load itself")
    video_llm = load_model(
        name,
        path,
        dtype=dtype,
        device=device,
        lora=lora,
        allow_uncut_layers=allow_uncut_layers,
        **(model_args or {}),
    )
    return Model(name, video_llm, wording="motion" if bundled else "tvbench")


class Model:
    """A loaded VideoLLM.

    Attributes: `family`, the adapter's name; `name` of the checkpoint; `n_layers` of its language
    model; `pathways`, its effective layer ranges, None if none are known; `video_llm`, the adapter
    itself, for code that builds on `mapflow.model_adapters`; `wording`, the benchmark whose prompt
    `ask` uses by default.
    """

    def __init__(self, family: str, video_llm: VideoLLM, wording: str = "tvbench") -> None:
        self.family, self.video_llm, self.wording = family, video_llm, wording
        self.name, self.pathways = video_llm.name, video_llm.pathways

    @property
    def n_layers(self) -> int:
        return self.video_llm.decoder.n_layers

    def ask(
        self,
        clip: str | Path | Question,
        question: str | None = None,
        options: Sequence[str] = (),
        *,
        intervention: str | Intervention = "full",
        correct: str | int | None = None,
        start: float | None = None,
        end: float | None = None,
        wording: str | None = None,
    ) -> Answer:
        """Asks one question about one clip, or a `Question` of a benchmark.

        clip: a video file, or a `Question` from `mapflow.load_questions`, which brings everything
            else but the intervention.
        question, options: the text and two to 26 options.
        intervention: e.g. "effective" or "video:question@6-20".
        correct: the right option's text or index, if known: it names the segments `true_option` and
            `false_options` and makes `answer.correct` known.
        start, end: seconds of the file that the question is about.
        wording: the benchmark whose prompt is used; by default "motion" for the bundled models,
            which were trained with it, and "tvbench" (the paper's prompt) for all others.

        Raises MapflowError for a missing or broken clip, a wrong number of options, an unknown
        route or segment, and layers that the model lacks.
        """
        known = True
        if isinstance(clip, Question):
            asked = clip
        else:
            known = correct is not None
            asked = self._question(clip, question, options, correct, start, end, wording)
        parsed = self.resolve(intervention)
        if not known and _needs_the_answer(parsed):
            raise MapflowError(
                f"intervention {str(parsed)!r} names the true option, which is unknown here;"
                " pass correct=, the right option's text or index"
            )
        prepared = self.video_llm.prepare(asked)
        ((record,),) = answer(self.video_llm, [prepared], [parsed])
        return Answer(self.video_llm, prepared, parsed, record, known)

    def resolve(self, intervention: str | Intervention) -> Intervention:
        """The parsed intervention, with layer ranges of `scale=MODEL` filled in.

        Raises MapflowError if it cannot be parsed, or needs layers or ranges that the model lacks.
        """
        parsed = parse_intervention(intervention) if isinstance(intervention, str) else intervention
        return fit_interventions([parsed], self.video_llm)[0]

    def _question(
        self,
        clip: str | Path,
        text: str | None,
        options: Sequence[str],
        correct: str | int | None,
        start: float | None,
        end: float | None,
        wording: str | None,
    ) -> Question:
        if not text or not text.strip():
            raise MapflowError("a question needs some text, e.g. 'Which way does it move?'")
        if not 2 <= len(options) <= len(LETTERS):
            raise MapflowError(
                f"a question needs 2 to {len(LETTERS)} options, not {len(options)}:"
                " pass e.g. ['left', 'right']"
            )
        path = Path(clip).expanduser()
        if not path.is_file():
            raise MapflowError(f"clip {str(path)!r} does not exist; name a video file")
        name = wording or self.wording
        if name not in BENCHMARKS:
            known = ", ".join(BENCHMARKS)
            raise MapflowError(f"wording {name!r} is not a benchmark; there are {known}")
        protocol = BENCHMARKS[name].protocol("paper")
        return Question(
            question_id=path.name,
            video_id=path.name,
            task="ask",
            clip=Clip(str(path), start, end),
            stem=text,
            options=tuple(map(str, options)),
            target=_index_of(correct, options),
            protocol="paper",
            prompts=protocol.prompts,
            n_frames=protocol.n_frames,
            max_new_tokens=protocol.max_new_tokens,
        )

    def __repr__(self) -> str:
        dtype = str(next(self.video_llm.model.parameters()).dtype).removeprefix("torch.")
        device = self.video_llm.decoder.device
        layers = counted(self.n_layers, "layer")
        return f"<Model {self.name}: {self.family}, {layers}, {dtype} on {device}>"

    def _repr_html_(self) -> str:
        ranges = str(self.pathways).replace(",", ", ") if self.pathways else "not known"
        rows = [["family", self.family], ["layers", str(self.n_layers)], ["pathways", ranges]]
        return html_table(["model", self.name], rows)


def _family_of(path: str | Path) -> str:
    """The family that reads this checkpoint's architecture.

    Raises MapflowError for a folder without config.json and for an architecture of no family.
    """
    folder = find_folder(path)
    architecture = architecture_of(read_json(folder / "config.json"))
    found = family_for(architecture)
    if found is None:
        raise MapflowError(
            f"checkpoint {str(folder)!r} has architecture {architecture!r}, which no family reads;"
            " pass family= if one does nevertheless"
        )
    return found


def _index_of(correct: str | int | None, options: Sequence[str]) -> int:
    """0 if unknown: `Answer` then reports no correctness."""
    if correct is None:
        return 0
    if isinstance(correct, int):
        if not 0 <= correct < len(options):
            raise MapflowError(f"correct={correct} is outside 0 to {len(options) - 1}, the options")
        return correct
    if correct not in options:
        raise MapflowError(f"correct={correct!r} is not among the options {', '.join(options)}")
    return list(options).index(correct)


def _needs_the_answer(intervention: Intervention) -> bool:
    return any(name in intervention.expression for name in ("true_option", "false_options"))
