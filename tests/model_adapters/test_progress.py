"""Bars appear late, count bytes where a checkpoint loads, and are hidden where they should be."""

from __future__ import annotations

import logging
import re
import time

import pytest

from mapflow.model_adapters import progress as bars
from mapflow.model_adapters.families.registry import BUNDLED, load_model
from mapflow.model_adapters.progress import loading, progress, steps


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(bars, "PATIENCE", 0.02)
    monkeypatch.setattr(bars, "LOG_FILE_SECONDS", 0.02)


def test_steps_show_what_comes_next_and_the_time_that_is_left(impatient, capsys):
    with steps("verify", 4, patience=0.02) as step:
        step("layers", 2)
        time.sleep(0.2)
    shown = capsys.readouterr().err
    assert re.search(r"verify: layers: +50%.*2/4 \[00:00<00:0\d", shown)
    assert shown.endswith("\r"), "the bar is cleared"


def test_work_of_unknown_length_shows_the_time_that_passes(impatient, capsys):
    with steps("comparing", patience=0.02):
        time.sleep(0.2)
    assert "comparing [00:00]" in capsys.readouterr().err


def test_a_checkpoint_is_counted_in_bytes_to_its_end(monkeypatch):
    """Each byte of the weights is read twice: into the network and for the digest."""
    seen: list[int] = []
    monkeypatch.setattr("mapflow.model_adapters.checkpoints.declared.advance", seen.append)
    monkeypatch.setattr("mapflow.model_adapters.checkpoints.network_loading.advance", seen.append)
    load_model()
    size = (BUNDLED / "model.safetensors").stat().st_size
    assert 0 <= 2 * size - sum(seen) < 1 << 16, "but for the header of the file"


@pytest.mark.parametrize("how", ["quiet", "another rank"])
def test_bars_are_hidden(how, monkeypatch, capsys, impatient):
    if how == "quiet":
        monkeypatch.setattr(logging.getLogger("mapflow"), "level", logging.WARNING)
    else:
        monkeypatch.setenv("RANK", "1")
        monkeypatch.setenv("WORLD_SIZE", "2")
    with steps("x", 2, patience=0.01), loading("y", 10):
        bars.advance(5)
        time.sleep(0.1)
    assert list(progress(range(3), title="z")) == [0, 1, 2]
    assert capsys.readouterr().err == ""
