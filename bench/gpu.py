#!/usr/bin/env python3
"""How fast do blocks move from GPU to GPU, against a bulk copy, NIXL and Mooncake?

The same as `rdma-kv bench --gpu`; `python bench/gpu.py --help` lists all flags.
"""

import typer

from rdma_kv.cli.gpu_command import gpu

if __name__ == "__main__":
    typer.run(gpu)
