"""Block-sparse attention and the other forms of a mask equal the float32 reference; its kernel
uncompiled, as compiling takes long.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import few
from torch.nn.attention.flex_attention import flex_attention
from torch.nn.functional import scaled_dot_product_attention

from mapflow.model_adapters.interventions.kernels import dense_attention
from mapflow.model_adapters.interventions.kernels.edges import ALIGNMENT, DenseEdges
from mapflow.model_adapters.interventions.kernels.reference import eager_attention


@pytest.fixture
def uncompiled(monkeypatch):
    monkeypatch.setattr(dense_attention, "_kernel", lambda: flex_attention)


def tensors(batch: int, heads: int, kv_heads: int, n_queries: int, n_keys: int):
    draw = torch.Generator().manual_seed(n_queries * 1000 + n_keys)
    sizes = [(heads, n_queries), (kv_heads, n_keys), (kv_heads, n_keys)]
    return [torch.randn(batch, count, rows, 16, generator=draw) for count, rows in sizes]


def mask(batch: int, n_queries: int, n_keys: int, whole_blocks: bool) -> torch.Tensor:
    """Random edges; with whole blocks that are empty and whole blocks that are full; rows without
    a key.
    """
    draw = torch.Generator().manual_seed(n_queries + n_keys)
    allowed = torch.rand(batch, 1, n_queries, n_keys, generator=draw) > 0.4
    if whole_blocks:
        allowed[..., :128] = False
        allowed[:, :, 128:256, 128:256] = True
    allowed[:, :, n_queries // 2] = False
    return allowed


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("batch, n_queries, n_keys", [(1, 300, 300), (2, 130, 517)])
def test_blocks_equal_the_reference(uncompiled, kv_heads, batch, n_queries, n_keys):
    query, key, value = tensors(batch, 4, kv_heads, n_queries, n_keys)
    edges = DenseEdges(mask(batch, n_queries, n_keys, whole_blocks=True))
    found = dense_attention.block_sparse_attention(query, key, value, edges, scaling=0.3)
    slow, _ = eager_attention(query, key, value, edges.filled, scaling=0.3)
    torch.testing.assert_close(found, slow, rtol=1e-5, atol=1e-5)
    assert edges.blocks.sparsity() > 0, "empty blocks are left out"


@given(st.integers(1, 40), st.integers(1, 70))
@few
def test_a_bias_is_its_mask_in_aligned_rows(n_queries, n_keys):
    query, key, value = tensors(1, 2, 2, n_queries, n_keys)
    edges = DenseEdges(mask(1, n_queries, n_keys, whole_blocks=False))
    bias = edges.bias(torch.float32)
    assert bias.stride(-2) % ALIGNMENT == 0 and bias is edges.bias(torch.float32)
    assert torch.equal(bias == 0, edges.filled)
    by_bias = scaled_dot_product_attention(query, key, value, attn_mask=bias)
    slow, _ = eager_attention(query, key, value, edges.filled)
    torch.testing.assert_close(by_bias.transpose(1, 2), slow, rtol=1e-4, atol=1e-5)


def test_rows_without_a_key_are_known_and_filled():
    edges = DenseEdges(mask(1, 10, 12, whole_blocks=False))
    assert edges.empty is not None
    assert edges.empty[0, 0, 5] and edges.filled[0, 0, 5].all()
    assert torch.equal(edges.empty[..., 0], ~edges.allowed.any(-1))
    assert DenseEdges(torch.ones(1, 1, 2, 2, dtype=torch.bool), may_be_empty=False).empty is None


def test_only_large_half_precision_attention_on_a_gpu_goes_by_blocks():
    query, key, _ = tensors(1, 2, 2, 600, 3000)
    assert not dense_attention.block_sparse_pays(query.bfloat16(), key.bfloat16())
