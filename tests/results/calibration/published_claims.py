"""From the paper's Table 3 alone: up to which discordance is each "retains performance" non-inferior at two points?

Only accuracies and the number of questions are published, so the share of questions that flipped is unknown; the table
says how large it may have been. `python published_claims.py` prints it as Markdown.
"""

from __future__ import annotations

from mapflow.results.statistics import largest_non_inferior_discordance, points

QUESTIONS = {"TVBench": 2525, "TOMATO": 1484}
ACCURACIES = (  # arXiv 2510.13251, Table 3: full, effective
    ("LLaVA-NeXT-7B", "TVBench", 51.5, 51.2),
    ("LLaVA-NeXT-7B", "TOMATO", 30.2, 29.2),
    ("LLaVA-NeXT-13B", "TVBench", 55.1, 54.6),
    ("LLaVA-NeXT-13B", "TOMATO", 27.2, 27.4),
    ("Mini-InternVL-4B", "TVBench", 56.0, 56.0),
    ("Mini-InternVL-4B", "TOMATO", 32.2, 31.2),
    ("VideoLLaMA3-7B", "TVBench", 55.2, 57.2),
    ("VideoLLaMA3-7B", "TOMATO", 28.0, 28.7),
)
ROUNDING = 0.1  # points: each printed accuracy may be off by half of the last digit


def claims_table() -> str:
    """The table of the README."""
    lines = [
        "| model | benchmark | full → effective | difference | non-inferior up to | worst rounding | design effect 1.5 |",
        "|---|---|---|---|---|---|---|",
    ]
    for model, benchmark, full, effective in ACCURACIES:
        n, difference = QUESTIONS[benchmark], (effective - full) / 100
        limits = (
            largest_non_inferior_discordance(n, difference),
            largest_non_inferior_discordance(n, difference - ROUNDING / 100),
            largest_non_inferior_discordance(n, difference, design_effect=1.5),
        )
        shown = " | ".join("never" if limit is None else f"{limit * 100:.1f} %" for limit in limits)
        lines.append(f"| {model} | {benchmark} | {full} → {effective} | {points(difference)} | {shown} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(claims_table())
