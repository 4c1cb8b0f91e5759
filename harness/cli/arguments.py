"""The command line that analyses share: which questions, which model, under what, into which folder."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from mapflow.model_adapters.families.registry import BUNDLED_MODEL, families, load_model
from mapflow.results.contract.errors import MapflowError

if TYPE_CHECKING:
    from mapflow.model_adapters.interventions import Intervention, LayerSpan
    from mapflow.model_adapters.video_llm import VideoLLM
    from mapflow.tasks.documents import Document


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--intervention",
        action="append",
        metavar="A[,B…]",
        help="under which to look, e.g. full,effective; repeatable (default: full)",
    )
    add_subject_arguments(parser)
    parser.add_argument(
        "--output_path", required=True, metavar="DIR", help="records, manifest and summary"
    )


def add_subject_arguments(parser: argparse.ArgumentParser) -> None:
    """Which questions are asked, and of which model."""
    parser.add_argument(
        "--task", default="mapflow_motion", help="tasks, as in lmms_eval (default: %(default)s)"
    )
    parser.add_argument(
        "--limit", type=int, metavar="N", help="the first N questions of each subtask"
    )
    parser.add_argument(
        "--model", choices=sorted(families()), default=BUNDLED_MODEL, help="default: %(default)s"
    )
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
        "--protocol", default="paper", help="wording of the questions (default: paper)"
    )
    parser.add_argument(
        "--data_dir", metavar="DIR", help="benchmarks' files as published (default: $MAPFLOW_DATA)"
    )


def add_overlay(parser: argparse.ArgumentParser, summary: str) -> None:
    parser.add_argument("--overlay", nargs="?", const="", metavar="LAYERS", help=summary)


def overlay_layers(options: argparse.Namespace, model: VideoLLM, default: str) -> LayerSpan | None:
    """Those that overlays show; None where none are asked for. Raises MapflowError for layers that the model lacks."""
    from mapflow.model_adapters.interventions import LayerSpan

    if options.overlay is None:
        return None
    try:
        span = LayerSpan.parse(options.overlay or default)
        span.indices(model.decoder.n_layers)
    except MapflowError as error:
        raise MapflowError(f"--overlay {options.overlay}: {error}") from None
    return span


def chosen_documents(options: argparse.Namespace) -> list[Document]:
    """The questions. Raises MapflowError for an unknown task, missing files or a limit that makes no sense."""
    from mapflow.tasks.loading import load_documents

    if options.limit is not None and options.limit < 1:
        raise MapflowError(f"--limit {options.limit} must be at least 1 question")
    if options.data_dir is not None:
        os.environ["MAPFLOW_DATA"] = options.data_dir
    os.environ["MAPFLOW_PROTOCOL"] = options.protocol
    return load_documents(options.task, options.limit)


def chosen_interventions(options: argparse.Namespace) -> list[Intervention]:
    """As typed. Raises MapflowError for one that cannot be read."""
    from mapflow.model_adapters.interventions import parse_interventions

    return parse_interventions(options.intervention or ["full"])


def chosen_model(options: argparse.Namespace) -> VideoLLM:
    """The loaded checkpoint, the small bundled one by default."""
    return load_model(
        options.model,
        options.pretrained,
        dtype=options.dtype,
        device=options.device,
        lora=options.lora,
    )


def fitted(interventions: list[Intervention], model: VideoLLM) -> tuple[Intervention, ...]:
    """With borrowed layer ranges filled in. Raises MapflowError where the model lacks layers or ranges that one asks for."""
    from mapflow.model_adapters.checkpoints.pathways import scaled_pathways

    n_layers = model.decoder.n_layers
    resolved = tuple(one.resolve(scaled_pathways, n_layers) for one in interventions)
    for one in resolved:
        one.check(n_layers, model.pathways)
    return resolved
