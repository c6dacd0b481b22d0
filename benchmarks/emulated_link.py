"""A link with a round-trip time, a bandwidth and losses, for real IP packets between two network namespaces.

Two TUN devices, one here and one in a namespace of its own, and a process that carries packets between them:
each waits its turn at the bandwidth, then half the round-trip time. So handshakes, slow start, windows and
retransmissions are the kernel's own, and bytes are counted on the wire (IP headers included). Needs root.
"""

from __future__ import annotations

import ctypes
import fcntl
import heapq
import json
import multiprocessing
import os
import random
import select
import signal
import struct
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection

__all__ = ["EmulatedLink", "LinkBytes", "emulated_link"]

_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
_CLONE_NEWNET = 0x40000000
_MTU = 1500


@dataclass(frozen=True, slots=True)
class LinkBytes:
    """IP bytes carried so far: from far to near (``down``) and the reverse."""

    down: int
    up: int

    def __sub__(self, other: LinkBytes) -> LinkBytes:
        return LinkBytes(self.down - other.down, self.up - other.up)


class EmulatedLink:
    """A link that stands; ``far`` runs commands on its other side.

    Attributes
    ----------
    near_host, far_host : str
        Addresses of the two ends.
    """

    def __init__(self, namespace: str, near_host: str, far_host: str, control: Connection) -> None:
        self.namespace, self.near_host, self.far_host = namespace, near_host, far_host
        self._control = control
        self._lock = threading.Lock()

    def _ask(self, question: str) -> dict[str, float]:
        with self._lock:
            self._control.send(question)
            answer: dict[str, float] = json.loads(self._control.recv())
        return answer

    def carried(self) -> LinkBytes:
        """Bytes so far."""
        counts = self._ask("count")
        return LinkBytes(int(counts["down"]), int(counts["up"]))

    def carried_when_quiet(self, quiet_s: float = 0.3) -> LinkBytes:
        """Bytes once nothing has moved for a while (read-ahead and retransmissions included)."""
        before = self.carried()
        while True:
            time.sleep(quiet_s)
            after = self.carried()
            if after == before:
                return after
            before = after

    def far(self, command: Sequence[str]) -> list[str]:
        """The command that runs ``command`` on the far side."""
        return ["ip", "netns", "exec", self.namespace, *command]


@contextmanager
def emulated_link(
    rtt_s: float, bits_per_s: float, loss: float = 0.0, queue_s: float = 0.25, seed: int = 0
) -> Iterator[EmulatedLink]:
    """Make a link, and take it away at the end.

    Parameters
    ----------
    rtt_s : float
        Round-trip time, seconds.
    bits_per_s : float
        Bandwidth each way.
    loss : float
        Share of packets lost each way, at random but seeded.
    queue_s : float
        How much a full queue holds, in seconds at the bandwidth; what comes then is dropped.
    """
    number = os.getpid() % 250
    namespace = f"cat2far{os.getpid()}"
    near_host, far_host = f"10.{number}.77.1", f"10.{number}.77.2"
    near_name, far_name = f"c2n{os.getpid() % 99999}", f"c2f{os.getpid() % 99999}"
    _ip("netns", "add", namespace)
    here, there = multiprocessing.Pipe()
    near, far = _open_tun(near_name), _open_tun_in(namespace, far_name)
    carrier = multiprocessing.get_context("fork").Process(
        target=_carry, args=(near, far, there, rtt_s / 2, bits_per_s, loss, queue_s, seed), daemon=True
    )
    try:
        _ip("addr", "add", f"{near_host}/24", "dev", near_name)
        _ip("link", "set", near_name, "up", "mtu", str(_MTU))
        _ip("-n", namespace, "addr", "add", f"{far_host}/24", "dev", far_name)
        _ip("-n", namespace, "link", "set", far_name, "up", "mtu", str(_MTU))
        _ip("-n", namespace, "link", "set", "lo", "up")
        carrier.start()
        yield EmulatedLink(namespace, near_host, far_host, here)
    finally:
        if carrier.pid is not None:
            carrier.terminate()
            carrier.join(5)
        os.close(near)
        os.close(far)
        _ip("netns", "del", namespace)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def _open_tun(name: str) -> int:
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH14x", name.encode(), _IFF_TUN | _IFF_NO_PI))
    return fd


def _open_tun_in(namespace: str, name: str) -> int:
    """A TUN device made in another namespace: a namespace is a property of a thread."""
    fds: list[int] = []

    def work() -> None:
        target = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
        if ctypes.CDLL(None, use_errno=True).setns(target, _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")
        os.close(target)
        fds.append(_open_tun(name))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if not fds:
        raise OSError(f"no TUN device in namespace {namespace}")
    return fds[0]


def _carry(
    near: int, far: int, control: Connection, delay_s: float, rate: float, loss: float, queue_s: float, seed: int
) -> None:
    """Carry packets until terminated; answers questions on ``control``."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(-20)  # a link does not wait for processors
    rng = random.Random(seed)
    counts = {near: 0, far: 0}
    free_at = {near: 0.0, far: 0.0}
    other = {near: far, far: near}
    waiting: list[tuple[float, int, int, bytes]] = []
    order = 0
    poll = select.poll()
    for fd in (near, far, control.fileno()):
        poll.register(fd, select.POLLIN)
    while True:
        now = time.perf_counter()
        while waiting and waiting[0][0] <= now:
            _, _, to, packet = heapq.heappop(waiting)
            try:
                os.write(to, packet)
            except BlockingIOError:
                continue
        timeout = max(0.0, waiting[0][0] - now) * 1000 if waiting else None
        # poll() has milliseconds only: below one, ask again at once.
        for fd, _ in poll.poll(0 if timeout is not None and timeout < 1 else timeout):
            if fd == control.fileno():
                control.recv()
                control.send(json.dumps({"down": counts[far], "up": counts[near]}))
                continue
            for _ in range(64):
                try:
                    packet = os.read(fd, 65536)
                except BlockingIOError:
                    break
                now = time.perf_counter()
                begin = max(now, free_at[fd])
                if begin - now > queue_s:
                    continue
                free_at[fd] = begin + len(packet) * 8 / rate
                counts[fd] += len(packet)
                if loss and rng.random() < loss:
                    continue
                order += 1
                heapq.heappush(waiting, (free_at[fd] + delay_s, order, other[fd], packet))
