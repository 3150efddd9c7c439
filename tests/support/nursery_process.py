"""The nursery's process: has imported what a peer process needs, and forks one for each request.

`python -m support.nursery_process` with a Unix socket as its standard input. A request carries
three descriptors: a peer process's standard input and output, and one on which a keeper tells its
number and, once it has ended, its exit status. It ends with its standard input.
"""

from __future__ import annotations

import os
import socket
import sys

import rdma_kv  # noqa: F401 - what is imported here need not be imported by anyone who is born
from support import peer_process


def be_peer(commands: int, answers: int) -> None:
    for mine, theirs in ((0, commands), (1, answers)):
        os.dup2(theirs, mine)
        os.close(theirs)
    sys.stdin = os.fdopen(0)
    peer_process.main()


def keep(commands: int, answers: int, status: int) -> bool:
    """Starts a peer process and waits for its end; True in that peer process, once it is over."""
    child = os.fork()
    if child == 0:
        os.close(status)
        be_peer(commands, answers)
        return True
    os.close(commands)
    os.close(answers)
    os.write(status, b"%d\n" % child)
    _, ended = os.waitpid(child, 0)
    os.write(status, b"%d\n" % os.waitstatus_to_exitcode(ended))
    os._exit(0)


def main() -> None:
    requests = socket.socket(fileno=os.dup(0))
    keepers: set[int] = set()
    while True:
        request, descriptors, _, _ = socket.recv_fds(requests, 1, 3)
        if not request:
            return
        keeper = os.fork()
        if keeper == 0:
            requests.close()
            os.close(0)
            os.open(os.devnull, os.O_RDONLY)  # keeps the number 0 from others
            if keep(*descriptors):
                return
        for descriptor in descriptors:
            os.close(descriptor)
        keepers.add(keeper)
        keepers = {pid for pid in keepers if os.waitpid(pid, os.WNOHANG)[0] == 0}


if __name__ == "__main__":
    main()
