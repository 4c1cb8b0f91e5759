"""The Python API works where lmms-eval and datasets are absent; the instrument and a loaded model
also without PyAV and msgspec, which are for video files and for files of records and questions.
"""

import json
import subprocess
import sys

from tests.results.run_folders import answers, write_run

PROGRAM = """
import json, sys

class Absent:
    names = {"lmms_eval", "datasets", "av", "msgspec"}

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
import numpy as np
import mapflow
from mapflow.harness.analyses.registry import ENTRIES
from mapflow.model_adapters import interventions
from mapflow.model_adapters.inference.answering import answer
from mapflow.model_adapters.mini import train
from mapflow.model_adapters.training import pathway_tuning

for entry in ENTRIES:
    entry.load()
for name in interventions.__all__:
    getattr(interventions, name)
model = mapflow.load()
clip = sys.argv[1] + "/manifest.json"  # any file: its frames are given
asked = ("Which way?", ["left", "right"], None, None, None, None)
question = model._question(clip, *asked)
frames = np.zeros((8, 64, 64, 3), dtype=np.uint8)
prepared = model.video_llm.encode(question, frames)
((record,),) = answer(model.video_llm, [prepared], [mapflow.parse_intervention("video:last")])
Absent.names = {"lmms_eval", "datasets"}

questions = mapflow.load_questions("mapflow_motion_direction", limit=1)
asked = model.ask(questions[0], intervention="effective")
swept = mapflow.sweep(model, questions, routes=["video:last"], window=3)
compared = mapflow.compare(sys.argv[1])
heavy = sorted({"lmms_eval", "datasets"} & set(sys.modules))
print(json.dumps([record.edges_kept < record.edges_total, asked.prediction in asked.probabilities,
                  len(swept.records), len(compared.table), heavy]))
"""


def test_it_loads_asks_sweeps_and_compares_without_them(tmp_path):
    run = write_run(
        tmp_path / "run", [*answers("full", [1, 1, 0, 1]), *answers("effective", [1, 0, 0, 1])]
    )
    ran = subprocess.run([sys.executable, "-c", PROGRAM, str(run)], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert json.loads(ran.stdout.splitlines()[-1]) == [True, True, 1, 1, []]
