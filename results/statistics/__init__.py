"""Do two runs really differ? Statistics for paired, binary, clustered outcomes (design.md, "Statistics").

`compare_runs` answers for two runs; everything it uses can be called by itself. Differences are treatment − baseline,
as fractions. Knows no files, no models and no torch.
"""

from mapflow.results.statistics.accuracy import accuracy, wilson
from mapflow.results.statistics.bootstrap import cluster_bootstrap
from mapflow.results.statistics.chance import ChanceTest, chance_level_test
from mapflow.results.statistics.cochran import cochran_q
from mapflow.results.statistics.compare import Comparison, Strata, compare_runs, compare_to_baseline
from mapflow.results.statistics.design_effect import (
    clustered_variance,
    design_effect,
    kish_design_effect,
)
from mapflow.results.statistics.findings import Interval, Test
from mapflow.results.statistics.macro import MacroDifference, macro_accuracy, macro_difference
from mapflow.results.statistics.mcnemar import Cells, count_cells, mcnemar_exact, mcnemar_mid_p
from mapflow.results.statistics.multiplicity import benjamini_hochberg, holm
from mapflow.results.statistics.non_inferiority import (
    Equivalence,
    NonInferiority,
    Verdict,
    equivalence,
    non_inferiority,
)
from mapflow.results.statistics.paired_difference import PairedDifference, paired_difference
from mapflow.results.statistics.pairing import PairedRuns, RunOutcomes, cluster_sums, pair
from mapflow.results.statistics.power import (
    largest_non_inferior_discordance,
    minimal_detectable_effect,
    power_of_difference,
    power_of_non_inferiority,
    questions_needed,
)
from mapflow.results.statistics.seeds import SeedCondition, seed_condition
from mapflow.results.statistics.sentence import points, sentence
from mapflow.results.statistics.sign_flip import SignFlip, cluster_sign_flip
from mapflow.results.statistics.simultaneous import SweepBands, simultaneous_bands
from mapflow.results.statistics.stratified import (
    MantelHaenszel,
    StratumDifference,
    homogeneity,
    mantel_haenszel,
    mantel_haenszel_of_tables,
    stratum_differences,
)
from mapflow.results.statistics.tango import tango_interval, tango_score

__all__ = [
    "Cells",
    "ChanceTest",
    "Comparison",
    "Equivalence",
    "Interval",
    "MacroDifference",
    "MantelHaenszel",
    "NonInferiority",
    "PairedDifference",
    "PairedRuns",
    "RunOutcomes",
    "SeedCondition",
    "SignFlip",
    "Strata",
    "StratumDifference",
    "SweepBands",
    "Test",
    "Verdict",
    "accuracy",
    "benjamini_hochberg",
    "chance_level_test",
    "cluster_bootstrap",
    "cluster_sign_flip",
    "cluster_sums",
    "clustered_variance",
    "cochran_q",
    "compare_runs",
    "compare_to_baseline",
    "count_cells",
    "design_effect",
    "equivalence",
    "holm",
    "homogeneity",
    "kish_design_effect",
    "largest_non_inferior_discordance",
    "macro_accuracy",
    "macro_difference",
    "mantel_haenszel",
    "mantel_haenszel_of_tables",
    "mcnemar_exact",
    "mcnemar_mid_p",
    "minimal_detectable_effect",
    "non_inferiority",
    "pair",
    "paired_difference",
    "points",
    "power_of_difference",
    "power_of_non_inferiority",
    "questions_needed",
    "seed_condition",
    "sentence",
    "simultaneous_bands",
    "stratum_differences",
    "tango_interval",
    "tango_score",
    "wilson",
]
