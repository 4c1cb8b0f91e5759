"""Statistics for paired, binary, clustered outcomes: do two runs differ?

`compare_runs` compares two runs; every method that it uses can also be called alone. Differences
are treatment − baseline, as fractions.
"""

from mapflow.results.statistics.accuracy import (
    ChanceTest,
    accuracy,
    accuracy_drop,
    chance_level_test,
    wilson,
)
from mapflow.results.statistics.clusters import (
    cluster_bootstrap,
    cluster_sums,
    clustered_mean,
    clustered_standard_error,
    kish_design_effect,
)
from mapflow.results.statistics.cochran import Cells, cochran_q, count_cells, interaction
from mapflow.results.statistics.compare import (
    FEW_CLUSTERS,
    Comparison,
    Strata,
    claim,
    compare_runs,
    detectable,
    few_videos,
    judge,
    judge_macros,
    judge_together,
    sentence,
)
from mapflow.results.statistics.difference import (
    Equivalence,
    NonInferiority,
    PairedDifference,
    Verdict,
    equivalence,
    non_inferiority,
    paired_difference,
)
from mapflow.results.statistics.estimates import Interval, Test, count, points
from mapflow.results.statistics.multiplicity import (
    SweepBands,
    benjamini_hochberg,
    holm,
    simultaneous_bands,
)
from mapflow.results.statistics.pairing import PairedRuns, RunOutcomes, pair
from mapflow.results.statistics.power import (
    detectable_difference,
    largest_non_inferior_discordance,
    minimal_detectable_effect,
    power_of_difference,
    power_of_non_inferiority,
    questions_for_non_inferiority,
    questions_needed,
)
from mapflow.results.statistics.seeds import (
    SeedCondition,
    seed_condition,
    seeds_drop,
    seeds_macro_difference,
)
from mapflow.results.statistics.subtasks import (
    MacroDifference,
    MantelHaenszel,
    StratumDifference,
    homogeneity,
    macro_accuracy,
    macro_difference,
    mantel_haenszel,
    mantel_haenszel_of_tables,
    stratum_differences,
)

__all__ = [
    "FEW_CLUSTERS",
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
    "Strata",
    "StratumDifference",
    "SweepBands",
    "Test",
    "Verdict",
    "accuracy",
    "accuracy_drop",
    "benjamini_hochberg",
    "chance_level_test",
    "claim",
    "cluster_bootstrap",
    "cluster_sums",
    "clustered_mean",
    "clustered_standard_error",
    "cochran_q",
    "compare_runs",
    "count",
    "count_cells",
    "detectable",
    "detectable_difference",
    "equivalence",
    "few_videos",
    "holm",
    "homogeneity",
    "interaction",
    "judge",
    "judge_macros",
    "judge_together",
    "kish_design_effect",
    "largest_non_inferior_discordance",
    "macro_accuracy",
    "macro_difference",
    "mantel_haenszel",
    "mantel_haenszel_of_tables",
    "minimal_detectable_effect",
    "non_inferiority",
    "pair",
    "paired_difference",
    "points",
    "power_of_difference",
    "power_of_non_inferiority",
    "questions_for_non_inferiority",
    "questions_needed",
    "seed_condition",
    "seeds_drop",
    "seeds_macro_difference",
    "sentence",
    "simultaneous_bands",
    "stratum_differences",
    "wilson",
]
