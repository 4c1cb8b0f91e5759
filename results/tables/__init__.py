"""Tables of runs and the formats they are printed in."""
