"""Flags that several commands share, and what they select: questions, model, interventions, memory.

Nothing here imports torch before it is needed.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mapflow.model_adapters.families.model_args import checked_options, parse_model_args
from mapflow.model_adapters.families.registry import BUNDLED_MODEL, card, families, load_model
from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.visible_text import quoted

if TYPE_CHECKING:
    from mapflow.model_adapters.interventions import Intervention, LayerSpan
    from mapflow.model_adapters.video_llm import VideoLLM
    from mapflow.results.contract.question import Question

UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}


def at_least(least: int) -> Callable[[str], int]:
    """The `type` of a flag that takes whole numbers from `least` on."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"-?[0-9]{1,9}", text.strip()) or int(text) < least:
            raise argparse.ArgumentTypeError(
                f"{quoted(text)} must be a whole number of at least {least}"
            )
        return int(text)

    return parse


def add_analysis_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of analyses that look at questions under interventions."""
    parser.add_argument(
        "--intervention",
        action="append",
        metavar="A[,B…]",
        help="under which to look, e.g. full,effective; repeatable (default: full)",
    )
    add_samples(parser)
    add_subject_arguments(parser)
    add_output_path(parser)


def add_samples(parser: argparse.ArgumentParser, default: str = "all", about: str = "") -> None:
    """--samples: which questions to measure, by the answer of the baseline run."""
    parser.add_argument(
        "--samples",
        choices=("correct", "wrong", "all"),
        default=default,
        help=f"questions that the baseline run answers so (default: {default}{about})",
    )


def add_subject_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags that choose the questions and the model."""
    parser.add_argument(
        "--task", default="mapflow_motion", help="tasks, as in lmms_eval (default: %(default)s)"
    )
    parser.add_argument(
        "--limit", type=at_least(1), metavar="N", help="the first N questions of each subtask"
    )
    parser.add_argument(
        "--model", default=BUNDLED_MODEL, help=f"{', '.join(families())} (default: %(default)s)"
    )
    add_checkpoint_arguments(parser)
    parser.add_argument(
        "--protocol", default="paper", help="wording of the questions (default: paper)"
    )
    add_data_dir(parser)


def add_checkpoint_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags that choose the checkpoint, its precision and its device."""
    parser.add_argument(
        "--pretrained", metavar="DIR", help="checkpoint (default: the small bundled model)"
    )
    parser.add_argument("--lora", metavar="DIR", help="LoRA adapter on top of the checkpoint")
    parser.add_argument("--dtype", default="auto", help="precision of the weights (default: auto)")
    parser.add_argument(
        "--device",
        metavar="DEVICE",
        help="device, or auto for several (default: the GPU, else cpu)",
    )
    parser.add_argument(
        "--allow-uncut-layers",
        action="store_true",
        help="load models with layers that mix positions outside attention, where cuts do not act",
    )
    parser.add_argument(
        "--model_args",
        metavar="NAME=VALUE[,…]",
        help="arguments of the model as in lmms_eval, e.g. vision_attention=isolated; those above"
        " may stand there too",
    )


def add_data_dir(parser: argparse.ArgumentParser) -> None:
    """--data_dir: a path, None without the flag and without MAPFLOW_DATA."""
    default = os.environ.get("MAPFLOW_DATA")
    parser.add_argument(
        "--data_dir",
        type=Path,
        metavar="DIR",
        default=Path(default) if default else None,
        help="benchmarks' files as published (default: $MAPFLOW_DATA)",
    )


def add_output_path(
    parser: argparse.ArgumentParser, contents: str = "records, manifest and summary"
) -> None:
    parser.add_argument("--output_path", type=Path, required=True, metavar="DIR", help=contents)


def add_memory_budget(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--memory-budget",
        metavar="BYTES",
        help="for windows that run together, e.g. 512M (default: 2G on a CPU, else 16G)",
    )


def chosen_memory_budget(options: argparse.Namespace) -> int | None:
    """In bytes; None for the default of the device. Raises MapflowError for what is not a size."""
    return parse_bytes(options.memory_budget) if options.memory_budget else None


def parse_bytes(text: str) -> int:
    """From "512M", "2GiB" or plain bytes. Raises MapflowError on anything else."""
    match = re.fullmatch(r"(\d{1,15}(?:\.\d+)?)\s*([KMG]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    size = int(float(match[1]) * UNITS[match[2].upper()]) if match else 0
    if size < 1:
        raise MapflowError(f"--memory-budget {text!r} is not a size such as 512M, 2G or 1000000")
    return size


def add_margin(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--margin",
        type=float,
        default=2.0,
        metavar="POINTS",
        help="how much worse still counts as equally good (default: 2)",
    )


def chosen_margin(options: argparse.Namespace) -> float:
    """As a fraction. Raises MapflowError for a number that is not a margin."""
    if not 0 < options.margin < 100:
        raise MapflowError(
            f"--margin {options.margin:g} must lie between 0 and 100 points, e.g. --margin 2"
        )
    return options.margin / 100


def add_overlay(parser: argparse.ArgumentParser, summary: str) -> None:
    parser.add_argument("--overlay", nargs="?", const="", metavar="LAYERS", help=summary)


def overlay_layers(overlay: str | None, n_layers: int, default: str) -> LayerSpan | None:
    """The layers that overlays show; None without overlays, `default` if none are named.

    Raises MapflowError for layers that the model does not have.
    """
    from mapflow.model_adapters.interventions import LayerSpan

    if overlay is None:
        return None
    try:
        span = LayerSpan.parse(overlay or default)
        span.indices(n_layers)
    except MapflowError as error:
        raise MapflowError(f"--overlay {overlay}: {error}") from None
    return span


def chosen_questions(options: argparse.Namespace) -> list[Question]:
    """Raises MapflowError for an unknown task or protocol, a limit below 1, and missing files."""
    from mapflow.tasks import registry

    return registry.load_questions(options.task, options.protocol, options.data_dir, options.limit)


def chosen_interventions(options: argparse.Namespace) -> tuple[Intervention, ...]:
    """As typed. Raises MapflowError for one that cannot be read."""
    from mapflow.model_adapters.interventions import parse_interventions

    return tuple(parse_interventions(options.intervention or ["full"]))


def chosen_model_args(options: argparse.Namespace) -> dict[str, Any]:
    """The arguments of `load_model`, from the flags and --model_args together.

    Raises MapflowError for text that cannot be read, an argument given twice, and one that the
    family does not have or of another type. No checkpoint is opened.
    """
    found: dict[str, Any] = parse_model_args(options.model_args or "")
    if "device_map" in found:
        if "device" in found:
            raise MapflowError("--model_args names device and device_map: keep one")
        found["device"] = found.pop("device_map")
    defaults = {"pretrained": None, "lora": None, "dtype": "auto", "device": None}
    for name, default in defaults.items():
        value = getattr(options, name)
        if value != default and found.setdefault(name, value) != value:
            raise MapflowError(
                f"--{name} {value} and --model_args {name}={found[name]} differ: keep one"
            )
    own = {name: found.pop(name) for name in list(found) if name not in defaults}
    return {**found, **checked_options(options.model, card(options.model).arguments, own)}


def chosen_model(options: argparse.Namespace) -> VideoLLM:
    """The loaded checkpoint, by default the small bundled one."""
    allowed = {"allow_uncut_layers": True} if options.allow_uncut_layers else {}
    return load_model(options.model, **{**chosen_model_args(options), **allowed})
