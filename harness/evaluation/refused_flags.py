"""Flags of lmms-eval that could not act on a mapflow model: refused by name, before weights load.

Prompts come from a task's protocol, answers are greedy, and records are the cache. lmms-eval would
accept these flags and the numbers would not change, or would not be those that the flag promises.
"""

from __future__ import annotations

import argparse

from mapflow.results.contract.errors import MapflowError

PROMPT = "prompts come from the task's protocol: use --protocol"
REFUSED = {
    "num_fewshot": ((None, 0), f"questions are asked without examples; {PROMPT}"),
    "fewshot_as_multiturn": ((False,), f"questions are asked without examples; {PROMPT}"),
    "system_instruction": ((None,), PROMPT),
    "apply_chat_template": ((False,), PROMPT),
    "use_cache": ((None,), "the records in --output_path are the cache: run the command again"),
    "cache_requests": ((None,), "questions are read anew, as another --protocol changes them"),
    "predict_only": ((False,), "answers are scored as they are recorded: leave it out"),
    "seed": (
        (None, "0,1234,1234,1234", [0, 1234, 1234, 1234]),
        "records do not depend on it; seeds belong to an intervention: random:seed=1",
    ),
    "repeats": ((None, 1), "answers are greedy, so repeating a question gives the same: use 1"),
    "max_tokens": (
        (None,),
        "tokens are not counted over a run; for the length of answers use"
        " --gen_kwargs max_new_tokens=N",
    ),
    "log_samples_suffix": (("model_outputs",), "file names of sample logs do not change by it"),
    "agentic_trace_mode": (("basic",), "every question is one round"),
}
"""Flag → values that are accepted (its default), and why no other one is."""
POWER = {
    "effect_size": 0.03,
    "alpha": 0.05,
    "power": 0.80,
    "correlation": 0.5,
    "std_a": None,
    "std_b": None,
}
"""Flags that act with --power-analysis only, and their defaults."""


def check_flags(args: argparse.Namespace) -> None:
    """Raises MapflowError for the first flag that would be ignored."""
    for name, (accepted, why) in REFUSED.items():
        value = getattr(args, name, accepted[0])
        if value not in accepted:
            shown = "" if value is True else f" {_typed(value)}"
            raise MapflowError(f"--{name}{shown} cannot act on {args.model}: {why}")
    for name, default in POWER.items():
        value = getattr(args, name, default)
        if value != default and not getattr(args, "power_analysis", False):
            flag = name.replace("_", "-")
            raise MapflowError(f"--{flag} {value} acts with --power-analysis only: add it")


def _typed(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
