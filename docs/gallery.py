# %% [markdown]
# # Gallery
#
# Every picture is drawn by the command above it while this page is built, from the bundled model and clips.
#
# ## Routes cut around every layer
#
# `mapflow sweep`: change of the answer's probability, with 95 % bands for all layers at once.

# %% language="bash"
# mapflow sweep --routes cross-frame,vql-to-ql --window 3 --limit 2 --output_path sweep
# mapflow figure sweep -o sweep.png >figures.log

# %% tags=["hidden"] alt="curves of a sweep"
from IPython.display import Image

Image("sweep.png")

# %% [markdown]
# ## What a policy cuts
#
# `mapflow explain --figure`: which segment attends to which, masks of single layers, and edges kept by layer.

# %% language="bash"
# mapflow explain effective --figure policy.png | head -n 3

# %% tags=["hidden"] alt="which segment attends to which under the paper's policy"
Image("policy.png")

# %% tags=["hidden"] alt="masks of single layers"
Image("policy-edges.png")

# %% [markdown]
# ## The answer's probability, layer by layer
#
# `mapflow trace`: read through the head after every layer.

# %% language="bash"
# mapflow trace --intervention full,effective --limit 2 --output_path trace >trace.log
# mapflow figure trace -o trace.png >>figures.log

# %% tags=["hidden"] alt="probability of the right and the wrong answers after every layer"
Image("trace.png")

# %% [markdown]
# ## Attention on the frames
#
# `mapflow attention --overlay`: where the last token looks.

# %% language="bash"
# mapflow attention --limit 1 --task mapflow_motion_direction --rows question --overlay 6-8 --output_path attention >attention.log

# %% tags=["hidden"] alt="attention of the question's positions, drawn on the frames"
from pathlib import Path

Image(sorted(Path("attention").rglob("*.png"))[0])

# %% [markdown]
# ## The report
#
# `mapflow report`: one page that needs no network, here at the widths of a desktop and of a phone.

# %% language="bash"
# lmms_eval --model mapflow_llava --intervention full,effective,random --limit 6 --output_path run >run.log
# mapflow report run sweep --frames 6 -o report.html

# %% language="bash" tags=["hidden"]
# cd "$MAPFLOW_REPOSITORY"
# python -m tests.results.browser "$OLDPWD/report.html" "$OLDPWD/pictures" >/dev/null

# %% tags=["hidden"] alt="a report in the browser"
from IPython.display import display

for picture in sorted(Path("pictures").glob("*.png")):
    display(Image(picture))
