"""The job scripts of docs/slurm, executed: a stand-in for `srun` starts its tasks with SLURM's
variables, and stand-ins for the commands say which process they are and what they were told."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "docs" / "slurm"
SRUN = """
import os, subprocess, sys
words = sys.argv[1:]
while words[0].startswith("--"):
    words.pop(0)
nodes, here = int(os.environ["FAKE_NODES"]), int(os.environ["SLURM_NTASKS_PER_NODE"])
step = {"SLURM_STEP_ID": str(os.getpid()), "SLURM_STEP_NUM_TASKS": str(nodes * here),
        "SLURM_STEP_NODELIST": f"gpu[1-{nodes}]" if nodes > 1 else "gpu1",
        "SLURM_STEP_TASKS_PER_NODE": f"{here}(x{nodes})"}
tasks = [subprocess.Popen(words, env=os.environ | step | {
    "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank % here),
    "SLURM_NODEID": str(rank // here)}) for rank in range(nodes * here)]
sys.exit(max(task.wait() for task in tasks))
"""
COMMAND = """
import json, os, sys
from dataclasses import asdict
from mapflow.results.runs.processes import adopt_slurm, processes
adopt_slurm()
with open(os.environ["TOLD"], "a") as file:
    told = {"words": [os.path.basename(sys.argv[0]), *sys.argv[1:]], **asdict(processes()),
            "master": os.environ.get("MASTER_ADDR"), "port": os.environ.get("MASTER_PORT")}
    file.write(json.dumps(told) + "\\n")
"""


@pytest.fixture
def run_script(tmp_path):
    """Runs a script as sbatch would; returns what each process was told, by command line."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in {"srun": SRUN, "lmms_eval": COMMAND, "mapflow": COMMAND}.items():
        (folder / name).write_text(f"#!{sys.executable}{text}")
        (folder / name).chmod(0o755)

    def run(name, nodes, per_node, **environment):
        told = tmp_path / "told.jsonl"
        told.unlink(missing_ok=True)
        batch = {
            "SLURM_JOB_ID": "4711", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0",
            "SLURM_NTASKS": str(nodes * per_node), "SLURM_NTASKS_PER_NODE": str(per_node),
            "SLURM_TASKS_PER_NODE": f"{per_node}(x{nodes})", "SLURM_CPUS_PER_TASK": "8",
        }  # fmt: skip
        own = {"TOLD": str(told), "FAKE_NODES": str(nodes), "DATA": "/da ta", **environment}
        done = subprocess.run(
            ["bash", SCRIPTS / name],
            env=os.environ | batch | own | {"PATH": f"{folder}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        lines = told.read_text().splitlines() if told.is_file() else []
        return done, [json.loads(line) for line in lines]

    return run


def places(told, *words):
    own = [one for one in told if one["words"][: len(words)] == list(words)]
    assert len({json.dumps([one["words"], one["job"], one["master"], one["port"]]) for one in own})
    return sorted((one["rank"], one["world"], one["local_rank"], one["local_world"]) for one in own)


def agreed(told):
    """Job, address and port, on which all processes of one `srun` agree."""
    ((job, master, port),) = {(one["job"], one["master"], one["port"]) for one in told}
    return job, master, int(port)


def test_one_machine(run_script):
    done, told = run_script("one_node.sbatch", 1, 4, CHECKPOINT="/m 1", RUN="/runs/a b")
    assert done.returncode == 0, done.stderr
    assert places(told, "lmms_eval") == [(rank, 4, rank, 4) for rank in range(4)]
    assert agreed(told)[1] == "127.0.0.1"
    words = told[0]["words"]
    assert words[words.index("--model_args") + 1] == "pretrained=/m 1"
    assert words[words.index("--output_path") + 1] == "/runs/a b"


def test_two_machines(run_script):
    done, told = run_script("several_nodes.sbatch", 2, 2, CHECKPOINT="/m", RUN="/shared")
    assert done.returncode == 0, done.stderr
    for command in ("sweep", "discover"):
        expected = [(rank, 4, rank % 2, 2) for rank in range(4)]
        assert places(told, "mapflow", command) == expected
    assert places(told, "mapflow", "figure") == [(0, 1, 0, 1)], "outside srun it is alone"
    sweeps = [one for one in told if one["words"][1] == "sweep"]
    assert agreed(sweeps)[1] == "gpu1"
    found = [one for one in told if one["words"][1] == "discover"]
    assert agreed(sweeps)[0] != agreed(found)[0], "two steps are two jobs"


def test_an_array_is_one_process_and_one_folder_for_each_model_and_benchmark(run_script):
    folders = []
    for number in range(4):
        own = {"CHECKPOINTS": "/m/a /m/b", "TASKS": "t1 t2", "RUNS": "runs"}
        done, told = run_script("array.sbatch", 1, 1, SLURM_ARRAY_TASK_ID=str(number), **own)
        assert done.returncode == 0, done.stderr
        assert places(told, "lmms_eval") == [(0, 1, 0, 1)]
        folders.append(told[0]["words"][-1])
    assert folders == ["runs/a/t1", "runs/a/t2", "runs/b/t1", "runs/b/t2"]
    done, told = run_script("array.sbatch", 1, 1, SLURM_ARRAY_TASK_ID="4", **own)
    assert done.returncode == 2 and not told
    assert done.stderr == "array task 4: there are 2 models and 2 benchmarks\n"


@pytest.mark.parametrize("name", [one.name for one in sorted(SCRIPTS.glob("*.sbatch"))])
def test_what_is_not_set_is_said(run_script, name):
    done, told = run_script(name, 1, 1, SLURM_ARRAY_TASK_ID="0", DATA="")
    assert done.returncode != 0 and not told
    assert len(done.stderr.splitlines()) == 1 and "a folder" in done.stderr.replace("the", "a")
