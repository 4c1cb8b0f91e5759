"""Shares of a run: disjoint, complete, even, and independent of the order of questions."""

from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from mapflow.harness.analyses.run import Shard

IDS = st.lists(st.text("ab/01é", min_size=1), unique=True, max_size=40)


def shares(ids, world):
    questions: list = [SimpleNamespace(question_id=name) for name in ids]
    return [
        [one.question_id for one in Shard(rank, world).share(questions)] for rank in range(world)
    ]


@given(IDS, st.integers(1, 9))
def test_shares_are_disjoint_complete_and_even(ids, world):
    dealt = shares(ids, world)
    assert sorted(name for share in dealt for name in share) == sorted(ids)
    assert max(map(len, dealt)) - min(map(len, dealt)) <= 1


@given(IDS.flatmap(lambda ids: st.tuples(st.just(ids), st.permutations(ids))), st.integers(1, 9))
def test_a_share_does_not_depend_on_the_order_of_the_questions(both, world):
    ids, shuffled = both
    assert shares(ids, world) == shares(shuffled, world)


def test_processes_know_their_place_from_what_launchers_set(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert Shard.from_environment() == Shard(0, 1)
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert Shard.from_environment() == Shard(3, 8)
