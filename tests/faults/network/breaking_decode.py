"""The independent decode side of tests/verbs, which breaks something under the first write.

Runs under /usr/bin/python3 like the other. It says, besides, that it broke, and once the link has
ended what its memory holds then, and two seconds later.
"""

import argparse
import ctypes
import hashlib
import mmap
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "verbs"))

import pyverbs_decode as plain
from pyverbs.enums import IBV_QP_STATE, IBV_QPS_ERR

WATCH_S = 2.0


class Memory(plain.Memory):
    """Its last region lies in memory of ours, which outlives its registration."""

    def __init__(self, args):
        super().__init__(args)
        self.mrs.pop().close()
        self.last = mmap.mmap(-1, self.size)
        self.last[:] = bytes([args.fill]) * self.size
        self.pin = ctypes.c_char.from_buffer(self.last)
        address = ctypes.addressof(self.pin)
        self.mrs.append(plain.MR(self.pd, self.size, self.access, address=address))

    def digests(self):
        regions = [mr.read(self.size, 0) for mr in self.mrs[:3]] + [self.last[:]]
        return [hashlib.sha256(region).hexdigest() for region in regions]

    def has_begun(self, fill):
        return self.mrs[0].read(1, 0) != bytes([fill])


class Decode(plain.Decode):
    def __init__(self, args):
        super().__init__(args)
        self.memory = Memory(args)
        self.breaks = args.breaks
        self.tags = []

    def tell_notices(self):
        for tag in self.path.notices() if self.path else []:
            self.tags.append(tag)
            plain.say(tag=tag, digests=self.memory.digests())
        if self.breaks and self.memory.has_begun(self.args.fill):
            self.break_it()

    def break_it(self):
        if self.breaks == "region":
            self.memory.mrs[-1].close()
        else:
            attr = plain.QPAttr(qp_state=IBV_QPS_ERR)
            self.path.qps[0].modify(attr, IBV_QP_STATE)
        self.breaks = None
        plain.say(broke=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--blocks", type=int, required=True)
    parser.add_argument("--block-bytes", type=int, required=True)
    parser.set_defaults(nic="rxe1", layers=2, fill=7, flush=False)
    parser.add_argument("--breaks", choices=["region", "queue-pair"], required=True)
    decode = Decode(parser.parse_args())
    decode.run(time.monotonic() + 90)
    time.sleep(WATCH_S)
    plain.say(later=True, digests=decode.memory.digests())
    plain.say(tags=decode.tags)


if __name__ == "__main__":
    main()
