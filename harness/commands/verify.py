"""`mapflow verify`: checks of the instrument on one checkpoint; exit code 1 if a check fails."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from mapflow.model_adapters.families.registry import families

    parser.add_argument(
        "model", choices=sorted(families()), help="adapter: %(choices)s", metavar="MODEL"
    )
    parser.add_argument(
        "--pretrained",
        metavar="DIR",
        help="checkpoint folder (default for mapflow_llava: the small bundled model)",
    )
    parser.add_argument("--lora", metavar="DIR", help="LoRA adapter on top of it")
    parser.add_argument("--dtype", default="auto", help="as in --model_args (default: %(default)s)")
    parser.add_argument(
        "--device", help="cpu, cuda, cuda:N or auto (default: a GPU where there is one)"
    )


def run(options: argparse.Namespace) -> int:
    """Exit code: 0 all passed, 1 a check failed."""
    from mapflow.harness.verification import verify
    from mapflow.harness.verification.noise import NOISE
    from mapflow.model_adapters.families.registry import load_model
    from mapflow.results.contract.errors import FAILED

    model = load_model(
        options.model,
        options.pretrained,
        dtype=options.dtype,
        device=options.device,
        lora=options.lora,
    )
    dtype = str(next(model.model.parameters()).dtype).removeprefix("torch.")
    print(
        f"{options.model} {model.name}: {model.decoder.n_layers} layers, {dtype} on"
        f" {model.decoder.device}"
    )
    passed = []
    for finding in verify(model):
        print(finding, flush=True)
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
