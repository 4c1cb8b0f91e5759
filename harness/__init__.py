"""The front door and the conductors: command lines, runs of questions × interventions, analyses."""
