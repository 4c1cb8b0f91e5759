"""Video tokens take the places that their placeholders hold in a prompt."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor

from mapflow.model_adapters.device_copies import to_device
from mapflow.model_adapters.interventions import Decoder


def merge_video(
    decoder: Decoder,
    input_ids: Int[Tensor, " n"],
    placeholder_id: int,
    video: Float[Tensor, "video_tokens hidden"],
) -> Float[Tensor, "n hidden"]:
    """Embeddings of an expanded prompt, with `video` in order where the placeholder stands."""
    shown = input_ids == placeholder_id
    # Where to put them is found on the CPU: a mask as an index would make the host wait for the device.
    rows = to_device(shown.nonzero()[:, 0], decoder.device)
    # The placeholder need not have a row of its own in the embedding table.
    embeds = decoder.core.get_input_embeddings()(
        to_device(input_ids.masked_fill(shown, 0), decoder.device)
    )
    embeds[rows] = video.to(embeds)
    return embeds
