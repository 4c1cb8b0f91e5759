"""`mapflow verify`: checks of the instrument on one checkpoint; exit code 1 if a check fails."""

from __future__ import annotations

import argparse
import sys

from tqdm import tqdm

from mapflow.harness.cli.arguments import (
    add_checkpoint_arguments,
    chosen_model,
    chosen_model_args,
)
from mapflow.harness.cli.early_checks import early_model
from mapflow.model_adapters.progress import steps
from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.visible_text import counted
from mapflow.results.runs.processes import processes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from mapflow.model_adapters.families.registry import families

    parser.add_argument("model", help=f"adapter: {', '.join(families())}", metavar="MODEL")
    add_checkpoint_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Exit code: 0 all passed, 1 a check failed."""
    if not processes().alone:
        raise MapflowError(
            "verify checks one model in one process: start it without torchrun or srun"
        )
    early_model(options.model, chosen_model_args(options))
    from mapflow.harness.verification import verify
    from mapflow.model_adapters.inference.subject import weights_dtype
    from mapflow.model_adapters.interventions.inspection.noise import NOISE
    from mapflow.results.contract.errors import FAILED

    model = chosen_model(options)
    dtype = str(weights_dtype(model)).removeprefix("torch.")
    print(
        f"{options.model} {model.name}: {counted(model.decoder.n_layers, 'layer')}, {dtype} on"
        f" {model.decoder.device}"
    )
    passed = []
    with steps("verify") as step:
        for finding in verify(model):
            tqdm.write(str(finding), file=sys.stdout)
            sys.stdout.flush()
            step(finding.check, 1)
            passed.append(finding.passed)
    bounds = ", ".join(
        f"{str(key).removeprefix('torch.')} {bound.logits:.0e}" for key, bound in NOISE.items()
    )
    print(f"noise bounds (relative): {bounds}")
    print(
        f"{sum(passed)} of {len(passed)} passed"
        + ("" if all(passed) else f", {passed.count(False)} FAILED")
    )
    return 0 if all(passed) else FAILED
