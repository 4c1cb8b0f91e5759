"""Finding: one line of the certificate."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """`detail` is what was measured, in a form that also explains a failure."""

    check: str
    passed: bool
    detail: str

    def __str__(self) -> str:
        return f"{'pass' if self.passed else 'FAIL'}  {self.check:<18} {self.detail}"
