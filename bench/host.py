#!/usr/bin/env python3
"""How fast do blocks move between two processes of this machine, against memcpy and iperf3?

The same as `rdma-kv bench --local`; `python bench/host.py --help` lists the flags.
"""

import typer

from rdma_kv.cli.bench_command import bench

if __name__ == "__main__":
    import sys

    sys.argv.insert(1, "--local")
    typer.run(bench)
