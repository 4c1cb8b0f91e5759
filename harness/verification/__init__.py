"""Checks that the instrument does to a loaded model what it claims (`mapflow verify`)."""

from mapflow.harness.verification.model_under_test import Finding, ModelUnderTest
from mapflow.harness.verification.run import CHECKS, verify

__all__ = ["CHECKS", "Finding", "ModelUnderTest", "verify"]
