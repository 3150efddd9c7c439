"""Writes under faults for as long as one likes, with every byte checked.

conductor: starts the processes below, injects faults, collects, judges; prefill: the writers and
their checks; decode: one that is written to, and checks by itself what its notices announce.

Each decode's cache is a file in memory (`cache_file`), which prefill maps too: what is in it is
seen directly, while decode is stopped and after it was killed as well. `mirror` holds what must be
there.
"""
