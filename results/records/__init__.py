"""One dataclass per kind of record."""
