"""The registry of policies: a new policy is one file in this folder and one entry in `POLICIES`."""

from mapflow.model_adapters.interventions.language.policies.cut import Cut, Knockout
from mapflow.model_adapters.interventions.language.policies.early_exit import EarlyExit
from mapflow.model_adapters.interventions.language.policies.effective import Effective
from mapflow.model_adapters.interventions.language.policies.policy import Policy
from mapflow.model_adapters.interventions.language.policies.random_blocking import RandomBlocking

POLICIES: tuple[type[Policy], ...] = (Effective, RandomBlocking, Knockout, EarlyExit, Cut)
"""In the order in which a term is offered to them and in which error messages list their names."""

__all__ = ["POLICIES", "Cut", "EarlyExit", "Effective", "Knockout", "Policy", "RandomBlocking"]
