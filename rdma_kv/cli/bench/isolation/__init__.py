"""What one sick peer costs its healthy neighbours, in one run of interleaved phases.

measure: the phases; healthy: the writes that are timed; sick: what is wrong in a phase; decode,
flooder: the other processes; report: the table. docs/isolation.md explains what is measured.
"""
