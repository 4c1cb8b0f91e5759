"""`extra.*` of LLaVA goldens: queries without keys, where ours differs by design.

Its bfloat16 logits are not compared: they differ from ours in bfloat16 by up to 5.6 %, beyond the
bound for two orders of the same sums, as the authors' code rounds in other places too.
"""

from __future__ import annotations

import pytest
import torch
from golden import LOGITS
from golden_interventions import plain_logits, plan_of
from golden_pllava import llava_goldens

from mapflow.model_adapters.interventions.kernels import attention
from mapflow.model_adapters.interventions.kernels.reference import eager_attention


@pytest.fixture(scope="module")
def goldens(golden_root):
    found = [golden for golden in llava_goldens(golden_root) if golden.has("extra")]
    return found or pytest.skip("no golden of the LLaVA family has extra.json")


def test_rows_without_keys_differ_as_documented(goldens, monkeypatch):
    """`extra.*`: the authors' code lets a query without any key average over all positions, the
    later ones included; here it attends to nothing. With that one rule exchanged, all agrees."""
    read = 0
    for golden in goldens:
        facts, arrays = golden.numbers("extra")
        for name, row in facts.items():
            if f"edge_{name}_logits" not in arrays:
                continue
            sample = golden.samples[int(name.rpartition("sample")[2])]
            n, n_layers = len(sample.prepared.layout), golden.model.decoder.n_layers
            allowed = torch.ones(n_layers, n, n, dtype=torch.bool).tril()
            queries = torch.tensor(row["query"])
            if len(queries) == 2:
                queries = torch.arange(*row["query"])
            keys = torch.arange(n) if row["keys"] == "all" else torch.tensor(row["keys"])
            for layer in row["layers"]:
                allowed[layer, queries[:, None], keys] = False
            expected = torch.from_numpy(arrays[f"edge_{name}_logits"])
            ours = plain_logits(golden, sample, plan_of(allowed))
            core = golden.model.decoder.core
            with monkeypatch.context() as patch:
                patch.setattr(attention, "eager_attention", averaging)
                core.set_attn_implementation(attention.EAGER)
                try:
                    theirs = plain_logits(golden, sample, plan_of(allowed))
                finally:
                    core.set_attn_implementation(attention.SDPA)
            torch.testing.assert_close(theirs, expected, rtol=0, atol=LOGITS)
            assert (ours - expected).abs().max() > LOGITS, "the rule acts on this row"
            read += 1
    assert read, "extra.npz has rows without keys"


def averaging(query, key, value, allowed, scaling=None, *scores):
    """The reference implementation; a query without keys averages all of them."""
    output, weights = eager_attention(query, key, value, allowed, scaling, *scores)
    groups = query.shape[1] // value.shape[1]
    mean = value.repeat_interleave(groups, 1).mean(2)[:, None]
    empty = ~allowed.any(-1).transpose(1, 2)[..., None]
    return torch.where(empty, mean, output), weights
