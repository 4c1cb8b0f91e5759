"""A small tokenizer in the style of Llama 2, with the words of the benchmark as its vocabulary.

Spaces become "▁", newlines and unknown characters fall back to bytes, and every text begins with
`<s>`. Words, digits
and punctuation never merge: an option's letter after "(" is one token, and no token spans two parts
of a prompt.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from string import printable

from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

IMAGE_TOKEN = "<image>"
SPECIAL_TOKENS = ("<unk>", "<s>", "</s>", "<pad>", IMAGE_TOKEN)
MAX_VOCABULARY = 1000
WORDS = r"▁?[A-Za-z]+|▁?[0-9]|▁?[^▁A-Za-z0-9]|▁"


def train_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """A byte-fallback BPE: every word of `texts`, with its leading space, becomes one token."""
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(WORDS), "isolated")
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=MAX_VOCABULARY,
        special_tokens=[*SPECIAL_TOKENS, *byte_tokens],
        initial_alphabet=[character for character in printable if not character.isspace()] + ["▁"],
        show_progress=False,
    )
    # Newlines are bytes, as in Llama 2: without them in the alphabet, no newline token arises.
    lines = {line for text in texts for line in text.split("\n")}
    tokenizer.train_from_iterator(sorted(lines), trainer)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), tokenizer.normalizer])
    begin = tokenizer.token_to_id("<s>")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", begin)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=_without_special_bytes(tokenizer),
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        additional_special_tokens=[IMAGE_TOKEN],
        clean_up_tokenization_spaces=False,
    )


def _without_special_bytes(tokenizer: Tokenizer) -> Tokenizer:
    """Makes byte tokens ordinary tokens: a literal "<0x0A>" in a text is six characters.

    The trainer can reserve ids for special tokens only.
    """
    state = json.loads(tokenizer.to_str())
    state["added_tokens"] = [
        token for token in state["added_tokens"] if token["content"] in SPECIAL_TOKENS
    ]
    return Tokenizer.from_str(json.dumps(state))
