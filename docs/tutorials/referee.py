# %% [markdown]
# # A referee's question
#
# > "You cut 30 % of the edges and accuracy stays. Would any 30 % have done? One random seed is an anecdote, your questions
# > share videos, and 'no significant difference' is not 'no difference'."
#
# A command for each part.
#
# ## Would any 30 % have done?
#
# Compare with the same number of edges cut at random, for several seeds.

# %% language="bash"
# mapflow ablate --run ablation --interventions full,effective,random --seeds 0,1,2 -- \
#     --model mapflow_llava --tasks mapflow_motion_sequence --limit 24

# %% [markdown]
# ## Does it hold for other videos?
#
# Intervals and p-values treat videos as the units, because answers about one video tend to agree.

# %% language="bash"
# mapflow compare ablation | grep "points"

# %% [markdown]
# ## Is nothing lost, or was nothing found?
#
# State before the run how much worse still counts as equally good. Then "non-inferior" is a finding, and "inconclusive" admits
# that the run was too small. What could this run have shown, and how many questions would two points need?

# %% language="bash"
# mapflow power ablation --compact

# %% [markdown]
# These are twenty-four questions. The sentence for the paper is therefore not "nothing is lost", but how much could have been lost
# without being seen, with the interval beside it:

# %% language="bash"
# mapflow compare ablation --compact --label tab:referee -o referee.tex
# grep -v "^%" referee.tex
