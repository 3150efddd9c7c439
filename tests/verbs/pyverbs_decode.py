"""A decode side after docs/wire.md and nothing else: no code of this project is used.

Needs Debian's python3-pyverbs, python3-zmq and python3-msgpack, so it runs under /usr/bin/python3.
It serves one prefill and says what it sees, a JSON object a line: where it listens, every notice
with checksums of its regions taken at that instant, and the end of the link.
"""

import argparse
import hashlib
import json
import mmap
import os
import socket
import struct
import sys
import time

import msgpack
import zmq
from pyverbs.addr import GID, AHAttr, GlobalRoute
from pyverbs.cq import CQ
from pyverbs.device import Context
from pyverbs.enums import (
    IBV_ACCESS_LOCAL_WRITE,
    IBV_ACCESS_REMOTE_READ,
    IBV_ACCESS_REMOTE_WRITE,
    IBV_QPT_RC,
    IBV_WC_RECV_RDMA_WITH_IMM,
    IBV_WC_SUCCESS,
)
from pyverbs.mr import MR
from pyverbs.pd import PD
from pyverbs.qp import QP, QPAttr, QPCap, QPInitAttr
from pyverbs.wr import SGE, RecvWR

HERE = "127.0.0.1"
PORT_OF_NIC = 1
RECEIVES = 64
FIRST_PSN = 0xABCDE
HEADER = struct.Struct("<BBHIQ")
HELLO = struct.Struct("<4sHHHHQ16sQ")
TYPE_HELLO, TYPE_WELCOME, TYPE_END, TYPE_ENDED = 1, 2, 8, 9


def say(**what):
    print(json.dumps(what), flush=True)


def gid_text(raw):
    """As pyverbs wants it: eight groups of four digits."""
    digits = raw.hex()
    return ":".join(digits[i : i + 4] for i in range(0, 32, 4))


class Memory:
    """Registered regions, and the only NIC that may write into them."""

    def __init__(self, args):
        self.context = Context(name=args.nic)
        self.pd = PD(self.context)
        self.size = args.blocks * args.block_bytes
        access = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE
        if args.flush:
            access |= IBV_ACCESS_REMOTE_READ
        self.access = access
        self.mrs = [MR(self.pd, self.size, access) for _ in range(args.layers * 2)]
        for mr in self.mrs:
            mr.write(bytes([args.fill]) * self.size, self.size)
        attributes = self.context.query_port(PORT_OF_NIC)
        self.mtu = 128 << attributes.active_mtu
        self.lid = attributes.lid
        table = range(attributes.gid_tbl_len)
        gids = {i: self.raw_gid(i) for i in table}
        mapped = bytes(10) + b"\xff\xff"
        self.gid_index = next(i for i in table if gids[i].startswith(mapped))
        self.gid = gids[self.gid_index]

    def raw_gid(self, index):
        text = str(self.context.query_gid(PORT_OF_NIC, index).gid)
        return bytes.fromhex("".join(group.zfill(4) for group in text.split(":")))

    def digests(self):
        return [hashlib.sha256(mr.read(self.size, 0)).hexdigest() for mr in self.mrs]


class Path:
    """Queue pairs that are connected to prefill's, and what they announce."""

    def __init__(self, memory, remote):
        count = len(remote["qps"])
        self.cq = CQ(memory.context, count * RECEIVES)
        self.spare = MR(memory.pd, mmap.PAGESIZE, IBV_ACCESS_LOCAL_WRITE)
        self.qps = [self.connect(memory, remote, i) for i in range(count)]
        self.seen = {qp.qp_num: {} for qp in self.qps}
        for qp in self.qps:
            for _ in range(RECEIVES):
                self.post(qp)

    def connect(self, memory, remote, index):
        number, psn = remote["qps"][index]
        cap = QPCap(max_send_wr=1, max_recv_wr=RECEIVES, max_send_sge=1, max_recv_sge=1)
        init = QPInitAttr(qp_type=IBV_QPT_RC, scq=self.cq, rcq=self.cq, cap=cap)
        qp = QP(memory.pd, init)
        attr = QPAttr(port_num=PORT_OF_NIC)
        attr.qp_access_flags = memory.access & ~IBV_ACCESS_LOCAL_WRITE
        qp.to_init(attr)
        attr = QPAttr(port_num=PORT_OF_NIC)
        attr.path_mtu = min(memory.mtu, remote["mtu"]).bit_length() - 8
        attr.dest_qp_num = number
        attr.rq_psn = psn
        attr.max_dest_rd_atomic = 16
        attr.min_rnr_timer = 12
        route = GlobalRoute(dgid=GID(gid_text(remote["gid"])), sgid_index=memory.gid_index)
        route.hop_limit = 64
        attr.ah_attr = AHAttr(port_num=PORT_OF_NIC, is_global=1, gr=route, dlid=remote["lid"])
        attr.sq_psn = FIRST_PSN + index
        attr.timeout = 14
        attr.retry_cnt = 6
        attr.rnr_retry = 7
        attr.max_rd_atomic = 1
        qp.to_rts(attr)
        return qp

    def post(self, qp):
        qp.post_recv(RecvWR(num_sge=1, sg=[SGE(self.spare.buf, 1, self.spare.lkey)]))

    def endpoint(self, memory):
        return {
            "gid": memory.gid,
            "lid": memory.lid,
            "mtu": memory.mtu,
            "link_layer": "Ethernet",
            "qps": [[qp.qp_num, FIRST_PSN + i] for i, qp in enumerate(self.qps)],
        }

    def notices(self):
        """Tags that every queue pair has now announced once more."""
        due = []
        _, completions = self.cq.poll(RECEIVES)
        for wc in completions:
            if wc.status != IBV_WC_SUCCESS:
                say(bad_completion=wc.status)
                continue
            assert wc.opcode == IBV_WC_RECV_RDMA_WITH_IMM, wc.opcode
            tag = socket.ntohl(wc.imm_data)
            counts = self.seen[wc.qp_num]
            before = min(c.get(tag, 0) for c in self.seen.values())
            counts[tag] = counts.get(tag, 0) + 1
            if min(c.get(tag, 0) for c in self.seen.values()) > before:
                due.append(tag)
            self.post(next(qp for qp in self.qps if qp.qp_num == wc.qp_num))
        return due

    def close(self):
        for qp in self.qps:
            qp.close()
        self.qps = []


class Decode:
    def __init__(self, args):
        self.args = args
        self.memory = Memory(args)
        self.epoch = int.from_bytes(os.urandom(8), "little") | 1
        self.link_id = 77
        self.token = os.urandom(16)
        self.path = None
        self.prefill_epoch = None
        self.listener = socket.create_server((HERE, 0))
        self.listener.setblocking(False)
        self.stream = None
        self.bytes_in = b""
        self.control = zmq.Context().socket(zmq.ROUTER)
        self.control.linger = 500
        self.port = self.control.bind_to_random_port(f"tcp://{HERE}")
        self.ended = False

    def run(self, deadline):
        say(port=self.port)
        while not self.ended:
            if time.monotonic() > deadline:
                sys.exit("the link did not end in time")
            if self.control.poll(1):
                routing, body = self.control.recv_multipart()
                reply = self.answer(msgpack.unpackb(body))
                if reply:
                    envelope = {"magic": "RDMAKV", "version": 1, "epoch": self.epoch}
                    self.control.send_multipart([routing, msgpack.packb({**envelope, **reply})])
            if self.stream is None:
                self.accept()
            else:
                self.serve_stream()
            self.tell_notices()

    def tell_notices(self):
        for tag in self.path.notices() if self.path else []:
            say(tag=tag, digests=self.memory.digests())

    def answer(self, message):
        assert (message["magic"], message["version"]) == ("RDMAKV", 1), message
        kind = message["type"]
        if kind == "hello":
            self.prefill_epoch = message["epoch"]
            return self.welcome(message["geometry"])
        assert message["epoch"] == self.prefill_epoch, message
        if kind == "open":
            assert (message["peer_epoch"], message["transport"]) == (self.epoch, "rdma"), message
            self.path = Path(self.memory, message["rdma"])
            return {
                "type": "opened",
                "link_id": self.link_id,
                "token": self.token,
                "rdma": self.path.endpoint(self.memory),
            }
        if kind == "ping":
            return {"type": "pong", "sequence": message["sequence"]}
        say(message=kind)
        return None

    def welcome(self, theirs):
        args = self.args
        tensors = [[kind, args.block_bytes, args.block_bytes] for kind in (0, 1)]
        rail = {
            "nic": args.nic,
            "port": PORT_OF_NIC,
            "gid": self.memory.gid,
            "lid": self.memory.lid,
            "mtu": self.memory.mtu,
            "link_layer": "Ethernet",
            "rkeys": [mr.rkey for mr in self.memory.mrs],
        }
        return {
            "type": "welcome",
            "host": {"boot_id": "another host", "pid": os.getpid()},
            "geometry": {
                "layers": args.layers,
                "block_count": args.blocks,
                "tensors": tensors,
                "dtype": theirs["dtype"],
                "tp_size": 1,
                "tp_rank": 0,
            },
            "bases": [mr.buf for mr in self.memory.mrs],
            "data_port": self.listener.getsockname()[1],
            "offers": {"rdma": {"rails": [rail], "flush": args.flush}},
            "reasons": {},
        }

    def accept(self):
        try:
            self.stream, _ = self.listener.accept()
        except BlockingIOError:
            return
        self.stream.setblocking(False)

    def serve_stream(self):
        try:
            got = self.stream.recv(4096)
        except BlockingIOError:
            return
        if not got:
            self.end(b"")
            return
        self.bytes_in += got
        while len(self.bytes_in) >= HEADER.size:
            kind, flags, reserved, size, _ = HEADER.unpack_from(self.bytes_in)
            assert flags == reserved == 0, self.bytes_in
            if len(self.bytes_in) < HEADER.size + size:
                return
            body = self.bytes_in[HEADER.size : HEADER.size + size]
            self.bytes_in = self.bytes_in[HEADER.size + size :]
            self.take_frame(kind, body)

    def take_frame(self, kind, body):
        if kind == TYPE_HELLO:
            expected = (b"RKVS", 1, 0, 1, 0, self.link_id, self.token, self.epoch)
            assert HELLO.unpack(body) == expected, body
            self.send(TYPE_WELCOME, struct.pack("<Q", self.epoch))
            say(welcomed=True)
        else:
            assert (kind, body) == (TYPE_END, b""), (kind, body)
            self.end(self.frame(TYPE_ENDED, b""))

    @staticmethod
    def frame(kind, body):
        return HEADER.pack(kind, 0, 0, len(body), 0) + body

    def send(self, kind, body):
        self.stream.sendall(self.frame(kind, body))

    def end(self, last_words):
        self.tell_notices()  # what came before the end still counts
        self.path.close()
        self.path = None
        if last_words:
            self.stream.sendall(last_words)
        self.stream.close()
        self.ended = True
        say(ended=True, digests=self.memory.digests())


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--nic", default="rxe1")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--blocks", type=int, default=32)
    parser.add_argument("--block-bytes", type=int, default=4096)
    parser.add_argument("--fill", type=int, default=7)
    parser.add_argument("--flush", action="store_true")
    parser.add_argument("--seconds", type=float, default=90)
    args = parser.parse_args()
    Decode(args).run(time.monotonic() + args.seconds)


if __name__ == "__main__":
    main()
