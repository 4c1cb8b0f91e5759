"""Logs that the other tools themselves write are read as they score them, where they are there."""

import json

import pytest

from mapflow.results.runs.run import read_runs
from mapflow.results.statistics import clustered_standard_error

N = 6


@pytest.mark.parametrize("how", ["eval", "json"])
def test_inspect_writes_what_is_read(tmp_path, how):
    """With its mock of a model: no network."""
    inspect = pytest.importorskip("inspect_ai", reason="inspect-ai is not installed")
    from inspect_ai.dataset import MemoryDataset, Sample
    from inspect_ai.log import read_eval_log
    from inspect_ai.model import ModelOutput, ModelUsage, get_model
    from inspect_ai.scorer import accuracy, choice, stderr
    from inspect_ai.solver import multiple_choice

    samples = [
        Sample(f"q{i}", ["a", "b", "c"], "ABC"[i % 3], id=f"s{i}", metadata={"video": f"v{i // 2}"})
        for i in range(N)
    ]
    answers = [ModelOutput.from_content("mockllm/model", f"ANSWER: {one}") for one in "ABAABC"]
    for one in answers:
        one.usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)  # not counted
    task = inspect.Task(
        MemoryDataset(samples, "own"),
        solver=multiple_choice(),
        scorer=choice(),
        metrics=[accuracy(), stderr(cluster="video")],
        name="own",
    )
    model = get_model("mockllm/model", custom_outputs=answers, memoize=False)
    inspect.eval(
        task,
        model=model,
        log_dir=str(tmp_path),
        log_format=how,
        display="none",
        max_connections=1,
        limit=5,
    )
    (run,) = read_runs(tmp_path)
    (file,) = tmp_path.iterdir()
    log = read_eval_log(str(file))
    assert run.question_id.tolist() == [f"own (Inspect)/{one.id}" for one in log.samples]
    theirs = [one.scores["choice"].value == "C" for one in log.samples]
    assert run.correct.tolist() == theirs and 0 < sum(theirs) < 5
    assert (run.n, run.total, run.protocol) == (5, N, "multiple_choice, choice")
    assert run.n_options.tolist() == [3] * 5 and run.gold.tolist() == list("ABCAB")
    metrics = log.results.scores[0].metrics
    assert metrics["accuracy"].value == pytest.approx(run.correct.mean())
    # its standard error by video, with the factor that the statistics' README names
    apart = run.correct - run.correct.mean()
    clusters = run.cluster.max() + 1
    between = sum(apart[run.cluster == one].sum() ** 2 for one in range(clusters))
    expected = (between * clusters / (clusters - 1)) ** 0.5 / 5
    assert metrics["stderr"].value == pytest.approx(expected)
    own = clustered_standard_error(run.correct.astype(float), run.cluster)
    assert own is not None and abs(own - expected) < 0.05


def test_lm_eval_writes_what_is_read(tmp_path):
    """With its dummy model, which guesses."""
    lm_eval = pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed")
    from lm_eval.loggers import EvaluationTracker
    from lm_eval.tasks import TaskManager

    rows = [
        {"q": f"q{i}", "choices": ["a", "b", "c"], "gold": i % 3, "video": f"v{i // 2}", "a": "x"}
        for i in range(N)
    ]
    data, tasks = tmp_path / "rows.jsonl", tmp_path / "tasks"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    tasks.mkdir()
    shared = {
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": str(data), "cache_dir": str(tmp_path / "cache")},
        "test_split": "train",
        "doc_to_text": "{{q}}",
    }
    choice = {"output_type": "multiple_choice", "doc_to_choice": "choices", "doc_to_target": "gold"}
    takes = [{"function": "regex", "regex_pattern": "(l)"}, {"function": "take_first"}]
    written = {
        "output_type": "generate_until",
        "doc_to_target": "a",
        "metric_list": [{"metric": "exact_match"}],
        "filter_list": [
            {"name": "strict", "filter": takes},
            {"name": "loose", "filter": takes[1:]},
        ],
    }
    scores = {"metric_list": [{"metric": "acc_norm"}, {"metric": "acc"}]}
    for name, own in (("own_choice", {**choice, **scores}), ("own_written", written)):
        (tasks / f"{name}.yaml").write_text(json.dumps({"task": name, **shared, **own}))
    tracker = EvaluationTracker(output_path=str(tmp_path / "out"))
    results = lm_eval.simple_evaluate(
        "dummy",
        tasks=["own_choice", "own_written"],
        task_manager=TaskManager(include_path=str(tasks), include_defaults=False),
        log_samples=True,
        evaluation_tracker=tracker,
        bootstrap_iters=0,
        limit=5,
    )
    samples = results.pop("samples")
    tracker.save_results_aggregated(results=results, samples=samples)
    for name in samples:
        tracker.save_results_samples(task_name=name, samples=samples[name])
    runs = {run.benchmark: run for run in read_runs(tmp_path / "out")}
    assert set(runs) == {
        "own_choice (lm-eval)",
        "own_written (lm-eval, strict)",
        "own_written (lm-eval, loose)",
    }
    for run in runs.values():
        assert (run.n, run.total, run.model) == (5, N, "dummy")
        assert run.cluster is not None and run.cluster.tolist() == [0, 0, 1, 1, 2]
    chosen = runs["own_choice (lm-eval)"]
    assert chosen.correct.tolist() == [one["acc"] == 1 for one in samples["own_choice"]]
    assert chosen.correct.mean() == results["results"]["own_choice"]["acc,none"]
    assert chosen.n_options.tolist() == [3] * 5 and chosen.gold.tolist() == [
        "0",
        "1",
        "2",
        "0",
        "1",
    ]
    assert chosen.protocol == "0-shot, acc"
