"""Certifying an adapter on the spot: does the instrument do to this model what it says it does?

Each check is one short file: a function from a `Subject` (a loaded model with two questions prepared) to findings. What
the checks guarantee and what they cannot is said in model_adapters/README.md. Knows no family.
"""

from mapflow.harness.verification.certify import CHECKS, verify
from mapflow.harness.verification.finding import Finding
from mapflow.harness.verification.subject import Subject

__all__ = ["CHECKS", "Finding", "Subject", "verify"]
