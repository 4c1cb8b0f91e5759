"""Folders of golden numbers, real questions and real videos; tests without theirs are skipped."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# Before torch is imported: its threads then sleep, not spin, while they wait for a busy core.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# The same examples in every run; HYPOTHESIS_PROFILE=exploring draws new ones.
settings.register_profile("repeatable", derandomize=True)
settings.register_profile("exploring", derandomize=False)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))

SHARED = Path(__file__).parents[2] / "shared"


def _folder(variable: str, default: Path) -> Path:
    folder = Path(os.environ.get(variable, default))
    if not folder.is_dir():
        pytest.skip(f"{variable} names no folder ({folder.name} is absent)")
    return folder


@pytest.fixture(scope="session")
def golden_root() -> Path:
    """Outputs of the paper's released code on tiny models (`MAPFLOW_GOLDEN`)."""
    return _folder("MAPFLOW_GOLDEN", SHARED / "golden")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Real question files and videos of the benchmarks (`MAPFLOW_REAL_DATA`)."""
    return _folder("MAPFLOW_REAL_DATA", SHARED / "data")
