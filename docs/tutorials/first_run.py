# %% [markdown]
# # A first run
#
# The bundled model has 8 million parameters and answers questions about 320 bundled clips. Nothing is downloaded, and no GPU
# is needed. Everything below works the same for a 7B model.
#
# ## Run
#
# One command asks every question under every intervention. `full` is the model as it is. `effective` keeps the pathways that
# this model was trained to use. `random` cuts as many attention edges as `effective` does, but at random.

# %% language="bash"
# lmms_eval --model mapflow_llava --intervention full,effective,random --limit 10 --output_path first_run

# %% [markdown]
# Each row is one run over the same questions. `chance` is what guessing would give, and `edges kept` says how many attention
# edges were left. `effective` and `random` cut equally many; which ones are cut decides.
#
# ## Compare
#
# Is the difference more than luck? `compare` pairs the runs question by question and counts videos as units.

# %% language="bash"
# mapflow compare first_run

# %% [markdown]
# Read the sentences first. *Inconclusive* is not *equal*: 50 questions cannot show that nothing is lost within two points.
# The table says how many answers were lost and gained, with an interval that holds for whole videos.
#
# ## Look
#
# What was asked, and what went wrong? Every answer is a row.

# %%
import mapflow

records = mapflow.read_run("first_run").to_pandas()
wrong = records[(records.intervention == "full") & ~records.correct.astype(bool)]
wrong[["question_id", "prediction", "p_answer", "p_target"]]

# %% [markdown]
# The report shows all questions with their frames, in one file that needs no network.

# %% language="bash"
# mapflow report first_run --frames 4 -o report.html
# ls -sh report.html

# %% [markdown]
# ## Continue
#
# The same command finds everything answered and computes nothing. Stop a run with Ctrl-C, start it again, or raise
# `--limit`: only what is missing is asked.
#
# Next: [one video in Python](one_video.py), or [get TVBench and TOMATO](../howto/data.md).
