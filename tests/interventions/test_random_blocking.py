"""Random blocking: exact budgets, only where it may, uniform, and a function of (seed, key, layer)
alone.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import torch
from hypothesis import given
from hypothesis import strategies as st
from naive import Spec, Term, allowed
from scipy import stats
from strategies import as_ranges, layout_of, pathway_ranges, prompts, quick

from mapflow.model_adapters.interventions import Segment, TokenLayout, parse_intervention

LAYOUT = TokenLayout.from_runs(
    [(Segment("system"), 3), (Segment("frame", 0), 5), (Segment("stem"), 3), (Segment("last"), 1)]
)
START, N = 3, 12
ELIGIBLE = [(q, k) for q in range(START, N) for k in range(START, q + 1)]


def cut_edges(
    expression: str, key: str, layer: int = 0, layout: TokenLayout = LAYOUT, n_layers: int = 8
):
    blocked = parse_intervention(expression).compile(layout, n_layers, None, key).blocked(layer)
    return set() if blocked is None else {(q, k) for q, k in blocked.nonzero().tolist()}


def cut_in_questions(expression: str, n_questions: int):
    """The edges cut in the first layer, question after question."""
    compiled = parse_intervention(expression).compile(LAYOUT, 1)
    for question in range(n_questions):
        blocked = replace(compiled, key=f"q{question}").blocked(0)
        assert blocked is not None
        yield [(q, k) for q, k in blocked.nonzero().tolist()]


@given(prompts(), st.floats(0, 1), st.integers(0, 2**63 - 1), st.text(max_size=8))
@quick
def test_a_ratio_is_a_share_of_all_causal_edges(prompt, ratio, seed, key):
    n = len(prompt)
    start = min(p for p in range(n) if prompt.called(p, "video"))
    eligible = sum(1 for q in range(start, n) for k in range(start, q + 1))
    wanted = min(int(n * (n + 1) // 2 * ratio), eligible)
    compiled = parse_intervention(f"random:ratio={ratio!r},seed={seed}").compile(
        layout_of(prompt), 3, None, key
    )
    for layer in range(3):
        mask = compiled.token_mask(layer)
        cut = torch.ones(n, n, dtype=torch.bool).tril() & ~mask
        assert int(cut.sum()) == wanted
        assert all(q >= start and k >= start for q, k in cut.nonzero().tolist())
        assert not mask.triu(1).any()
    assert compiled.edges_kept == 3 * (n * (n + 1) // 2 - wanted)


@given(prompts(usual=True), st.integers(1, 6), st.data())
@quick
def test_without_a_ratio_as_many_edges_as_effective_cuts(prompt, n_layers, data):
    ranges = data.draw(pathway_ranges(n_layers))
    spec = Spec((Term("effective"),), default_ranges=ranges)
    kept = sum(
        sum(map(sum, allowed(prompt, spec, layer, n_layers))) for layer in range(1, n_layers + 1)
    )
    compiled = parse_intervention("random").compile(
        layout_of(prompt), n_layers, as_ranges(ranges), "q"
    )
    assert compiled.edges_kept == kept
    cut = (compiled.total_by_layer - compiled.edges_by_layer).tolist()
    assert max(cut) - min(cut) <= 1, "spread evenly over the layers"


def test_uniform_over_the_edges():
    """Each eligible edge is cut equally often over many questions: over many seeds, the p-values of
    the chi-square test are themselves uniform (so the draw is neither lumpy nor suspiciously
    even).
    """
    n_questions, ratio, m = 200, 0.2, len(ELIGIBLE)
    p = int(N * (N + 1) // 2 * ratio) / m
    p_values = []
    for seed in (*range(30), 2**62 + 5, 2**63 - 1):
        counts = dict.fromkeys(ELIGIBLE, 0)
        for edges in cut_in_questions(f"random:ratio={ratio},seed={seed}", n_questions):
            for edge in edges:
                counts[edge] += 1
        # draws without replacement: each count is binomial, and all of them sum to a constant
        statistic = sum((count - n_questions * p) ** 2 for count in counts.values())
        statistic *= (m - 1) / m / (n_questions * p * (1 - p))
        p_values.append(stats.chi2.sf(statistic, m - 1))
    assert stats.kstest(p_values, "uniform").pvalue > 1e-3


def test_pairs_of_edges_are_cut_together_as_often_as_chance_says():
    """Uniform over *sets*, not only over single edges: two edges meet with probability
    b(b-1)/m(m-1).
    """
    n_questions, ratio = 2000, 0.3
    m, budget = len(ELIGIBLE), int(N * (N + 1) // 2 * ratio)
    together = torch.zeros(m, m)
    number = {edge: i for i, edge in enumerate(ELIGIBLE)}
    for edges in cut_in_questions(f"random:ratio={ratio},seed=5", n_questions):
        chosen = torch.tensor([number[edge] for edge in edges])
        row = torch.zeros(m)
        row[chosen] = 1
        together += row[:, None] * row[None]
    p = budget * (budget - 1) / (m * (m - 1))
    upper = together[torch.ones(m, m, dtype=torch.bool).triu(1)]
    z = (upper - n_questions * p) / (n_questions * p * (1 - p)) ** 0.5
    assert z.abs().max() < stats.norm.isf(1e-3 / len(upper))
    assert abs(float(z.var()) - 1) < 0.2


def test_rows_and_columns_of_a_real_prompt_are_cut_in_proportion():
    """The layers of one long prompt: the share of cut edges is the same everywhere."""
    layout = TokenLayout.from_runs(
        [(Segment("system"), 50), (Segment("frame", 0), 400), (Segment("last"), 1)]
    )
    compiled = parse_intervention("random:ratio=0.5,seed=1").compile(layout, 4, None, "a question")
    share = compiled.budget[0] / (401 * 402 / 2) if compiled.budget else 0
    for layer in range(4):
        blocked = compiled.blocked(layer)
        assert blocked is not None
        eligible = torch.zeros(451, 451, dtype=torch.bool)
        eligible[50:, 50:] = True
        eligible = eligible.tril()
        for cells in (lambda t: t[50:], lambda t: t.mT[50:]):
            cut, possible = cells(blocked).sum(1).double(), cells(eligible).sum(1).double()
            z = (cut - share * possible) / (share * (1 - share) * possible).sqrt().clamp(min=1)
            assert z.abs().max() < 5


def test_depends_on_seed_key_and_layer_alone():
    draws = {
        (seed, key, layer): frozenset(cut_edges(f"random:ratio=0.3,seed={seed}", key, layer))
        for seed, key, layer in product((0, 1, 7), ("a", "b", "1/a"), range(4))
    }
    assert len(set(draws.values())) == len(draws), "another seed, key or layer is another draw"
    for (seed, key, layer), edges in reversed(draws.items()):
        assert cut_edges(f"random:ratio=0.3,seed={seed}", key, layer) == edges, "in any order"
        assert cut_edges(f"random:ratio=0.3,seed={seed}", key, layer, n_layers=5) == edges
        assert cut_edges(f"random:ratio=0.3,seed={seed}+system->last", key, layer) == edges


def test_seed_layer_and_key_do_not_run_into_each_other():
    """seed 1 with key "2" is not seed 12 with an empty key, and so on."""
    texts = [(1, "1/a"), (11, "a"), (1, "/a"), (1, "a"), (1, "1a")]
    draws = [
        frozenset(cut_edges(f"random:ratio=0.3,seed={s}", k, layer))
        for s, k in texts
        for layer in (0, 1)
    ]
    assert len(set(draws)) == len(draws)


def test_a_larger_ratio_cuts_a_superset():
    """One draw orders the edges; the ratio says how many of them go."""
    few, many = (cut_edges(f"random:ratio={ratio},seed=2", "q") for ratio in (0.1, 0.4))
    assert few < many


def test_all_and_nothing():
    assert cut_edges("random:ratio=0", "q") == set()
    assert cut_edges("random:ratio=1", "q") == set(ELIGIBLE)
