"""One policy, one short file. A policy says which edges it cuts; policies combine by union."""

from mapflow.model_adapters.interventions.language.policies.cut import Cut, Knockout
from mapflow.model_adapters.interventions.language.policies.early_exit import EarlyExit
from mapflow.model_adapters.interventions.language.policies.effective import Effective
from mapflow.model_adapters.interventions.language.policies.policy import Policy
from mapflow.model_adapters.interventions.language.policies.random_blocking import RandomBlocking

__all__ = ["Cut", "EarlyExit", "Effective", "Knockout", "Policy", "RandomBlocking"]
