# %% [markdown]
# # One video in Python
#
# Ask one question about one clip, cut what you suspect, and look at the attention.

# %%
import mapflow

model = mapflow.load()  # the bundled model; or a checkpoint folder
question = mapflow.load_questions("mapflow_motion_direction", limit=2)[1]
question.stem, question.options, question.options[question.target]

# %% [markdown]
# The frames that the model sees:

# %% alt="the eight frames of the clip"
import matplotlib.pyplot as plt

from mapflow.model_adapters.video.reader import read_frames
from mapflow.model_adapters.video.sampling import segment_midpoints

pictures = read_frames(question.clip, segment_midpoints, 8).pixels
figure, axes = plt.subplots(1, 8, figsize=(10, 1.4))
for number, (axis, picture) in enumerate(zip(axes, pictures, strict=True)):
    axis.imshow(picture)
    axis.set_axis_off()
    axis.set_title(f"frame[{number}]", fontsize=8)

# %% [markdown]
# ## Ask
#
# Any file, question and options will do: `model.ask("clip.mp4", "Which way?", ["left", "right"])`. A question of a benchmark
# brings its own.

# %%
model.ask(question)

# %%
model.ask(question, intervention="effective")

# %% [markdown]
# ## Cut
#
# The last token never reads the video in this model, so cutting `video->last` changes nothing. The question does read it:

# %%
for intervention in (
    "full",
    "video->last",
    "video->question",
    "video->question@9-12",
    "cross-frame",
):
    answer = model.ask(question, intervention=intervention)
    right = answer.probabilities[question.options[question.target]]
    print(
        f"{intervention:22} {answer.prediction:8} p(right) = {right:.3f}  {answer.edges_kept:,} edges"
    )

# %% [markdown]
# ## Where does the question look?
#
# Attention weights come as an array with named axes. Here: how much the question's positions attend to each segment.

# %% alt="attention of the question to each segment, layer by layer"
weights = model.ask(question).attention(rows="question")
by_segment = weights.groupby("segment").sum()
frames = [f"frame[{number}]" for number in range(8)]
axes = by_segment.sel(segment=frames).to_pandas().plot(figsize=(7, 3.2), colormap="viridis")
axes.legend(fontsize=7)
_ = axes.set_ylabel("attention of the question")

# %% [markdown]
# Attention shows where a model *could* take information from. Whether the answer depends on it, a cut tells:
# [the pathways of your model](discover.py).
