"""One answer, with what produced it: probabilities, edges, the prompt's layout, attention."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from mapflow.harness.api.display import html_table
from mapflow.model_adapters.interventions import Intervention, LayerSpan
from mapflow.model_adapters.interventions.execution.attention_weights import attention_weights
from mapflow.model_adapters.video_llm import Prepared, VideoLLM
from mapflow.results.contract.errors import MapflowError
from mapflow.results.records.record import Record

if TYPE_CHECKING:
    import xarray


class Answer:
    """A model's answer to one question under one intervention.

    Attributes:
        prediction: the option's text; the decoded token if it names no option.
        letter: the decoded answer, e.g. "A".
        probabilities: option text -> probability of its letter as the next token.
        probability: that of the predicted token over the whole vocabulary.
        correct: None if the right option is unknown.
        edges_kept, edges_total: attention edges (query-key pairs) over all layers, for one head.
        layout: the name of every position of the prompt.
        intervention, record: what was applied, and the record as a run would store it.
    """

    def __init__(
        self,
        model: VideoLLM,
        prepared: Prepared,
        intervention: Intervention,
        record: Record,
        known: bool,
    ) -> None:
        if record.error is not None:
            raise MapflowError(f"{prepared.question.question_id}: {record.error}")
        self._model, self._prepared, self.record = model, prepared, record
        self.intervention, self.layout = intervention, prepared.layout
        question = prepared.question
        self.letter = record.prediction or ""
        named = dict(zip(question.letters, question.options, strict=True))
        self.prediction = named.get(self.letter, self.letter)
        found = record.option_probs or {}
        self.probabilities = {named[letter]: probability for letter, probability in found.items()}
        self.probability = record.p_answer
        self.correct = record.correct if known else None
        self.edges_kept, self.edges_total = record.edges_kept or 0, record.edges_total or 0

    def attention(
        self,
        rows: str = "last",
        layers: tuple[int, int] | None = None,
        heads: Literal["mean", "all"] = "mean",
    ) -> xarray.DataArray:
        """Attention weights that positions of a segment pay to every position of the prompt.

        rows: the segment whose query positions are averaged, e.g. "question" or "option[1]".
        layers: first and last layer, 1-based and inclusive; None for all that run.
        heads: "mean" averages over heads, "all" keeps them.

        Returns an array with axes `layer`, (`head`,) `key`; the coordinate `segment` names each key
        position. Weights are those of the reference implementation, in float32, under the answer's
        intervention; they sum to 1 over keys, to less where the cuts leave positions without keys.
        Raises MapflowError for an unknown segment and for layers that the model lacks.
        """
        import numpy as np
        import xarray

        decoder, layout = self._model.decoder, self.layout
        if heads not in ("mean", "all"):
            raise MapflowError(f"heads={heads!r} is unknown; pass 'mean' or 'all'")
        (inputs,) = self._model.embed([self._prepared])
        compiled = self._model.compile(self.intervention, self._prepared, inputs)
        span = LayerSpan(*(layers or (1, compiled.depth)))
        chosen = span.indices(decoder.n_layers)
        weights = attention_weights(
            decoder, inputs, compiled, layout.positions(rows), by_head=heads == "all"
        ).numpy()
        names = np.array([str(segment) for segment in layout.segments])[layout.segment_of]
        axes = ("layer", "key") if heads == "mean" else ("layer", "head", "key")
        coordinates = {
            "layer": np.arange(1, len(weights) + 1),
            "key": np.arange(len(layout)),
            "segment": ("key", names),
        }
        if heads == "all":
            coordinates["head"] = np.arange(1, weights.shape[1] + 1)
        array = xarray.DataArray(weights, coordinates, axes, name=f"attention of {rows}")
        return array.sel(layer=[index + 1 for index in chosen if index < compiled.depth])

    def __repr__(self) -> str:
        kept = self.edges_kept / self.edges_total if self.edges_total else 1.0
        probability = "" if self.probability is None else f", p={self.probability:.3f}"
        what = f"{self.prediction!r}{probability} under {self.intervention}"
        return f"<Answer {what}, {kept:.1%} of edges>"

    def _repr_html_(self) -> str:
        rows = [[option, f"{p:.3f}"] for option, p in self.probabilities.items()]
        kept = f"{self.edges_kept:,} of {self.edges_total:,} edges kept"
        return html_table([f"{self.prediction} ({self.intervention})", "probability"], rows) + (
            f"<p>{kept}</p>"
        )
