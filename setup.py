"""Lists the packages; everything else is in pyproject.toml.

The four code folders are installed below one import name. `mapflow` itself is
`harness/package_root`. Packages are found, not listed, so a new folder needs no entry.
"""

from setuptools import find_packages, setup

FLOORS = ("harness", "tasks", "model_adapters", "results")
FOUND = find_packages(
    include=[*FLOORS, *(f"{floor}.*" for floor in FLOORS)], exclude=["harness.package_root"]
)

setup(packages=["mapflow", *(f"mapflow.{name}" for name in FOUND)])
