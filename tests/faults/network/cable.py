"""The virtual cable of scripts/rdma-vm, laid so that all crosses it, and what can go wrong there.

Both ends are in this machine. What rxe0 sends to rxe1 leaves on v0 and arrives on v1 anyway; TCP
between two addresses of one machine does not, unless rules that come before the kernel's table of
local addresses send it over the cable, too.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from support.patience import eventually

QUEUE = "100000"  # packets: only what netem is told to drop gets lost
HERE = "0.0.0.0"  # as rules write "no source chosen yet"
NET = Path("/sys/class/net")
RDMA = Path("/sys/class/infiniband")


@dataclass(frozen=True)
class End:
    """An interface, its address and its NIC; `table` keeps the route to the other end."""

    interface: str
    address: str
    nic: str
    table: str

    @property
    def is_there(self) -> bool:
        return (NET / self.interface).exists() and (RDMA / self.nic).exists()

    @property
    def is_active(self) -> bool:
        return "ACTIVE" in (RDMA / self.nic / "ports/1/state").read_text()

    @property
    def sent_bytes(self) -> int:
        return int((NET / self.interface / "statistics/tx_bytes").read_text())

    def nic_counter(self, name: str) -> int:
        return int((RDMA / self.nic / "ports/1/hw_counters" / name).read_text())


PREFILL = End("v0", "10.0.0.1", "rxe0", "101")
DECODE = End("v1", "10.0.0.2", "rxe1", "102")
ENDS = (PREFILL, DECODE)
OTHER = {PREFILL: DECODE, DECODE: PREFILL}


def route(end: End) -> str:
    return f"{OTHER[end].address} dev {end.interface} src {end.address}"


class Batch:
    """`ip` or `tc`, started ahead of time: a fault must hit while a write is under way."""

    def __init__(self, tool: str) -> None:
        self._words = [tool, "-batch", "-"]
        self._ready = self._start()

    def __call__(self, *lines: str) -> str:
        """Runs commands of the tool; returns what they print."""
        output, errors = self._ready.communicate("".join(f"{line}\n" for line in lines))
        status, self._ready = self._ready.returncode, self._start()
        assert status == 0, f"{self._words[0]}: {lines}: {errors}"
        return output

    def close(self) -> None:
        self._ready.communicate()

    def _start(self) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        return subprocess.Popen(self._words, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


class Cable:
    """While it is entered, all traffic between the two addresses crosses the cable."""

    def __init__(self) -> None:
        self._ip = Batch("ip")
        self._tc = Batch("tc")
        # Whoever has chosen no source yet connects from prefill's end.
        ways = [(HERE, PREFILL), *((end.address, end) for end in ENDS)]
        self._rules = [
            f"iif lo from {source} to {OTHER[end].address} lookup {end.table}"
            for source, end in ways
        ]

    def __enter__(self) -> Cable:
        self._ip(
            "rule add pref 100 lookup local",
            "rule del pref 0 lookup local",
            *(f"rule add pref 10 {rule}" for rule in self._rules),
            # The kernel drops the routes of an interface that is down: then there is no other way.
            *(f"route add unreachable {OTHER[e].address} metric 9 table {e.table}" for e in ENDS),
            # One packet at a time: netem takes 64 KiB of TCP that are handed over whole for one.
            *(f"link set {end.interface} gso_max_segs 1" for end in ENDS),
        )
        self.mend()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.mend()
        self._tc(*(f"qdisc del dev {end.interface} root" for end in ENDS))
        self._ip(
            "rule add pref 0 lookup local",
            "rule del pref 100 lookup local",
            *(f"rule del pref 10 {rule}" for rule in self._rules),
            *(f"route flush table {end.table}" for end in ENDS),
            *(f"link set {end.interface} gso_max_segs 65535" for end in ENDS),
        )
        self._ip.close()
        self._tc.close()

    def weather(self, netem: str, *at: End) -> None:
        """What netem does to packets that leave these ends; those it still held are lost."""
        self._tc(
            *(
                f"qdisc replace dev {end.interface} root {what}"
                for end in at or ENDS
                for what in (f"pfifo limit {QUEUE}", f"netem limit {QUEUE} {netem}")
            )
        )

    def swallow(self, *at: End) -> None:
        """Nothing that leaves these ends arrives, and nobody is told."""
        self.weather("loss 100%", *at)

    def cut(self, end: End) -> None:
        self._ip(f"link set {end.interface} down")

    def plug_in(self) -> None:
        """Undoes a cut."""
        self._ip(
            *(f"link set {end.interface} up" for end in ENDS),
            *(f"route replace {route(end)} table {end.table}" for end in ENDS),
        )

    def mend(self) -> None:
        """Whole again: plugged in, and fair weather."""
        self.plug_in()
        self._tc(*(f"qdisc replace dev {e.interface} root pfifo limit {QUEUE}" for e in ENDS))
        eventually(lambda: all(end.is_active for end in ENDS), 5, "both NICs are active")

    def dropped(self) -> int:
        """Packets that netem threw away, since the weather changed."""
        words = ["tc", "-s", "qdisc", "show"]
        shown = subprocess.run(words, check=True, capture_output=True, text=True).stdout
        return sum(int(part.split(",")[0]) for part in shown.split("dropped ")[1:])


def tcp_counter(*names: str) -> int:
    """The sum of some of the kernel's counters of TCP."""
    total = 0
    for file in ("snmp", "netstat"):
        lines = [line.split() for line in Path("/proc/net", file).read_text().splitlines()]
        for header, values in zip(lines[0::2], lines[1::2], strict=True):
            total += sum(
                int(v) for n, v in zip(header, values, strict=True) if n in names and v != values[0]
            )
    return total
