"""What numbers were measured on, in words for below a table, and what makes two runs unequal.

Everything comes from the runs' manifests and records: nothing is looked up on this machine, whose versions need not be
those of the run.
"""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from mapflow.results.runs.run import Run

FOLDERS = ("harness", "model_adapters", "results", "tasks")
READERS = {
    "commands",
    "figures",
    "report",
    "reporting",
    "statistics",
    "verification",
    "tables",
    "cli",
}


def provenance(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """(label, value) lines: one for every folder, then one for every intervention, each said once."""
    lines: list[tuple[str, str]] = []
    for source in dict.fromkeys(run.source for run in runs):
        own = [run for run in runs if run.source == source]
        lines.append((source.name or str(source), "; ".join(_about(own))))
        lines += [
            (f"{source.name}: {run.intervention}", _in_full(run)) for run in _first_of_each(own)
        ]
    return lines


def disagreements(baseline: Run, treatment: Run) -> list[str]:
    """Sentences that a reader of a comparison must know: protocols, frames, versions or dtypes that differ.

    Another checkpoint or intervention is what a comparison is about, and no warning.
    """
    found = []
    if baseline.protocol != treatment.protocol:
        found.append(
            f"Warning: protocols differ ({baseline.protocol or 'unknown'} and {treatment.protocol or 'unknown'}): this"
            " compares prompts as well."
        )
    if others := _other_frames(baseline, treatment):
        found.append(f"Warning: {others:,} shared questions were shown with other frames.")
    ours, theirs = baseline.manifest.get("identity") or {}, treatment.manifest.get("identity") or {}
    if changed := _changed({"dtype": ours.get("dtype")}, {"dtype": theirs.get("dtype")}):
        found.append(f"Warning: dtypes differ: {changed}.")
    if changed := _changed(ours.get("versions") or {}, theirs.get("versions") or {}):
        found.append(f"Warning: versions differ: {changed}.")
    if baseline.model == treatment.model and _changed(
        {"digest": ours.get("digest")}, {"digest": theirs.get("digest")}
    ):
        found.append(
            f"Warning: both checkpoints are called {baseline.model}, but their weights differ."
        )
    return found


def _changed(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    """What both sides know and know differently."""
    return ", ".join(
        f"{name} {value} and {theirs[name]}"
        for name, value in ours.items()
        if value is not None and theirs.get(name) not in (None, value)
    )


def _other_frames(baseline: Run, treatment: Run) -> int:
    """Questions that both runs answered, whose frames are known in both and differ."""
    if baseline.source == treatment.source and np.array_equal(baseline.frames, treatment.frames):
        return 0
    ours, theirs = (
        {q: f for q, f in zip(run.question_id.tolist(), run.frames.tolist(), strict=True) if f}
        for run in (baseline, treatment)
    )
    return sum(theirs.get(question, frames) != frames for question, frames in ours.items())


def _first_of_each(runs: Sequence[Run]) -> list[Run]:
    return list({run.intervention: run for run in reversed(runs)}.values())[::-1]


def _in_full(run: Run) -> str:
    """The intervention with the model's own layer ranges filled in, as the run recorded it."""
    return str((run.manifest.get("interventions") or {}).get(run.intervention, run.intervention))


def _about(runs: Sequence[Run]) -> list[str]:
    protocols = sorted({run.protocol for run in runs if run.protocol})
    seeds = sorted({run.seed for run in runs if run.seed is not None})
    return manifest_lines(runs[0].manifest, protocols, seeds)


def manifest_lines(
    manifest: Mapping[str, Any], protocols: Sequence[str] = (), seeds: Sequence[int] = ()
) -> list[str]:
    """A manifest in words; `protocols` and `seeds` are those of the records, where they know them."""
    identity = manifest.get("identity") or {}
    versions = identity.get("versions") or {}
    git = manifest.get("git")
    if isinstance(git, dict):
        git = " ".join(str(value) for value in git.values() if value)
    protocol = ", ".join(protocols) or identity.get("protocol")
    digest = identity.get("digest")
    return [
        f"model {identity.get('model', 'not recorded')}",
        f"checkpoint {identity.get('checkpoint', 'not recorded')}",
        f"digest {digest}" if digest else "digest not recorded",
        f"protocol {protocol}" if protocol else "protocol not recorded",
        f"seeds {', '.join(map(str, seeds)) or 'none'}",
        f"{identity.get('dtype', 'dtype not recorded')} on {manifest.get('device', 'a device not recorded')}",
        "versions "
        + (", ".join(f"{name} {value}" for name, value in versions.items()) or "not recorded"),
        f"git {git}" if git else "git state not recorded",
    ]


@cache
def code_version(root: Path | None = None) -> str:
    """Twelve hex digits. `root` holds the four folders; left out, the code that is running."""
    root, running = root or Path(__file__).parents[2], hashlib.sha256()
    for name in FOLDERS:
        folder = root / name
        for file in sorted(folder.rglob("*.py")):
            inside = file.relative_to(folder)
            if not READERS.intersection(inside.parts):
                running.update(f"{name}/{inside.as_posix()}\0".encode())
                running.update(hashlib.sha256(file.read_bytes()).digest())
    return running.hexdigest()[:12]


def git_state(file: Path = Path(__file__)) -> str | None:
    """The commit that `file` belongs to, with "dirty" behind it where tracked files differ; None outside a checkout.

    A file that git does not track belongs to nobody's commit: an installed package may lie inside a stranger's checkout.
    """
    place = file.resolve()

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(place.parent), *words],
                capture_output=True,
                text=True,
                timeout=10,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit = git("rev-parse", "--short=12", "HEAD")
    if commit is None or git("ls-files", "--error-unmatch", place.name) is None:
        return None
    return f"{commit} dirty" if git("status", "--porcelain", "--untracked-files=no") else commit
