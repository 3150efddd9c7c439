#!/usr/bin/env python3
"""What do a dead, a stopped and a flooding peer cost the healthy ones?

`python bench/isolation.py --help` lists the flags; docs/isolation.md says what is measured.
"""

import typer

from rdma_kv.cli.isolation_command import isolation

if __name__ == "__main__":
    typer.run(isolation)
