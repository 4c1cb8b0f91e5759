# %% [markdown]
# # The pathways of your model
#
# In which layers do frames exchange information, when does video enter the question, and when does the question reach the
# answer? A sweep cuts one route in a window of layers at a time and measures what that does to the answer's probability.
# `discover` turns sweeps into layer ranges and tests these on videos that were not used to find them.
#
# Here the model is the bundled one, whose ranges are known: training planted cross-frame in layers 2-6, video->question in
# 2-8, question->last in 9-12. For yours, add `--pretrained DIR --task … --data_dir …`.
#
# ## Sweep

# %% language="bash"
# mapflow sweep --routes cross-frame,vql-to-ql --window 3 --limit 3 --output_path sweep

# %% alt="change of the answer's probability when a route is cut around every layer"
from IPython.display import Image

# !mapflow figure sweep -o sweep.png
Image("sweep.png", width=700)

# %% [markdown]
# A curve far below zero means that the answer depends on this route in these layers. Bands are 95 % bands for all layers of a
# curve at once.
#
# ## Discover

# %% language="bash"
# mapflow discover --bin 1 --window 1 --limit 2 --output_path discovered

# %% [markdown]
# Three rules are tried: the paper's, a stricter version of it, and the marginal rule, which adds up what each layer
# contributes. Ranges come from one half of the videos; the accuracies are of the other half. Ten questions are few: the
# ranges move by a layer or two with other questions ([how often](../concepts/bundled_models.md)).
#
# ## Use the ranges
#
# The folder holds policies that every command takes by name:

# %% language="bash"
# cat discovered/discovered.yaml

# %% [markdown]
# A checkpoint folder with the `pathways.yaml` of a rule makes these ranges the model's own, and `effective` uses them. Score them on
# *other* questions than these, and against `random`: [a referee's question](referee.py).
