"""YAML that says something twice, by reference or by tag is one clear line, never a guess."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mapflow.harness.analyses.lens import read_word_lists
from mapflow.model_adapters.checkpoints.pathways import read_pathways
from mapflow.model_adapters.interventions import read_interventions
from mapflow.results.contract import files
from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.files import parse_yaml, read_yaml

LAUGHS = "\n".join(
    ["a0: &a0 [ha, ha]", *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12))]
)
REFUSED = {
    "a: 1\nb: 2\na: 3": "line 3: key 'a' is there twice",
    "x: {y: 1, z: {k: 1, k: 1}}": "line 1: key 'k' is there twice",
    "- {a: 1, 'a': 2}": "key 'a' is there twice",
    "1: x\n'1': y": "key '1' is there twice",
    "a: &a 1\nb: *a": r"line 2: alias \*a is refused",
    "b: {<<: *a}": r"alias \*a is refused",
    LAUGHS: r"line 2: alias \*a0 is refused",
    "a: !!python/object/apply:os.system [ls]": "not YAML",
    "a: !!python/name:os.system": "not YAML",
    "a: !own x": "not YAML",
    "a: !!bool x": "not YAML",
    "a: !!int ''": "not YAML",
    "a: !!timestamp x": "not YAML",
    "a: 2001-99-99": "not YAML",
    "[" * 20_000: "not YAML",
    "a: " + "9" * 5000: "not YAML",
    "a: [": "not YAML",
    "a: 1\n---\nb: 2": "not YAML",
    "a: \x1b[31m": "not YAML",
}


@pytest.mark.parametrize("text", REFUSED, ids=range(len(REFUSED)))
def test_refused_in_one_line(text):
    with pytest.raises(MapflowError, match=REFUSED[text]) as error:
        parse_yaml(text, "mine.yaml")
    assert str(error.value).startswith("mine.yaml") and str(error.value).isprintable()


def test_what_people_write_is_read():
    assert parse_yaml("a: [6-15, 7, on]\nb: {c: null}", "here") == {
        "a": ["6-15", 7, True],
        "b": {"c": None},
    }
    assert parse_yaml("a: [6-15, 7, on]\nb: {c: null}", "here", text_only=True) == {
        "a": ["6-15", "7", "on"],
        "b": {"c": "null"},
    }


@pytest.mark.parametrize(
    ("read", "text"),
    [
        (read_interventions, "mine: full\nmine: random"),
        (read_word_lists, "mine: [left]\nmine: [right]"),
        (
            read_pathways,
            "cross_frame: 1-2\nvideo_to_question: 1-2\nquestion_to_last: 2\nmine: 1\nmine: 2",
        ),
    ],
)
def test_every_file_that_a_user_writes_is_read_strictly(tmp_path, read, text):
    file = tmp_path / "file.yaml"
    file.write_text(text)
    with pytest.raises(MapflowError, match="key 'mine' is there twice") as error:
        read(file)
    assert str(file) in str(error.value)


def test_too_large_and_unreadable_files(tmp_path, monkeypatch):
    file = tmp_path / "large.yaml"
    file.write_text("a: 1")
    assert read_yaml(file) == {"a": 1}
    monkeypatch.setattr(files, "LARGEST_YAML", 3)
    with pytest.raises(MapflowError, match="more than 3 bytes"):
        read_yaml(file)
    with pytest.raises(MapflowError, match="No such file"):
        read_yaml(tmp_path / "none.yaml")
    with pytest.raises(MapflowError, match="cannot be read"):
        read_yaml(tmp_path)
    file.write_bytes(b"\xff")
    with pytest.raises(MapflowError, match="not YAML"):
        read_yaml(file)


@given(
    st.lists(
        st.sampled_from([*"a:[]{}&*!|>'\"#-?, \n", "!!int ", "!!set ", "!!omap ", "<<", "1e3"])
    ).map("".join)
)
@settings(max_examples=400, deadline=None)
def test_any_text_is_read_or_refused_in_one_line(text):
    for text_only in (False, True):
        try:
            parse_yaml(text, "here", text_only=text_only)
        except MapflowError as error:
            assert "\n" not in str(error)
