"""Clips as files: the frames of the bounds and no other, whatever the source; the cache folder."""

import multiprocessing
import os
import time
from pathlib import Path

import numpy as np
import pytest
from synthetic_videos import VIDEOS, decode_whole, error_of, write_once

from mapflow.model_adapters.video import cutting
from mapflow.model_adapters.video.cutting import blank_file, clip_file
from mapflow.model_adapters.video.opening import VideoError
from mapflow.model_adapters.video.reader import read_frames
from mapflow.model_adapters.video.sampling import segment_midpoints
from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.question import Clip, QuestionVideo


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("MAPFLOW_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "clips"


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return write_once(tmp_path_factory.mktemp("videos"))


@pytest.mark.parametrize("name", VIDEOS)
def test_a_clips_file_holds_its_frames_bit_for_bit(video, name):
    """Against decoding the whole source, for every container, codec and size; and the sampled
    frames of the file are those of the clip."""
    clip = Clip(str(video(name)), 0.21, 0.69)
    whole, count = decode_whole(clip.path)
    fps = read_frames(clip, segment_midpoints, 1).fps
    first, last = round(0.21 * fps), min(round(0.69 * fps), count - 1)
    file = clip_file(clip)
    cut, n = decode_whole(file)
    assert n == last - first + 1 and file.suffix == ".mp4"
    assert all(np.array_equal(cut[i], whole[first + i]) for i in range(n))
    sampled = [read_frames(one, segment_midpoints, 8).pixels for one in (clip, Clip(str(file)))]
    assert np.array_equal(*sampled)


@pytest.mark.parametrize("name", ["decord_video_90.mov", "decord_unordered.mov"])
def test_a_rotated_clip_is_stored_upright(real_data, name):
    path = real_data / "videos" / name
    if not path.is_file():
        pytest.skip(f"no {name}")
    clip = Clip(str(path), 0.0, 0.07)
    pair = [read_frames(one, segment_midpoints, 8).pixels for one in (clip, _cut(clip))]
    assert np.array_equal(*pair)


def _cut(clip):
    return Clip(str(clip_file(clip)))


def test_a_clip_of_one_frame_shows_it_twice(video):
    clip = Clip(str(video("h264.mp4")), 0.0, 0.01)
    frames, n = decode_whole(clip_file(clip))
    assert n == 2 and np.array_equal(frames[0], frames[1])
    assert np.array_equal(frames[0], decode_whole(clip.path, [0])[0][0])


def test_a_whole_video_is_its_own_file(video, cache):
    for name in ("h264.mp4", "h264.avi", "mjpeg.mov"):
        assert clip_file(Clip(str(video(name)))) == video(name)
    assert not cache.exists()
    for name in ("vp8.webm", "av1.mkv", "h264.ts"):  # some models know a video by its suffix alone
        file = clip_file(Clip(str(video(name))))
        assert file.suffix == ".mp4" and file.resolve() == video(name)
        assert np.array_equal(decode_whole(file)[0][3], decode_whole(video(name))[0][3])


def test_names_follow_content_and_bounds(video, tmp_path, cache):
    source = tmp_path / "a.mp4"
    source.write_bytes(video("h264.mp4").read_bytes())
    first = clip_file(Clip(str(source), 0.2, 0.6))
    copy = tmp_path / "b.mp4"
    copy.write_bytes(source.read_bytes())
    assert clip_file(Clip(str(copy), 0.2, 0.6)) == first  # also a copy, without writing it anew
    assert clip_file(Clip(str(source), 0.2, 0.64)) != first
    source.write_bytes(video("hevc.mp4").read_bytes())
    os.utime(source, (1, 1))
    assert clip_file(Clip(str(source), 0.2, 0.6)) != first
    assert len(list(cache.iterdir())) == 3


@pytest.mark.parametrize(
    ("bounds", "reason"),
    [((5.0, 6.0), "begin after the last frame"), ((0.5, 0.2), "start must come before end")],
)
def test_a_clip_that_cannot_be_cut_leaves_nothing(video, cache, bounds, reason):
    clip = Clip(str(video("h264.mp4")), *bounds)
    with pytest.raises(VideoError, match=reason):
        clip_file(clip)
    assert not cache.exists() or not list(cache.iterdir())


def test_missing_and_broken_videos_raise_as_the_reader_does(tmp_path, cache):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    for path in (tmp_path / "gone.mp4", broken):
        for bounds in ((), (0.0, 1.0)):
            clip = Clip(str(path), *bounds)
            with pytest.raises(VideoError) as caught:
                clip_file(clip)
            assert str(caught.value) == error_of(clip)
    clip = Clip(str(tmp_path / "x.mp4"), 0.0, 1.0, archive=str(broken), entry="x.mp4")
    with pytest.raises(VideoError, match="not a readable zip file"):
        clip_file(clip)


def test_a_cache_that_cannot_be_written(video, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MAPFLOW_CACHE", str(tmp_path / "file"))
    with pytest.raises(MapflowError, match=r"cannot be written.*set MAPFLOW_CACHE"):
        clip_file(Clip(str(video("h264.mp4")), 0.2, 0.6))


def test_the_clips_used_longest_ago_make_room(video, cache, monkeypatch):
    clips = [Clip(str(video("h264.mp4")), 0.04 * i, 0.5) for i in range(4)]
    files = [clip_file(clip) for clip in clips[:3]]
    torn = cache / ".torn.mp4"
    torn.write_bytes(b"x")
    old = time.time() - 2 * cutting.IN_USE
    for age, file in enumerate([torn, *files]):
        os.utime(file, (old + age, old + age))
    assert clip_file(clips[0]) == files[0]  # used now, so the youngest
    monkeypatch.setattr(cutting, "MOST_BYTES", 2 * files[0].stat().st_size)
    last = clip_file(clips[3])
    assert set(cache.iterdir()) == {files[0], last}


def _cut_in_process(path, queue):
    queue.put(str(clip_file(Clip(path, 0.2, 0.6))))


def test_processes_share_the_folder(video, cache):
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    workers = [
        context.Process(target=_cut_in_process, args=(str(video("h264.mp4")), queue))
        for _ in range(3)
    ]
    for worker in workers:
        worker.start()
    named = {queue.get(timeout=60) for _ in workers}
    for worker in workers:
        worker.join()
    assert [str(file) for file in cache.iterdir()] == list(named)
    assert decode_whole(Path(named.pop()))[1] == 11


def test_the_grey_clip():
    frames, count = decode_whole(blank_file())
    assert count == 32 and {int(value) for value in np.unique(frames[0])} == {127}
    assert blank_file() == blank_file()


def test_a_path_that_carries_its_question_survives_copies():
    import copy
    import pickle

    from mapflow.tasks.registry import load_questions

    question = load_questions("mapflow_motion", limit=1)[0]
    path = QuestionVideo("a b.mp4", question)
    assert path == "a b.mp4" and path.endswith(".mp4") and path.question is question
    for other in (copy.deepcopy(path), pickle.loads(pickle.dumps(path))):
        assert other == path and other.question == question
