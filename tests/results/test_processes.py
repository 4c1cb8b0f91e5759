"""Ranks: what torchrun, accelerate and srun tell, and shells inside a SLURM job that nobody runs
beside."""

import pytest

from mapflow.results.contract.errors import MapflowError
from mapflow.results.runs.processes import Processes, adopt_slurm, processes

TORCHRUN = {
    "RANK": "5",
    "WORLD_SIZE": "8",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "4",
    "MASTER_ADDR": "gpu1",
    "MASTER_PORT": "29500",
    "TORCHELASTIC_RUN_ID": "none",
}
BATCH = {  # as sbatch sets them for the script, with --nodes=2 --ntasks=6
    "SLURM_JOB_ID": "4711",
    "SLURM_NTASKS": "6",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0",
    "SLURM_JOB_NODELIST": "gpu[07-08]",
    "SLURM_TASKS_PER_NODE": "4,2",
}
TASK = {  # as srun sets them for its fifth task
    **BATCH,
    "SLURM_STEP_ID": "3",
    "SLURM_STEP_NUM_TASKS": "6",
    "SLURM_STEP_NODELIST": "gpu[07-08]",
    "SLURM_STEP_TASKS_PER_NODE": "4,2",
    "SLURM_PROCID": "4",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "1",
}


def test_without_a_launcher_a_process_is_alone():
    assert processes({}) == Processes(0, 1, 0, 1, "") and processes({}).alone


def test_torchrun_tells():
    found = processes(TORCHRUN)
    assert (found.rank, found.world, found.local_rank, found.local_world) == (5, 8, 1, 4)
    assert found.several_machines and not found.alone and found.job == "none|gpu1|29500|8"


def test_a_task_of_srun_is_a_rank():
    found = processes(TASK)
    assert (found.rank, found.world, found.local_rank, found.local_world) == (4, 6, 0, 2)
    assert found.job == "slurm-4711.3" and found.several_machines


def test_torchruns_variables_come_before_slurms():
    """srun starts one torchrun per machine, which starts the workers."""
    outer = {**TASK, "SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1"}
    assert processes({**outer, **TORCHRUN}) == processes(TORCHRUN)
    written = {**outer, **TORCHRUN}
    adopt_slurm(written)
    assert written == {**outer, **TORCHRUN}


@pytest.mark.parametrize(
    "environment",
    [
        BATCH,  # python in a batch script: no srun, so the other five tasks do not exist
        {**BATCH, "SLURM_NTASKS": "junk", "SLURM_TASKS_PER_NODE": "?"},
        {name: text for name, text in BATCH.items() if name != "SLURM_PROCID"},  # salloc's shell
        {**BATCH, "SLURM_STEP_ID": "4294967290"},  # the interactive step of salloc
        {**TASK, "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"},  # srun --ntasks=1 --pty bash
    ],
)
def test_a_shell_inside_a_job_is_alone(environment):
    assert processes(environment) == Processes()
    written = dict(environment)
    adopt_slurm(written)
    assert written == environment


def test_the_fewest_variables_that_name_a_task():
    found = processes({"SLURM_PROCID": "1", "SLURM_NTASKS": "2", "SLURM_LOCALID": "1"})
    assert (found.rank, found.world, found.local_rank, found.local_world) == (1, 2, 1, 2)


def test_all_tasks_agree_on_the_job_and_on_rank_0s_machine():
    seen = set()
    for rank, (node, local) in enumerate([(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 1)]):
        own = {"SLURM_PROCID": str(rank), "SLURM_NODEID": str(node), "SLURM_LOCALID": str(local)}
        written = {**TASK, **own}
        adopt_slurm(written)
        assert (written["RANK"], written["LOCAL_RANK"]) == (str(rank), str(local))
        assert written["LOCAL_WORLD_SIZE"] == ("4" if node == 0 else "2")
        assert processes(written) == processes({**TASK, **own}), "adopting changes nothing"
        seen.add((written["MASTER_ADDR"], written["MASTER_PORT"], processes(written).job))
    ((address, port, _),) = seen
    assert address == "gpu07" and 20_000 <= int(port) < 30_000


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("gpu7", "gpu7"),
        ("gpu[01-04,07],big1", "gpu01"),
        ("rack[1-2]n[3,5]", "rack1n3"),
        ("gpu-a,gpu-b", "gpu-a"),
        ("n[9]-ib.cluster,x", "n9-ib.cluster"),
    ],
)
def test_the_first_machine_of_a_list(nodes, first):
    written = {**TASK, "SLURM_STEP_NODELIST": nodes}
    adopt_slurm(written)
    assert written["MASTER_ADDR"] == first


def test_one_machine_meets_at_home_and_a_users_choice_stays():
    own = {"SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_TASKS_PER_NODE": "4", "SLURM_PROCID": "2"}
    written = {**TASK, **own, "SLURM_NODEID": "0"}
    adopt_slurm(written)
    assert written["MASTER_ADDR"] == "127.0.0.1" and written["LOCAL_WORLD_SIZE"] == "4"
    written = {**TASK, **own, "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "1234"}
    adopt_slurm(written)
    assert (written["MASTER_ADDR"], written["MASTER_PORT"]) == ("10.0.0.1", "1234")


def test_two_steps_of_one_job_are_two_jobs():
    assert processes(TASK).job != processes({**TASK, "SLURM_STEP_ID": "4"}).job
    ports = []
    for step in ("3", "4"):
        adopt_slurm(written := {**TASK, "SLURM_STEP_ID": step})
        ports.append(written["MASTER_PORT"])
    assert ports[0] != ports[1]


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({**TASK, "SLURM_STEP_NUM_TASKS": "six"}, "SLURM_STEP_NUM_TASKS='six' is not a number"),
        ({**TASK, "SLURM_PROCID": "-"}, "SLURM_PROCID='-' is not a number"),
        ({**TASK, "SLURM_PROCID": "6"}, "SLURM_PROCID=6 is not below the 6 tasks"),
        ({**TASK, "SLURM_STEP_TASKS_PER_NODE": "4(2)"}, r"is '4\(2\)', not like 4\(x2\),2"),
        ({**TASK, "SLURM_STEP_NODELIST": "", "SLURM_JOB_NODELIST": ""}, "set MASTER_ADDR"),
        ({"RANK": "x", "WORLD_SIZE": "2"}, "RANK='x' is not a number"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "contradict each other"),
        ({"RANK": "0", "WORLD_SIZE": "0"}, "contradict each other"),
    ],
)
def test_senseless_values_are_one_line(environment, reason):
    with pytest.raises(MapflowError, match=reason) as caught:
        processes(environment)
    assert "\n" not in str(caught.value)
