"""The language of interventions: canonical forms come back, mistakes are one clear line."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import Spec, Term
from strategies import as_ranges, cases, layout_of, quick

from mapflow.model_adapters.interventions import (
    Intervention,
    parse_intervention,
    parse_interventions,
    read_interventions,
)
from mapflow.model_adapters.interventions.language.grammar import POLICY_NAMES, split_interventions
from mapflow.model_adapters.interventions.language.layout import SELECTORS
from mapflow.results.contract.errors import MapflowError


@given(cases(random=True))
@quick
def test_the_canonical_form_parses_back(case):
    _, spec, _ = case
    intervention = parse_intervention(str(spec))
    assert parse_intervention(str(intervention)) == intervention
    assert [str(i) for i in parse_interventions([str(intervention)])] == [str(intervention)]
    assert str(intervention) == intervention.expression


@given(cases(random=True))
@quick
def test_the_description_needs_no_model(case):
    """`describe` fills the model's ranges in, so that the text alone gives the same masks."""
    prompt, spec, n_layers = case
    pathways = as_ranges(spec.default_ranges)
    intervention = parse_intervention(str(spec))
    if intervention.random and intervention.random.ratio is None:
        return
    described = parse_intervention(intervention.describe(pathways))
    layout = layout_of(prompt)
    ours, theirs = (
        i.compile(layout, n_layers, p) for i, p in ((intervention, pathways), (described, None))
    )
    assert bool((ours.allowed == theirs.allowed).all()) and ours.budget == theirs.budget


@given(
    st.lists(cases(random=True), min_size=1, max_size=4),
    st.sampled_from([",", ";", " , ", ";  "]),
)
@quick
def test_several_in_one_text(found, separator):
    texts = list(dict.fromkeys(str(parse_intervention(str(spec))) for _, spec, _ in found))
    assert [str(i) for i in parse_interventions([separator.join(texts)])] == texts
    assert [str(i) for i in parse_interventions(texts)] == texts


@given(cases(random=True), st.sampled_from(["->", "→", ":", " : ", " ->", "→ "]))
@quick
def test_every_spelling_of_a_route_is_the_same_intervention(case, arrow):
    _, spec, _ = case
    written = str(spec)
    ours, theirs = parse_intervention(written), parse_intervention(written.replace("->", arrow))
    assert theirs == ours and str(theirs) == str(ours)
    assert parse_interventions([f"early-exit@1,{written.replace('->', arrow)}"])[1] == ours


def test_no_segment_has_the_name_of_a_policy():
    """Else "name:…" could be a route from it or the policy with options."""
    assert not {*SELECTORS} & {*POLICY_NAMES, "cross-frame"}
    assert not any(name.startswith(("frame[", "option[")) for name in POLICY_NAMES)


def test_a_comma_before_a_key_continues():
    assert split_interventions("full,random:ratio=0.58,seed=3") == [
        "full",
        "random:ratio=0.58,seed=3",
    ]
    assert split_interventions("full;random:ratio=0.58;seed=3") == [
        "full",
        "random:ratio=0.58,seed=3",
    ]
    text = (
        "knockout:video->last@window=3,top-down=2, effective:cross_frame=1-2;"
        "video_to_question=1, question_to_last=3 ,full"
    )
    assert [str(i) for i in parse_interventions([text])] == [
        "knockout:video->last@top-down=2",
        "effective:cross_frame=1-2,video_to_question=1,question_to_last=3",
        "full",
    ]


def test_canonical_forms():
    expected = {
        " full ": "full",
        "full+full": "full",
        "effective": "effective",
        "effective-strict": "effective-strict",
        "random": "random:seed=0",
        "random:seed=3,ratio=.58": "random:ratio=0.58,seed=3",
        "video -> question @ 6-20": "video->question@6-20",
        "video→question@7-7": "video->question@7",
        "video:question@7-7": "video->question@7",
        "frame[3]:option[0]": "frame[3]->option[0]",
        "last:last": "last->last",
        "knockout:video:last@center=12": "knockout:video->last@center=12,window=9",
        "keep:video:question@6-20+all:system": "keep:video->question@6-20+all->system",
        "keep: video : question": "keep:video->question",
        "effective:scale=X+video:template": "effective:scale=X+video->template",
        "cross-frame@1-6": "cross-frame@1-6",
        "frame[3]->option[0]": "frame[3]->option[0]",
        "knockout:video->last@center=12": "knockout:video->last@center=12,window=9",
        "knockout:video->last@window=5,inverse=12": "knockout:video->last@inverse=12,window=5",
        "knockout:cross-frame@bottom-up=12,window=5": "knockout:cross-frame@bottom-up=12",
        "keep: video->question@6-20 + all->system": "keep:video->question@6-20+all->system",
        "effective + video->template": "effective+video->template",
    }
    assert {text: str(parse_intervention(text)) for text in expected} == expected


def test_parts_mean_what_they_say():
    intervention = parse_intervention("random:ratio=0.25,seed=7+video->last")
    assert (
        intervention.seed == 7
        and intervention.random is not None
        and intervention.random.ratio == 0.25
    )
    assert parse_intervention("full") == Intervention()
    assert parse_intervention("full").seed is None
    assert parse_intervention("keep:video->last").keep


BAD = {
    "": "no intervention|empty part",
    "full,,": None,  # a stray comma is no mistake worth stopping for
    "efective": "unknown intervention 'efective'; did you mean 'effective'",
    "effective_strict": "did you mean 'effective-strict'",
    "randm:ratio=0.5": "unknown intervention 'randm:ratio=0.5'; did you mean 'random'",
    "cros-frame": "did you mean 'cross-frame'",
    "zzz": "known: full, effective",
    "video": "route source:target",
    "vidio:last": "unknown segment 'vidio' in route 'vidio:last'; did you mean 'video'",
    "video:questoin@6-20": "unknown segment 'questoin' .*did you mean 'question'",
    "vidio:lst": "unknown intervention 'vidio:lst'; known: .*or a route source:target",
    "video:question:last": "unknown route .*write source:target",
    "video:question->last": "unknown route",
    "video:": "unknown segment ''",
    "cross-frame:last": "unknown segment 'cross-frame'",
    "efective:scale=X": "did you mean 'effective'",
    "random:last": "not of the form key=value",
    "knockout:last": "not of the form source:target@STYLE=LAYER",
    "full:last": "'full' takes no options",
    "keep:video:last+keep:stem:last": "keep: begins an intervention and holds for all",
    "video-": "the shell took '>…' as a redirect; write video:TARGET or quote it",
    "full,frame[0]-": "the shell took '>…' as a redirect; write frame\\[0\\]:TARGET or quote it",
    "effective+vidio-": "the shell took '>…' as a redirect; write vidio:TARGET",
    "keep:video-": "the shell took '>…' as a redirect",
    "knockout:video-": "knockout 'video-': the shell took '>…' as a redirect",
    "effective-": "did you mean 'effective'",
    "vidio->last": "unknown segment 'vidio' in route 'vidio->last'; did you mean 'video'",
    "video->questoin@6-20": "unknown segment 'questoin' .*did you mean 'question'",
    "video->trueoption": "did you mean 'true_option'",
    "video->xyzzy": "unknown segment 'xyzzy'.*known: all, system",
    "video->": "unknown segment ''",
    "video->question->last": "unknown route",
    "cross-frame->last": "unknown segment 'cross-frame'",
    "cross-frames": "cross-frame",
    "frame[]->last": "unknown segment",
    "frame[-1]->last": "unknown segment",
    "video->last@0": "0",
    "video->last@0-3": "0-3 must count up from 1",
    "video->last@5-3": "5-3 must count up from 1",
    "video->last@": "not of the form",
    "video->last@a-b": "not of the form",
    "video->last@1-2-3": "not of the form",
    "video->last@-3": "not of the form",
    "video->last@9999999": "not of the form",
    "knockout:video->last": "not of the form",
    "knockout:video->last@5": "key=value",
    "knockout:video->last@centre=5": "one of center, inverse, top-down, bottom-up",
    "knockout:video->last@center=5,inverse=3": "not of the form",
    "knockout:video->last@center=5,size=3": "not of the form",
    "knockout:video->last@center=5,window=0": "window=0 must be at least 1",
    "knockout:video->last@center=5,window=-9": "window=-9 must be at least 1",
    "knockout:video->last@center=5,window=x": "window='x' is not a number",
    "knockout:video->last@center=1.5": "center='1.5' is not a number",
    "knockout:vidio->last@center=5": "did you mean 'video'",
    "random:ratio=1.01": "ratio=1.01 is outside 0..1",
    "random:ratio=-0.1": "ratio=-0.1 is outside 0..1",
    "random:ratio=nan": "ratio=nan is outside 0..1",
    "random:ratio=inf": "ratio=inf is outside 0..1",
    "random:ratio=": "ratio='' is not a number",
    "random:ratio=half": "ratio='half' is not a number",
    "random:seed=-1": "seed=-1 is outside",
    "random:seed=9223372036854775808": "is outside",
    "random:seed=1.5": "seed='1.5' is not a number",
    "random:sed=1": "no option 'sed'; it takes ratio, seed",
    "random:ratio=0.5,ratio=0.6": "given twice",
    "random:0.5": "not of the form key=value",
    "full:x": "'full' takes no options",
    "effective:cross_frame=1-2": "lacks 'video_to_question'",
    "effective:cross_frame=1-2,video_to_question=1-2,question_to_last=3,x=1": "unknown range 'x'",
    "effective:cross_frame=0-2,video_to_question=1-2,question_to_last=3": "must count up from 1",
    "keep:full": "'keep' takes routes",
    "keep:": "empty part",
    "keep:effective": "'keep' takes routes",
    "keep:random": "'keep' takes routes",
    "random+random:seed=2": "one random policy at most",
    "full+": "empty part",
    "full,full": "named 2 times",
    "random,random:seed=0": "named 2 times",
}


@pytest.mark.parametrize("text", BAD)
def test_bad_input_is_one_clear_line(text):
    if BAD[text] is None:
        assert parse_interventions([text])
        return
    with pytest.raises(MapflowError, match=BAD[text]) as error:
        parse_interventions([text])
    assert "\n" not in str(error.value)


def test_policies_made_without_the_parser_are_checked_too():
    effective, random = (
        parse_intervention("effective").policies,
        parse_intervention("random").policies,
    )
    for policies, keep in ((effective, True), (random, True), ((), True), (random + random, False)):
        with pytest.raises(MapflowError):
            Intervention(policies, keep)


WORDS = (
    "full effective random: knockout: keep: video last frame["
    " ratio= seed= center= window= top-down= cross-frame"
)
ALPHABET = st.sampled_from(
    [*"->@+,;:=[]. \n\0→0123456789-x٣", *WORDS.split(), "cross_frame=", ".yaml", "1e999"]
)


@given(st.one_of(st.text(max_size=60), st.lists(ALPHABET, max_size=14).map("".join)))
@settings(max_examples=600, deadline=None)
def test_hostile_text_gives_an_intervention_or_one_clear_line(text):
    try:
        interventions = parse_interventions([text])
    except MapflowError as error:
        assert "\n" not in str(error)
        return
    for intervention in interventions:
        assert parse_intervention(str(intervention)) == intervention


@pytest.mark.parametrize(
    "text", ["9" * 5000, "+" * 5000, "frame[" * 2000, "a->" * 3000, "\ud800.yaml", "\0.yaml"]
)
def test_monsters_are_refused(text):
    for monster in (
        text,
        f"video->last@{text}",
        f"random:seed={text}",
        f"keep:{text}",
        f"{text}.yml",
    ):
        with pytest.raises(MapflowError):
            parse_interventions([monster])


# --- files ---


def write(path, text: str):
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_names_interventions(tmp_path):
    file = write(
        tmp_path / "mine.yaml",
        """
        plain: full
        seeded: random:ratio=0.5,seed=2
        routes:
          cut: [video:last, knockout:question->last@center=3]
        only:
          keep:
            - video→question@1-2
            - all:system
        ranges:
          effective: {cross_frame: 1-4, video_to_question: 2-6, question_to_last: 5}
        tight:
          effective-strict: {cross_frame: 1-4, video_to_question: 2-6, question_to_last: 5-8}
        """,
    )
    found = read_interventions(file)
    assert {str(i): i.expression for i in found} == {
        "plain": "full",
        "seeded": "random:ratio=0.5,seed=2",
        "routes": "video->last+knockout:question->last@center=3,window=9",
        "only": "keep:video->question@1-2+all->system",
        "ranges": "effective:cross_frame=1-4,video_to_question=2-6,question_to_last=5",
        "tight": "effective-strict:cross_frame=1-4,video_to_question=2-6,question_to_last=5-8",
    }
    assert [str(i) for i in parse_interventions([f"effective,{file}"])] == [
        "effective",
        *map(str, found),
    ]
    for intervention in found:
        assert parse_intervention(intervention.expression).policies == intervention.policies


BOMB = "\n".join(
    [
        "a0: &a0 [x, x]",
        *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)),
        "b: {cut: *a11}",
    ]
)
BAD_FILES = {
    "": "must map names",
    "[]": "must map names",
    "just text": "must map names",
    "{}": "must map names",
    "a: [": "not YAML",
    "a: !!python/object/apply:os.system [ls]": "'a': must be",
    "a: !!int ''": "'a': .*empty part",
    "a: !!timestamp x": "'a': unknown intervention 'x'",
    "2001-99-99: full\nb: x": "'b': unknown intervention",
    "a: &a [*a]": "line 1: alias \\*a is refused",
    "a: {cut: &a [*a]}": "line 1: alias \\*a is refused",
    BOMB: "line 2: alias \\*a0 is refused",
    "a: full\nb: random\na: effective": "line 3: key 'a' is there twice",
    "a: {cut: [video->last], cut: [video->question]}": "key 'cut' is there twice",
    "a: {effective: {cross_frame: 1-2, cross_frame: 1-3,"
    " video_to_question: 1, question_to_last: 2}}": "'cross_frame'",
    "a: effectve": "'a': .*did you mean 'effective'",
    "a: {cut: []}": "'a': must be",
    "a: {cut: video->last}": "'a': must be",
    "a: {cut: [[video->last]]}": "'a': must be",
    "a: {cut: [vidio->last]}": "'a': .*did you mean 'video'",
    "a: {cut: [vidio:last]}": "'a': .*did you mean 'video'",
    "a: {cut: [video: last]}": "'a': must be",
    "video:last: full": "'video:last': is an intervention itself",
    "a: {keep: [effective]}": "'a': .*keep",
    "a: {keep: [video->last], cut: [video->last]}": "'a': must be",
    "a: {effective: {cross_frame: 1-2}}": "'a': .*lacks 'video_to_question'",
    "a: {effective: {cross_frame: [1], video_to_question: 1, question_to_last: 1}}": "'a': must be",
    "a: {random: {seed: 1}}": "'a': must be",
    '"a\\nb": x': "unknown intervention",
    "? [a, b]\n: full": "not YAML",
}


@pytest.mark.parametrize("text", BAD_FILES, ids=range(len(BAD_FILES)))
def test_bad_files_are_one_clear_line(tmp_path, text):
    file = write(tmp_path / "bad.yaml", text)
    with pytest.raises(MapflowError, match=BAD_FILES[text]) as error:
        read_interventions(file)
    assert str(file) in str(error.value) and "\n" not in str(error.value)


def test_deep_nesting_is_refused(tmp_path):
    with pytest.raises(MapflowError, match="not YAML"):
        read_interventions(write(tmp_path / "deep.yaml", "[" * 20_000))


def test_missing_and_unreadable_files(tmp_path):
    with pytest.raises(MapflowError, match=re.escape("No such file")):
        parse_interventions([str(tmp_path / "none.yaml")])
    (tmp_path / "folder.yml").mkdir()
    with pytest.raises(MapflowError):
        parse_interventions([str(tmp_path / "folder.yml")])
    (tmp_path / "bytes.yaml").write_bytes(b"a: \xff\xfe\x00")
    with pytest.raises(MapflowError, match="not YAML"):
        parse_interventions([str(tmp_path / "bytes.yaml")])


def test_the_same_name_from_two_files_is_refused(tmp_path):
    files = [write(tmp_path / name, "mine: video->last") for name in ("a.yaml", "b.yaml")]
    with pytest.raises(MapflowError, match="'mine' is named 2 times"):
        parse_interventions(list(map(str, files)))


def test_specs_are_written_as_people_write_them():
    """The strategies' own text is the documented one."""
    term = Term("knockout", "video", "last", window=("center", 12, 9))
    assert str(Spec((term,), keep=True)) == "keep:knockout:video->last@center=12,window=9"
