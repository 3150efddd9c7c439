#!/usr/bin/env python3
"""Is every byte right, every error honest, and does nothing leak, while peers die?

`python bench/soak.py --help` lists the flags; docs/soak.md says what is checked.
"""

import typer

from rdma_kv.cli.soak_command import soak

if __name__ == "__main__":
    typer.run(soak)
