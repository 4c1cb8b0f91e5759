"""Questions, records, statistics, tables, figures and reports; independent of torch."""
