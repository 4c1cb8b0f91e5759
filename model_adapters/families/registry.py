"""Lazy registry of model families: names and import paths, no model code.

lmms-eval reads it whenever it starts, and so does every command's `--help`: it imports neither
torch nor transformers before a model is asked for. This package's families are the table `OWN`.
Other packages announce theirs through the entry point group `mapflow.model_families`
(model_adapters/README.md shows how).
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from mapflow.model_adapters.families.model_args import (
    Argument,
    checked_options,
    class_arguments,
)
from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.visible_text import nearest, quoted
from mapflow.results.runs.model_names import variant

if TYPE_CHECKING:
    import torch

    from mapflow.model_adapters.video_llm import VideoLLM
    from mapflow.results.contract.question import PromptStyle

GROUP = "mapflow.model_families"
PREFIX = "mapflow_"

BUNDLED_MODEL = "mapflow_llava"
BUNDLED = Path(__file__).parents[1] / "mini" / "pathways"
"""The default checkpoint of `BUNDLED_MODEL`: small, trained with pathway regularisation."""


@dataclass(frozen=True)
class Card:
    """What a family's class says about itself, readable without importing it and torch.

    Attributes: as of `VideoLLM`; `architectures` is None where only transformers knows them.
    """

    prompt_style: PromptStyle
    architectures: tuple[str, ...] | None
    arguments: Mapping[str, Argument] = field(default_factory=dict)

    @classmethod
    def of(cls, model: type[VideoLLM]) -> Card:
        """The card of a class that is imported already."""
        return cls(model.prompt_style, model.architectures or None, class_arguments(model))


@dataclass(frozen=True)
class Family:
    """One model family.

    Attributes:
        name: as users type it (`--model mapflow_llava`).
        path: where its `VideoLLM` class is, "package.module:Class".
        distribution: the installed package that announces it.
        problem: why the family cannot be used; None if nothing is known to be wrong.
        written_card: `card()` of this package's families, so that mistakes are refused at once.
    """

    name: str
    path: str
    distribution: str = "mapflow"
    problem: str | None = None
    written_card: Card | None = None

    def card(self) -> Card:
        """The family's card. Raises MapflowError as `model_class`, which other packages' need."""
        if self.written_card is None or self.problem:
            return Card.of(self.model_class())
        return self.written_card

    def model_class(self) -> type[VideoLLM]:
        """Imports the class. Raises MapflowError naming the distribution if that fails."""
        from mapflow.model_adapters.video_llm import VideoLLM

        if self.problem:
            raise MapflowError(self.problem)
        subject = f"model family {self.name} of package {self.distribution}"
        module, _, attribute = self.path.partition(":")
        try:
            found = getattr(importlib.import_module(module), attribute)
        except Exception as error:  # importing runs the other package's code
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise MapflowError(f"{subject} cannot be imported ({self.path}): {reason}") from error
        if not (isinstance(found, type) and issubclass(found, VideoLLM)):
            raise MapflowError(f"{subject}: {self.path} is not a subclass of VideoLLM")
        missing = sorted(getattr(found, "__abstractmethods__", ()))
        if missing:
            raise MapflowError(f"{subject}: {self.path} does not define {', '.join(missing)}")
        return found


OWN = (
    Family(
        "mapflow_llava",
        "mapflow.model_adapters.families.llava.model:LlavaVideo",
        written_card=Card("completion", ("PllavaForConditionalGeneration",)),
    ),
    Family(
        "mapflow_internvl",
        "mapflow.model_adapters.families.internvl.model:InternVLVideo",
        written_card=Card("completion", ("InternVLChatModel",)),
    ),
    Family(
        "mapflow_videollama3",
        "mapflow.model_adapters.families.videollama3.model:VideoLlama3",
        written_card=Card(
            "chat",
            ("Videollama3Qwen2ForCausalLM",),
            {
                "vision_attention": Argument(Literal["released", "isolated"], "released"),
                "max_tokens": Argument(int | None, None),
            },
        ),
    ),
    Family(
        "mapflow_hf",
        "mapflow.model_adapters.families.hf.model:HfVideo",
        written_card=Card("chat", None),
    ),
)
"""A table rather than entry points: a source tree on PYTHONPATH has no entry points."""


@cache
def families() -> Mapping[str, Family]:
    """All families by name, this package's first. A name announced twice cannot be used."""
    known = {family.name: family for family in OWN}
    for family in _announced():
        first = known.setdefault(family.name, family)
        if first is not family:
            packages = f"{first.distribution} and {family.distribution}"
            problem = (
                f"model family {family.name} is announced by two packages, {packages}:"
                f" rename the entry point of {family.distribution} or uninstall it"
            )
            known[family.name] = replace(first, problem=problem)
    return MappingProxyType(known)


def _announced() -> Iterator[Family]:
    """Families of other packages; an entry point `mine` is the family `mapflow_mine`."""
    for entry in entry_points(group=GROUP):
        name = entry.name if entry.name.startswith(PREFIX) else PREFIX + entry.name
        distribution = entry.dist.name if entry.dist else "unknown"
        problem = None
        if not name.isidentifier():
            problem = (
                f"package {distribution} announces a model family {entry.name!r}:"
                " a name consists of letters, digits and _; rename its entry point"
            )
        yield Family(name, entry.value, distribution, problem)


def card(name: str) -> Card:
    """A family's card. Raises MapflowError if there is none or it cannot be imported."""
    check_family(name)
    return families()[name].card()


def family(name: str) -> type[VideoLLM]:
    """The class of a family. Raises MapflowError if there is none or it cannot be imported."""
    check_family(name)
    return families()[name].model_class()


def check_family(name: str) -> None:
    """Raises MapflowError if the family is not registered, without importing any family."""
    if name not in families():
        hint = nearest(name, families(), f"known: {', '.join(families())}")
        raise MapflowError(f"unknown model family {quoted(name)}; {hint}")


def family_for(architecture: str, *, imports: bool = True) -> str | None:
    """The name of a family that loads checkpoints of this architecture, or None.

    With `imports` also families that have to be imported to say so, which takes seconds.
    """
    for name, one in families().items():
        written = one.written_card and one.written_card.architectures
        try:
            if written and architecture in written:
                return name
            if not written and imports and family(name).reads(architecture):
                return name
        except MapflowError:  # one broken package must not hide the others
            continue
    return None


def wrong_architecture(
    name: str, folder: Path, architecture: str, own: Sequence[str], *, imports: bool = True
) -> MapflowError:
    """The refusal of a checkpoint by a family with `own` architectures; it names one that fits.

    imports: as in `family_for`.
    """
    other = family_for(architecture, imports=imports)
    advice = (
        f"use --model {other}"
        if other
        else f"supported are {', '.join(own)}; models of transformers itself run with --model"
        f" {PREFIX}hf"
    )
    return MapflowError(
        f"checkpoint {folder} is not a {name.removeprefix(PREFIX)} checkpoint (architecture"
        f" {architecture!r}): {advice}"
    )


def checkpoint(model: str, pretrained: str | Path | None) -> Path:
    """The folder to load, by default the bundled one. Raises MapflowError if there is none."""
    if pretrained is None and model != BUNDLED_MODEL:
        raise MapflowError(f"{model} has no bundled checkpoint; give pretrained, its folder")
    if pretrained == "":
        raise MapflowError("pretrained is empty (an unset variable?); give a checkpoint's folder")
    return Path(BUNDLED if pretrained is None else pretrained)


def load_model(
    name: str = BUNDLED_MODEL,
    pretrained: str | Path | None = None,
    *,
    dtype: str | torch.dtype = "auto",
    device: str | Mapping[str, Any] | None = None,
    lora: str | Path | None = None,
    allow_uncut_layers: bool = False,
    **options: Any,
) -> VideoLLM:
    """Loads a checkpoint of a family.

    Args:
        name: the family.
        pretrained: checkpoint folder; by default the bundled one, which only `BUNDLED_MODEL` has.
        dtype: precision of the weights; "auto" is the checkpoint's own on a GPU, float32 on a CPU.
        device: one device, "auto" for several, or module prefix → device; by default this process's
            GPU, else the CPU.
        lora: LoRA folder on top of the checkpoint.
        allow_uncut_layers: load also a model with layers that mix positions outside attention. Cuts
            act in the attention that there is; the model's name says which layers they are.
        options: what the family's `load` takes besides, such as `vision_attention`; values may be
            text. The model's name tells those apart that differ from the default.

    Raises MapflowError for an unknown family, an unknown or ill-typed option, all before weights
    load, and as `VideoLLM.load` does.
    """
    from mapflow.model_adapters.checkpoints.network_loading import default_device
    from mapflow.model_adapters.conversation import check_vocabulary
    from mapflow.model_adapters.device_memory import out_of_memory
    from mapflow.model_adapters.interventions.inspection.layers import (
        numbered,
        uncut_layers_allowed,
    )
    from mapflow.model_adapters.progress import loading

    model = family(name)
    known = families()[name].card().arguments
    typed = checked_options(name, known, options)
    folder, place = checkpoint(name, pretrained), device or default_device()
    try:
        with uncut_layers_allowed(allow_uncut_layers), loading(folder.name, _bytes(name, folder)):
            loaded = model.load(folder, dtype=dtype, device_map=place, lora=lora, **typed)
    except Exception as error:
        if not out_of_memory(error):
            raise
        raise MapflowError(
            f"{str(folder)!r} does not fit into the memory of {place}: free it, or choose another"
            " device (auto for all GPUs) or dtype"
        ) from None
    table: Any = getattr(loaded.decoder.core.get_input_embeddings(), "weight", None)
    if table is not None:
        check_vocabulary(loaded.tokenizer, len(table), Path(folder))
    loaded.arguments = defaults(known) | typed
    loaded.name += variants(known, typed)
    if loaded.decoder.found.uncut:
        loaded.name += variant("uncut_layers", numbered(loaded.decoder.found.uncut))
    return loaded


def _bytes(name: str, folder: Path) -> int | None:
    """What loading a checkpoint reads: weights, and once more for their digest."""
    sizes = [file.stat().st_size for file in folder.glob("*.safetensors")]
    own = families()[name].written_card
    return sum(sizes) * (2 if own and own.architectures else 1) or None


def defaults(known: Mapping[str, Argument]) -> dict[str, Any]:
    """The arguments' default values, by name."""
    return {name: one.default for name, one in known.items()}


def variants(known: Mapping[str, Argument], typed: Mapping[str, Any]) -> str:
    """The part of a model's name for arguments that differ from the family's defaults."""
    return "".join(
        variant(key, value) for key, value in typed.items() if value != known[key].default
    )
