"""`mapflow data check|prepare`: verify or unpack a benchmark's files before a run.

`check` compares questions and videos with the publisher's counts and decodes every video; `prepare`
unpacks zip files. Only --fetch fetches files. Exit code 1 where something is missing or wrong.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mapflow.harness.cli.arguments import add_data_dir
from mapflow.model_adapters.progress import progress, steps
from mapflow.results.contract.errors import MapflowError
from mapflow.tasks.registry import benchmark_with_files, benchmarks_with_files


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("check", "prepare"))
    names = " or ".join(benchmarks_with_files())
    parser.add_argument("benchmark", nargs="*", metavar="BENCHMARK", help=f"{names} (default: all)")
    add_data_dir(parser)
    parser.add_argument(
        "--checksums", type=Path, metavar="FILE", help='check: lines "<sha256>  <path>"'
    )
    parser.add_argument(
        "--no-decode", action="store_true", help="check: do not try to decode the videos"
    )
    parser.add_argument("--fetch", action="store_true", help="prepare: fetch what the Hub offers")


def run(options: argparse.Namespace) -> int:
    """Raises MapflowError for an unknown benchmark and a missing folder."""
    from mapflow.tasks.data_check import check_data, render_check
    from mapflow.tasks.data_folder import local_folder
    from mapflow.tasks.data_prepare import folder_to_prepare, prepare_data, render_prepare

    if options.data_dir is None:
        raise MapflowError("no data folder: give --data_dir DIR or set MAPFLOW_DATA")
    data = options.data_dir.expanduser()
    complete = True
    for name in options.benchmark or benchmarks_with_files():
        chosen = benchmark_with_files(name)
        if options.action == "prepare":
            folder = folder_to_prepare(chosen, data)
            with steps(f"unpacking {chosen.title}"):
                unpacked = prepare_data(chosen, folder, fetch_missing=options.fetch)
            print(render_prepare(chosen, folder, unpacked))
        else:
            folder = local_folder(chosen.layout, data)
            with progress(title=chosen.title, total=chosen.size, unit="video", leave=False) as bar:

                def tried(path: Path, bar: tqdm[Any] = bar) -> str | None:
                    bar.update()
                    return try_video(path)

                decode = None if options.no_decode else tried
                found = check_data(chosen, folder, decode, options.checksums)
            print(render_check(found))
            complete &= found.complete
    return 0 if complete else 1


def try_video(path: Path) -> str | None:
    """The error of decoding eight frames of a video; None if they can be decoded."""
    from mapflow.model_adapters.video.reader import VideoError, read_frames
    from mapflow.model_adapters.video.sampling import segment_midpoints
    from mapflow.results.contract.question import Clip

    try:
        read_frames(Clip(str(path)), segment_midpoints, 8)
    except VideoError as error:
        return str(error)
    return None
