"""The subcommands of `mapflow`: `add_arguments(parser)` and `run(options) -> exit code`."""
