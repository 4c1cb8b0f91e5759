# %% [markdown]
# # A referee's question
#
# > "You cut 30 % of the edges and accuracy stays. Would any 30 % have done? One random seed is an anecdote, your questions
# > share videos, and 'no significant difference' is not 'no difference'."
#
# Four answers, with a command each.
#
# ## Would any 30 % have done?
#
# Compare with the same number of edges cut at random, for several seeds.

# %% language="bash"
# mapflow ablate --run ablation --interventions full,effective,random --seeds 0,1,2 -- \
#     --model mapflow_llava --tasks mapflow_motion_sequence --limit 40

# %% [markdown]
# ## Does it hold for other videos?
#
# Intervals and p-values treat videos as the units, because answers about one video tend to agree. The sentences say how many
# there are.

# %% language="bash"
# mapflow compare ablation | grep -v "^ablation"

# %% [markdown]
# ## Is nothing lost, or was nothing found?
#
# State before the run how much worse still counts as equally good. Then "non-inferior" is a finding, and "inconclusive" admits
# that the run was too small. With a wider margin:

# %% language="bash"
# mapflow compare ablation --margin 10 | grep "non-inferior\|inconclusive\|inferior" | tail -n 4
