"""`python -m rdma_kv` is `rdma-kv`."""

from rdma_kv.cli import main

if __name__ == "__main__":
    main()
