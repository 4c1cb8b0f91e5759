"""The instrument: which attention edges exist in which layer. Knows no family, no benchmark, no prompt."""
