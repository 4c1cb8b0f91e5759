"""Which process of how many this is: the one place that decides rank and world.

torchrun and accelerate tell by RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR and
MASTER_PORT. Without them, a task of SLURM's `srun` is the rank that SLURM_PROCID names. A program
in a batch script or in the shell of `salloc`, outside `srun`, has SLURM's variables too, but no
other process runs with it: it is alone.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass

from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.visible_text import quoted

JOB = "MAPFLOW_JOB"
"""Variable with an identity that the processes of one `srun` share."""

_PORTS = range(20_000, 30_000)
"""For MASTER_PORT; below the ports that Linux gives to clients."""

_STEPS_OF_SHELLS = 0xFFFFFFFA
"""From here on, SLURM's step ids are of interactive shells, batch scripts and helpers."""


@dataclass(frozen=True)
class Processes:
    """This process among those that run together; numbers count from 0.

    rank, world: of all processes. local_rank, local_world: of those on this machine.
    job: an identity that these processes share and no others do; empty for a process alone.
    """

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local_world: int = 1
    job: str = ""

    @property
    def alone(self) -> bool:
        return self.world == 1

    @property
    def several_machines(self) -> bool:
        return self.local_world < self.world


def processes(environment: Mapping[str, str] = os.environ) -> Processes:
    """What the environment tells. Raises MapflowError for variables that contradict each other."""
    told = {**environment, **_from_slurm(environment)}
    world = _number(told, "WORLD_SIZE", 1)
    found = Processes(
        _number(told, "RANK", 0),
        world,
        _number(told, "LOCAL_RANK", 0),
        _number(told, "LOCAL_WORLD_SIZE", 1 if world == 1 else 0) or world,
        "" if world == 1 else _job(told),
    )
    if not (0 <= found.rank < world and found.local_rank >= 0):
        raise MapflowError(
            f"RANK={found.rank}, LOCAL_RANK={found.local_rank} and WORLD_SIZE={world} contradict"
            " each other: start the processes with torchrun or srun, or unset all three"
        )
    return found


def is_alone() -> bool:
    """Whether no other process runs with this one; also if `processes` raises."""
    try:
        return processes().alone
    except MapflowError:
        return True


def adopt_slurm(environment: MutableMapping[str, str] = os.environ) -> None:
    """Writes torchrun's variables for a task of `srun`, as torch and lmms-eval read them.

    Raises MapflowError for SLURM's variables with senseless values.
    """
    environment.update(_from_slurm(environment))


def _from_slurm(told: Mapping[str, str]) -> dict[str, str]:
    """torchrun's variables from SLURM's; empty if torchrun's are there, or the process is alone."""
    if "RANK" in told or "WORLD_SIZE" in told or not _is_a_task(told):
        return {}
    world = _number(told, "SLURM_STEP_NUM_TASKS", 0) or _number(told, "SLURM_NTASKS", 1)
    rank, local = _number(told, "SLURM_PROCID", 0), _number(told, "SLURM_LOCALID", 0)
    if world <= 1:
        return {}
    if not 0 <= rank < world:
        raise MapflowError(
            f"SLURM_PROCID={rank} is not below the {world} tasks of SLURM_STEP_NUM_TASKS or"
            " SLURM_NTASKS: start the command with srun, or unset SLURM's variables"
        )
    names = ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT")
    step = ".".join(filter(None, (told.get(name) for name in names)))
    here = _tasks_here(told, world)
    found = {
        "RANK": str(rank),
        "WORLD_SIZE": str(world),
        "LOCAL_RANK": str(local),
        "LOCAL_WORLD_SIZE": str(here),
        JOB: f"slurm-{step}",
    }
    if "MASTER_ADDR" not in told:
        found["MASTER_ADDR"] = "127.0.0.1" if here == world else _first_host(told)
    if "MASTER_PORT" not in told:
        numbers = [int(number) for number in re.findall(r"\d+", step)]
        found["MASTER_PORT"] = str(_PORTS[sum(7 * n for n in numbers) % len(_PORTS)])
    return found


def _is_a_task(told: Mapping[str, str]) -> bool:
    """Whether `srun` started this process, or one above it.

    A batch script and the shell of `salloc` have a job, but no step, or one of the steps that SLURM
    makes for shells, and number 0.
    """
    step = told.get("SLURM_STEP_ID", "")
    if "SLURM_PROCID" not in told or (step.isdecimal() and int(step) >= _STEPS_OF_SHELLS):
        return False
    in_step = bool({"SLURM_STEP_ID", "SLURM_STEP_NUM_TASKS"} & told.keys())
    return in_step or "SLURM_JOB_ID" not in told or told["SLURM_PROCID"] != "0"


def _tasks_here(told: Mapping[str, str], world: int) -> int:
    """Tasks on this machine: of "4(x2),2" on the third machine, 2."""
    text = told.get("SLURM_STEP_TASKS_PER_NODE") or told.get("SLURM_TASKS_PER_NODE") or ""
    counts: list[int] = []
    for part in filter(None, text.split(",")):
        match = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part.strip())
        if match is None:
            raise MapflowError(
                f"SLURM_STEP_TASKS_PER_NODE or SLURM_TASKS_PER_NODE is {quoted(text)}, not like"
                " 4(x2),2: start the command with srun, or unset SLURM's variables"
            )
        counts += [int(match[1])] * int(match[2] or 1)
    node = _number(told, "SLURM_NODEID", 0)
    return counts[node] if sum(counts) == world and node < len(counts) else world


def _first_host(told: Mapping[str, str]) -> str:
    """The machine of rank 0: the first of "gpu[01-04,07],big1"."""
    hosts = told.get("SLURM_STEP_NODELIST") or told.get("SLURM_JOB_NODELIST") or ""
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])+", hosts)
    if first is None:
        raise MapflowError(
            "SLURM_STEP_NODELIST is not set, so the machine of rank 0 is not known: set"
            " MASTER_ADDR to its name"
        )
    return re.sub(r"\[(\d+)[^\]]*\]", r"\1", first[0])


def _job(told: Mapping[str, str]) -> str:
    if JOB in told:
        return told[JOB]
    world = told["WORLD_SIZE"]
    names = ("TORCHELASTIC_RUN_ID", "MASTER_ADDR", "MASTER_PORT")
    job = [*(told.get(name, "") for name in names), world]
    if told.get("LOCAL_WORLD_SIZE") == world:
        # One machine, so one launcher: its number tells two jobs' default ports apart.
        job += [socket.gethostname(), str(os.getppid())]
    return "|".join(job)


def _number(told: Mapping[str, str], name: str, default: int) -> int:
    text = told.get(name, "")
    if text == "":
        return default
    try:
        return int(text)
    except ValueError:
        raise MapflowError(
            f"{name}={quoted(text)} is not a number of processes: start the command with torchrun"
            " or srun, or unset the variable"
        ) from None
