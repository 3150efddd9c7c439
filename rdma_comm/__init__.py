"""Drop-in for engines written against KVTransferManager's ``rdma_comm`` module.

The same constructor arguments, methods and status codes, over :mod:`rdma_kv`. New code is better
off with :class:`rdma_kv.RDMACommunicator`, whose errors are exceptions that say what to do.
"""

from rdma_comm._communicator import RDMACommunicator
from rdma_comm._status import ConnectStatus

__all__ = ["ConnectStatus", "RDMACommunicator"]
