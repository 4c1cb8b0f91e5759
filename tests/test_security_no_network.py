"""The main job, the command that the README begins with, asks nothing of the network."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

# Runs first in every process of the job: a socket to another machine is logged and refused.
CUSTOMIZED = """
import os, socket
def refuse(name, real):
    def call(*arguments, **named):
        text = repr(arguments[1:] if name.startswith('connect') else arguments)
        if name.startswith('connect') and getattr(arguments[0], 'family', None) == socket.AF_UNIX:
            return real(*arguments, **named)
        with open(os.environ['MAPFLOW_TEST_NETWORK'], 'a') as log:
            log.write(f'{name} {text}\\n')
        raise OSError('no network in this test')
    return call
class Socket(socket.socket):
    connect = refuse('connect', socket.socket.connect)
    connect_ex = refuse('connect_ex', socket.socket.connect_ex)
socket.socket = Socket
socket.getaddrinfo = refuse('getaddrinfo', socket.getaddrinfo)
socket.create_connection = refuse('create_connection', socket.create_connection)
"""


@pytest.fixture
def environment(tmp_path):
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "sitecustomize.py").write_text(CUSTOMIZED)
    path = os.pathsep.join(filter(None, [str(tmp_path / "first"), os.environ.get("PYTHONPATH")]))
    offline = {
        name for name in os.environ if name.endswith("_OFFLINE") or name.startswith("MAPFLOW_")
    }
    kept = {name: value for name, value in os.environ.items() if name not in offline}
    return {
        **kept,
        "PYTHONPATH": path,
        "MAPFLOW_TEST_NETWORK": str(tmp_path / "log"),
        "HF_HOME": str(tmp_path / "hf"),
    }


def test_the_block_blocks(tmp_path, environment):
    code = "import urllib.request as u; u.urlopen('http://192.0.2.1/')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1 and "no network in this test" in done.stderr
    assert (tmp_path / "log").read_text()


def test_the_main_job_asks_nothing_of_the_network(tmp_path, environment):
    command = [
        sys.executable,
        "-m",
        "mapflow.harness.evaluation.lmms_eval",
        "--model",
        "mapflow_llava",
    ]
    command += [
        "--intervention",
        "effective",
        "--limit",
        "2",
        "--output_path",
        str(tmp_path / "out"),
    ]
    done = subprocess.run(
        command,
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    asked = (tmp_path / "log").read_text() if (tmp_path / "log").exists() else ""
    assert not asked
    assert done.returncode == 0, done.stderr[-2000:]
    assert list((tmp_path / "out").rglob("records.jsonl"))
