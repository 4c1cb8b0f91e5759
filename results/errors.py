"""The one exception that a user's mistake raises.

Its message is a single line that names the thing, the value and what to do; command lines print it and exit 2.
"""


class MapflowError(ValueError):
    """A mistake in what the user asked for: never a bug, never a traceback."""
