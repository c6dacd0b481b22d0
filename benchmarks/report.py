"""Tables, in Markdown, of what ``measure`` found. Ratios and medians; it measures nothing."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from .engine import Figure
from .measure import Crowd, Listing, Sample

__all__ = ["markdown"]

PAYLOAD = 0.965
"""Share of a packet of 1500 bytes that is payload."""

Value = Callable[[Sample], float | None]


def markdown(
    link: dict[str, Any],
    samples: Sequence[Sample],
    crowds: Sequence[Crowd],
    lists: Sequence[Listing],
    figures: Sequence[Figure] = (),
) -> str:
    """All tables of one link.

    Parameters
    ----------
    link : dict
        ``name``, ``rtt_s`` and ``bits_per_s`` (0 for loopback), ``loss``.
    """
    parts = [f"## {link['title']}", ""]
    is_wan = bool(link["rtt_s"])
    parts += _table("Cold, median seconds", samples, "cold", lambda s: s.seconds, _seconds)
    if is_wan:
        rtt, rate = link["rtt_s"], link["bits_per_s"] / 8 * PAYLOAD

        def floors(sample: Sample) -> float | None:
            return sample.seconds / (rtt * sample.nkeys + sample.block_nbytes / rate) if sample.block_nbytes else None

        title = "Cold, against the floor (a round trip per read + bytes of the blocks / bandwidth)"
        parts += _table(title, samples, "cold", floors, _ratio)
        title = "Cold, IP bytes received / compressed bytes of the blocks touched"
        parts += _table(title, samples, "cold", _overhead, _ratio)
    parts += _table("Warm: again at once in the same reader, median seconds", samples, "warm", _time, _seconds)
    parts += _table("Again in a new reader process, median seconds", samples, "restarted", _time, _seconds)
    if is_wan:
        parts += _table("Warm, IP bytes received", samples, "warm", lambda s: s.down_nbytes, _nbytes)
    parts += _table("Processor seconds cold: reader", samples, "cold", lambda s: s.reader_cpu_s, _seconds)
    parts += _table("Processor seconds cold: services", samples, "cold", lambda s: s.services_cpu_s, _seconds)
    if crowds:
        parts += [
            "### 16 readers at once, small squares",
            "",
            "| peer | reads/s | MB | services CPU s | |",
            "|---|---|---|---|---|",
        ]
        for c in crowds:
            rate = f"{c.nreaders * c.nreads / c.seconds:.0f}" if not c.error else "–"
            parts.append(
                f"| {c.peer} | {rate} | {_megabytes(c.down_nbytes)} | {c.services_cpu_s:.2f} | {c.error[:80]} |"
            )
        parts.append("")
    if lists:
        parts += [
            "### Small arrays: list, with shape, dtype and attributes of all",
            "",
            "| peer | seconds | for | MB | |",
            "|---|---|---|---|---|",
        ]
        for x in lists:
            of = (
                f"{x.count}"
                if x.count == x.of
                else f"{x.count} of {x.of}: {x.seconds * x.of / max(x.count, 1):.0f} s for all"
            )
            parts.append(f"| {x.peer} | {_seconds(x.seconds)} | {of} | {_megabytes(x.down_nbytes)} | {x.error[:80]} |")
        parts.append("")
    if figures:
        parts += ["### The engine", "", "| what | aim | reached | |", "|---|---|---|---|"]
        parts += [f"| {f.what} | {f.aim} | {f.value} | {f.detail}{f.error} |" for f in figures]
        parts.append("")
    return "\n".join(parts)


def _time(sample: Sample) -> float:
    return sample.seconds


def _overhead(sample: Sample) -> float | None:
    return sample.down_nbytes / sample.block_nbytes if sample.block_nbytes and sample.down_nbytes is not None else None


def _table(title: str, samples: Sequence[Sample], state: str, value: Value, text: Callable[[float], str]) -> list[str]:
    some = [s for s in samples if s.state == state]
    if not some:
        return []
    workloads, peers = _distinct(s.workload for s in some), sorted({s.peer for s in some}, key=_position)
    lines = [f"### {title}", "", "| peer | " + " | ".join(workloads) + " |", "|---" * (len(workloads) + 1) + "|"]
    for peer in peers:
        cells = []
        for workload in workloads:
            mine = [s for s in some if (s.peer, s.workload) == (peer, workload)]
            values = [v for s in mine if not s.error for v in [value(s)] if v is not None]
            failed = sum(bool(s.error) for s in mine)
            cell = text(statistics.median(values)) if values else "–"
            cells.append(f"{cell} ({failed} failed)" if failed else cell)
        lines.append(f"| {peer} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def _distinct(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _position(peer: str) -> tuple[int, str]:
    first = ["local blosc2", "local h5py", "exact blocks (limit)", "caterva2-jupyter"]
    return (first.index(peer) if peer in first else len(first), peer)


def _seconds(value: float) -> str:
    return f"{value * 1e3:.0f} ms" if value < 1 else f"{value:.2f} s"


def _ratio(value: float) -> str:
    return f"{value:.2f}"


def _nbytes(value: float) -> str:
    return f"{value:.0f}"


def _megabytes(value: int | None) -> str:
    return "" if value is None else f"{value / 1e6:.2f}"
