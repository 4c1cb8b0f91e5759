"""The small world in which the pages' blocks run: a checkpoint, a data folder, a run, programs.

`$DIR` is the bundled model's folder and `$QWEN` that of a tiny random Qwen2.5-VL. `$DATA` holds a
few questions of TVBench and TOMATO about the bundled clips, `$NTU` clips as NTU RGB+D has them, and
`$RUN` a copy of a finished run. Launchers of several processes start one.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mapflow.model_adapters.families.registry import BUNDLED
from mapflow.tasks import motion
from mapflow.tasks.tomato import COUNTS as TOMATO
from mapflow.tasks.tomato import FILES
from mapflow.tasks.tvbench import BOUNDED
from mapflow.tasks.tvbench import COUNTS as TVBENCH
from tests.model_adapters.tiny_hf import write_tiny_hf
from tests.pages.blocks import ROOT, Block
from tests.pages.fork_server import write_programs
from tests.tasks.folders import put, tomato_row, write_tomato, write_tvbench

QUESTIONS = 6
SECONDS = 120
SRUN = """#!/bin/bash
# one task on one node, whatever was asked for
while [[ ${1:-} == -* ]]; do shift; done
SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NTASKS=1 SLURM_NODEID=0 SLURM_NNODES=1 exec "$@"
"""
SCONTROL = "#!/bin/bash\necho localhost\n"


def write_data(folder: Path) -> Path:
    """TVBench and TOMATO as published, with few questions, which are the bundled benchmark's."""
    bundled = Path(motion.__file__).parent / "data"
    asked = json.loads((bundled / "json" / "scene.json").read_text(encoding="utf-8"))[:QUESTIONS]
    clips = {row["video"]: (bundled / "video/scene" / row["video"]).read_bytes() for row in asked}
    rows = {}
    for subtask in TVBENCH:
        bounds = {"start": 0.0, "end": 1.0} if subtask in BOUNDED else {}
        rows[subtask] = [{**row, **bounds} for row in asked]
        for name, clip in clips.items():
            put(folder.parent / "ntu" / "S001" / name, clip)
            put(folder / "tvbench" / "video" / subtask / name, clip)
    write_tvbench(folder / "tvbench", rows)
    for name in (FILES.get(subtask, subtask) for subtask in TOMATO):
        write_tomato(folder / "tomato", {name: [tomato_row("0001-00")]})
    put(folder / "tomato" / "videos" / "human" / "0001-00.mp4", clip)
    return folder


@dataclass(frozen=True)
class Playground:
    """`programs` is searched first for commands; `data` and `run` are shared by all pages."""

    programs: Path
    data: Path
    run: Path
    qwen: Path

    def environment(self, folder: Path) -> dict[str, str]:
        """For one page, whose own copy of the run is in `folder`."""
        own = folder / "RUN"
        if self.run.is_dir() and not own.exists():
            shutil.copytree(self.run, own)
        return {
            **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
            "PATH": os.pathsep.join([str(self.programs), "/usr/local/bin", "/usr/bin", "/bin"]),
            "DIR": str(BUNDLED),
            "DATA": str(self.data),
            "NTU": str(self.data.parent / "ntu"),
            "QWEN": str(self.qwen),
            "RUN": str(own),
            "MAPFLOW_CACHE": str(self.data.parent / "cache"),
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
        }

    def shell(self, block: Block, folder: Path) -> subprocess.CompletedProcess[str]:
        """Runs a block of shell lines in `folder`; any failing line fails it."""
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block.code],
            cwd=folder,
            env=self.environment(folder),
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )


@contextmanager
def playground(folder: Path) -> Iterator[Playground]:
    """A playground below `folder`, with its server of programs running."""
    programs = folder / "programs"
    programs.mkdir(parents=True)
    address = folder / "server"
    write_programs(programs, address)
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (programs / name).write_text(text, encoding="utf-8")
        (programs / name).chmod(0o755)
    here = Playground(programs, write_data(folder / "data"), folder / "finished", folder / "qwen")
    write_tiny_hf(here.qwen, "qwen2_5_vl")
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.pages.fork_server", str(address)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
    )
    try:
        started = time.monotonic()
        while not address.exists():
            assert server.poll() is None and time.monotonic() - started < SECONDS
            time.sleep(0.05)
        made = "lmms_eval --model mapflow_llava --intervention full,effective,random"
        block = Block(Path(__file__), 1, "bash", "", f"{made} --output_path {here.run}")
        done = here.shell(block, folder)
        assert done.returncode == 0, done.stdout + done.stderr
        yield here
    finally:
        server.terminate()
        server.wait()
