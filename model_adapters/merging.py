"""Video tokens take the places that their placeholders hold in a prompt."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor

from mapflow.model_adapters.interventions import Decoder


def merge_video(
    decoder: Decoder,
    input_ids: Int[Tensor, " n"],
    placeholder_id: int,
    video: Float[Tensor, "video_tokens hidden"],
) -> Float[Tensor, "n hidden"]:
    """Embeddings of an expanded prompt, with `video` in order where the placeholder stands."""
    ids = input_ids.to(decoder.device)
    shown = ids == placeholder_id
    # The placeholder need not have a row of its own in the embedding table.
    embeds = decoder.core.get_input_embeddings()(ids.masked_fill(shown, 0))
    embeds[shown] = video.to(embeds)
    return embeds
