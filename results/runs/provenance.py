"""Provenance of results: code, weights and versions, as lines below a table and as warnings.

`code_version` and `git_state` describe the running code when a manifest is written. All other
functions read manifests and records only: the versions on this machine may differ from the run's.
"""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from mapflow.results.runs.model_names import model_name
from mapflow.results.runs.run import Run, labels, model_names

FOLDERS = ("harness", "model_adapters", "results", "tasks")
READERS = {
    *("api", "cli", "commands", "package_root", "reporting", "verification"),
    *("exchange", "figures", "report", "statistics", "tables"),
    "training",
}
"""Rooms whose code cannot change a record: front ends, readers of records, and training, whose
result is covered by the digest of the weights."""


def provenance(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """(label, value) lines: one per folder, each followed by one per intervention in it."""
    lines: list[tuple[str, str]] = []
    for source in dict.fromkeys(run.source for run in runs):
        own = [run for run in runs if run.source == source]
        lines.append((source.name or str(source), "; ".join(_about(own))))
        lines += [
            (f"{source.name}: {run.intervention}", _in_full(run)) for run in _first_of_each(own)
        ]
    return lines


def disagreements(baseline: Run, treatment: Run) -> list[str]:
    """Warnings for a comparison: protocols, frames, dtypes, versions or weights that differ.

    A different checkpoint or intervention is the subject of a comparison, so it is not a warning.
    """
    found = []
    if baseline.protocol != treatment.protocol:
        found.append(
            f"Warning: protocols differ ({baseline.protocol or 'unknown'} and"
            f" {treatment.protocol or 'unknown'}): this"
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
    notes = (uncut_note(run.manifest) for run in (baseline, treatment))
    return [*found, *dict.fromkeys(note for note in notes if note)]


def disagreements_between(runs: Sequence[Run]) -> list[str]:
    """The `disagreements` of every pair of runs, one line per run and warning."""
    models = model_names(runs)
    names = [f"{model} {run.intervention}" for model, run in zip(models, runs, strict=True)]
    if len(set(names)) < len(names):
        names = labels(runs)
    found: dict[tuple[int, str], list[str]] = {}
    for i, j in combinations(range(len(runs)), 2):
        for warning in disagreements(runs[i], runs[j]):
            found.setdefault((i, warning), []).append(names[j])
    return [
        f"{names[i]} and {', '.join(others)}: {warning}" for (i, warning), others in found.items()
    ]


def other_model(baseline: Run, treatment: Run) -> str:
    """How the models of two runs differ, as far as both folders say; empty for one model."""
    ours, theirs = (
        {"model": run.model, "adapter": identity.get("model"), "weights": identity.get("digest")}
        | {f"argument {name}": value for name, value in (identity.get("model_args") or {}).items()}
        if (identity := run.manifest.get("identity") or {}).get("model")
        else {}
        for run in (baseline, treatment)
    )
    return _changed(ours, theirs)


def uncut_note(manifest: Mapping[str, Any]) -> str | None:
    """The sentence that belongs below every table of a run whose model has uncut layers."""
    said = manifest.get("uncut_layers")
    return f"Note: {said}." if isinstance(said, str) else None


def _changed(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    """The values that both sides recorded and that differ."""
    return ", ".join(
        f"{name} {value} and {theirs[name]}"
        for name, value in ours.items()
        if value is not None and theirs.get(name) not in (None, value)
    )


def _other_frames(baseline: Run, treatment: Run) -> int:
    """The number of shared questions whose frames are known in both runs and differ."""
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
    """A manifest as short phrases; `protocols` and `seeds` come from the records."""
    identity = manifest.get("identity") or {}
    versions = identity.get("versions") or {}
    git = manifest.get("git")
    if isinstance(git, dict):
        git = " ".join(str(value) for value in git.values() if value)
    protocol = ", ".join(protocols) or identity.get("protocol")
    digest = identity.get("digest")
    return [
        f"model {identity.get('model', 'not recorded')}",
        f"checkpoint {model_name(manifest, 'not recorded')}"
        if identity.get("checkpoint")
        else "checkpoint not recorded",
        *(
            f"{name} {'default' if value is None else value}"
            for name, value in (identity.get("model_args") or {}).items()
        ),
        f"digest {digest}" if digest else "digest not recorded",
        *filter(None, [manifest.get("uncut_layers")]),
        f"protocol {protocol}" if protocol else "protocol not recorded",
        f"seeds {', '.join(map(str, seeds)) or 'none'}",
        f"{identity.get('dtype', 'dtype not recorded')} on"
        f" {manifest.get('device', 'a device not recorded')}",
        "versions "
        + (", ".join(f"{name} {value}" for name, value in versions.items()) or "not recorded"),
        f"git {git}" if git else "git state not recorded",
    ]


@cache
def code_version(root: Path | None = None) -> str:
    """Digest of the source that can change a record, as twelve hexadecimal digits.

    A run is only resumed by the code that began it. The version number alone does not distinguish
    a checkout from the same checkout with an edit. `root` holds the four folders (default: the
    running code).
    """
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
    """The commit that contains `file`, with "dirty" appended if tracked files differ.

    None outside a checkout, and for a file that git does not track: an installed package may lie
    inside the checkout of another project.
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
