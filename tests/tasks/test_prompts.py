"""The exact wordings: the paper's from the authors' code, the benchmarks' own from theirs."""

import pytest

from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.question import Question
from mapflow.tasks.data_folder import DataFolder
from mapflow.tasks.registry import BENCHMARKS

from .folders import tomato_row, tvbench_row, write_tomato, write_tvbench

SYSTEM = (
    "Carefully watch the video and pay attention to the cause and sequence of events, the detail"
    " and movement of objects, and the action and pose of persons. Based on your observations,"
    " select the best option that accurately addresses the question.\n"
)


@pytest.fixture
def asked(tmp_path):
    """A function from a benchmark's name and a protocol to a question."""

    def read(name, protocol):
        write_tvbench(tmp_path, {"action_count": [tvbench_row(question="Which way?")]})
        write_tomato(tmp_path, {"count": [tomato_row(options=["1", "it's 2", "3"])]})
        benchmark = BENCHMARKS[name]
        subtask = {"tvbench": "action_count", "tomato": "count"}[name]
        return benchmark.questions(DataFolder(benchmark.layout, tmp_path), subtask, protocol)[0]

    return read


def text(question: Question, style) -> str:
    return "".join(part.text for part in question.user_turn(style))


def test_the_papers_wording(asked):
    question = asked("tvbench", "paper")
    assert question.prompt("completion").system == SYSTEM
    assert text(question, "completion") == (
        "Question: Which way?\nOptions:\n(A) Left.\n(B) Right. \nOnly give the best option."
    )
    assert question.prompt("completion").answer_prefix == "Best option:("
    assert text(question, "chat") == (
        "Question: Which way?\nOptions:\n(A) Left.\n(B) Right.\nAnswer with the option's letter"
        " from the given choices directly and only give the best option."
    )
    assert (question.prompt("chat").system, question.prompt("chat").answer_prefix) == ("", "")
    assert (question.n_frames, question.max_new_tokens) == (None, 1)


def test_the_paper_words_both_benchmarks_alike():
    assert BENCHMARKS["tvbench"].protocol("paper") == BENCHMARKS["tomato"].protocol("paper")


def test_tvbenchs_own(asked):
    question = asked("tvbench", "official")
    assert question.prompt("completion").system == SYSTEM
    assert text(question, "completion").endswith("(B) Right.\nOnly give the best option.")
    assert (question.n_frames, question.max_new_tokens) == (16, 100)


def test_tomatos_own(asked):
    """Options are a Python dictionary, quoting included."""
    question = asked("tomato", "official")
    rendered = text(question, "completion")
    options = {"A": "1", "B": "it's 2", "C": "3"}
    assert (
        f"<question> \nHow many? \n</question>\n\n<options> \n{options} \n</options>\n\nEven if"
        in rendered
    )
    assert rendered.startswith("You will be provided with 16 separate frames uniformly sampled")
    assert (question.n_frames, question.max_new_tokens) == (16, 1024)
    kinds = [part.kind for part in question.user_turn("completion")]
    assert kinds[0] == kinds[-1] == "template"
    assert (
        "".join(p.text for p in question.user_turn("completion") if p.kind == "stem") == "How many?"
    )


def test_parts_are_what_they_say(asked):
    question = asked("tvbench", "paper")
    parts = question.user_turn("completion")
    assert [part.text for part in parts if part.kind == "option"] == ["(A) Left.", "(B) Right."]
    assert [part.option for part in parts if part.kind == "option"] == [0, 1]


def test_unknown_protocol(asked):
    with pytest.raises(MapflowError, match="no protocol 'offical'; it has paper, official"):
        asked("tvbench", "offical")


def test_the_bundled_benchmark_asks_chat_models_in_the_papers_words_too():
    ours, papers = (BENCHMARKS[name].protocol("paper").prompts for name in ("motion", "tvbench"))
    assert ours["chat"] == papers["chat"]
    assert ours["completion"].answer_prefix == papers["completion"].answer_prefix
