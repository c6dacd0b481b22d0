"""Child processes that compute: whatever they are given, the service that has them goes on."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from caterva2_jupyter.errors import (
    DeadlineError,
    IntegrityError,
    SelectionError,
    SourceUnavailableError,
    TooLargeError,
    TooManyRequestsError,
)
from caterva2_jupyter.web.compute_pool import ComputePool

HOSTILE = (str(Path(__file__).with_name("hostile_worker.py")),)


def with_pool(test: Callable[[ComputePool], Awaitable[None]], **settings: Any) -> None:
    async def main() -> None:
        pool = ComputePool(**{"nworkers": 1, "program": HOSTILE, **settings})
        try:
            await test(pool)
        finally:
            await pool.stop()
        assert pool.nprocesses == 0

    asyncio.run(main())


async def is_well(pool: ComputePool) -> bool:
    return await pool.run("echo", {"a": 1}, [b"x"]) == ({"a": 1}, [b"x"])


def is_running(pid: int) -> bool:
    try:
        # Its threads go one by one: only then it has closed its socket.
        return len(os.listdir(f"/proc/{pid}/task")) > 1 or "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2]
    except FileNotFoundError:
        return False


def test_there_is_no_process_before_there_is_work() -> None:
    async def test(pool: ComputePool) -> None:
        assert pool.nprocesses == 0
        assert await is_well(pool)
        assert pool.nprocesses == 1

    with_pool(test)


def test_buffers_of_any_size_go_there_and_back() -> None:
    async def test(pool: ComputePool) -> None:
        buffers = [b"", os.urandom(10), os.urandom(5 << 20), b"", os.urandom(70_000), memoryview(b"abc")]
        _, back = await pool.run("echo", {}, buffers)
        assert back == [bytes(b) for b in buffers]

    with_pool(test)


def test_a_warm_worker_answers_within_milliseconds() -> None:
    async def test(pool: ComputePool) -> None:
        await is_well(pool)
        best = 1.0
        for _ in range(20):
            begun = time.perf_counter()
            await pool.run("echo", {}, [b"x" * 10_000])
            best = min(best, time.perf_counter() - begun)
        assert best < 0.05

    with_pool(test)


def test_a_job_that_crashes_harms_nobody_else() -> None:
    async def test(pool: ComputePool) -> None:
        other = asyncio.create_task(pool.run("wait", {"wait_s": 0.5}))
        with pytest.raises(IntegrityError, match=r"died \(SIGSEGV\)"):
            await pool.run("crash", {})
        await is_well(pool)
        with pytest.raises(IntegrityError, match="exit code 3"):
            await pool.run("leave", {})
        await other
        assert await is_well(pool)

    with_pool(test, nworkers=2)


def test_a_job_that_eats_memory_is_refused_it() -> None:
    async def test(pool: ComputePool) -> None:
        assert await pool.run("eat", {"nbytes": 32 << 20}) == ({"nbytes": 32 << 20}, [])
        with pytest.raises(TooLargeError, match="more than 64 MiB of memory: ask for less"):
            await pool.run("eat", {"nbytes": 80 << 20})
        assert await is_well(pool)

    with_pool(test, max_nbytes=64 << 20)


def test_a_job_that_loops_is_ended() -> None:
    async def test(pool: ComputePool) -> None:
        await is_well(pool)
        with pytest.raises(DeadlineError, match=r"loop took over 0\.3 s"):
            await pool.run("loop", {})
        assert await is_well(pool)

    with_pool(test, timeout_s=0.3)


def test_errors_of_a_job_are_raised_here() -> None:
    async def test(pool: ComputePool) -> None:
        with pytest.raises(SelectionError, match=r"^not like this$"):
            await pool.run("refuse", {})
        with pytest.raises(IntegrityError, match=r"^fail fails with KeyError: 'two"):
            await pool.run("fail", {})
        process = pool.nprocesses
        assert await is_well(pool)
        assert pool.nprocesses == process == 1

    with_pool(test)


def test_cancelling_ends_a_long_job() -> None:
    async def test(pool: ComputePool) -> None:
        await is_well(pool)
        task = asyncio.create_task(pool.run("loop", {}))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await is_well(pool)

    with_pool(test)


def test_cancelling_a_short_job_keeps_its_process() -> None:
    async def test(pool: ComputePool) -> None:
        pid = (await pool.run("environment", {}))[0]["pid"]
        task = asyncio.create_task(pool.run("wait", {"wait_s": 0.1}))
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await pool.run("environment", {}))[0]["pid"] == pid

    with_pool(test)


def test_a_job_takes_its_buffers_part_by_part() -> None:
    closed = []

    async def parts(fails: int = -1) -> AsyncIterator[list[bytes]]:
        try:
            for number in range(20):
                if number == fails:
                    raise SourceUnavailableError("away")
                yield [b"x" * 100_000, b"y" * number]
        finally:
            closed.append(fails)

    async def test(pool: ComputePool) -> None:
        form, _ = await pool.run("total", {}, parts())
        assert form["sizes"] == [*(100_000 + n for n in range(20)), 0]
        for wrong in ({"fails": 0}, {"fails": 3}, {"fails": 19}):
            with pytest.raises(SelectionError, match="not this part"):
                await pool.run("total", wrong, parts())
        form, _ = await pool.run("total", {"stops": 2}, parts())
        assert len(form["sizes"]) == 2
        pid = (await pool.run("environment", {}))[0]["pid"]
        for fails in (0, 1, 7):
            with pytest.raises(SourceUnavailableError, match="away"):
                await pool.run("total", {}, parts(fails))
        assert (await pool.run("environment", {}))[0]["pid"] == pid
        assert closed == [-1] * 5 + [0, 1, 7]

    with_pool(test)


def test_a_job_asks_for_what_it_needs() -> None:
    async def answer(want: Any) -> list[bytes]:
        if want == 3:
            raise SourceUnavailableError("away")
        return [bytes(want)] * want

    async def test(pool: ComputePool) -> None:
        assert await pool.converse("inquire", {"wants": [1, 0, 2]}, answer) == ({"got": [[1], [], [2, 2]]}, [])
        pid = (await pool.run("environment", {}))[0]["pid"]
        with pytest.raises(SourceUnavailableError, match="away"):
            await pool.converse("inquire", {"wants": [1, 3, 2]}, answer)
        assert (await pool.run("environment", {}))[0]["pid"] == pid

    with_pool(test)


def test_too_many_waiting_jobs_are_refused() -> None:
    async def test(pool: ComputePool) -> None:
        first = [asyncio.create_task(pool.run("wait", {"wait_s": 0.2})) for _ in range(3)]
        await asyncio.sleep(0)
        await asyncio.sleep(0.01)
        with pytest.raises(TooManyRequestsError, match="2 computations wait here already"):
            await is_well(pool)
        await asyncio.gather(*first)
        assert await is_well(pool)

    with_pool(test, max_waiting=2)


def test_a_process_knows_no_secrets_and_writes_no_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CATERVA2_SECRET", "very")
    monkeypatch.setenv("JUPYTER_TOKEN", "secret")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "json.py").write_text("raise SystemExit(9)")

    async def test(pool: ComputePool) -> None:
        form, _ = await pool.run("environment", {})
        assert not [n for n in form["names"] if "CATERVA2" in n or "JUPYTER" in n or "TOKEN" in n]
        with pytest.raises(IntegrityError, match="write fails with"):
            await pool.run("write", {"path": str(tmp_path / "x")})

    with_pool(test)


def test_idle_processes_are_ended() -> None:
    async def test(pool: ComputePool) -> None:
        await is_well(pool)
        async with asyncio.timeout(60):
            while pool.nprocesses:
                await asyncio.sleep(0.01)
        assert await is_well(pool)

    with_pool(test, idle_s=0.05)


def test_stopping_ends_what_is_under_way() -> None:
    async def test(pool: ComputePool) -> None:
        await is_well(pool)
        task = asyncio.create_task(pool.run("loop", {}))
        await asyncio.sleep(0.05)
        await pool.stop()
        with pytest.raises(SourceUnavailableError, match="stopping"):
            await task
        with pytest.raises(SourceUnavailableError, match="stopping"):
            await is_well(pool)

    with_pool(test)


def test_a_process_that_died_while_idle_is_replaced() -> None:
    async def test(pool: ComputePool) -> None:
        pid = (await pool.run("environment", {}))[0]["pid"]
        os.kill(pid, 9)
        async with asyncio.timeout(60):
            while is_running(pid):
                await asyncio.sleep(0.005)
        assert await is_well(pool)

    with_pool(test)


def test_a_worker_that_cannot_start_is_told_in_one_line() -> None:
    async def test(pool: ComputePool) -> None:
        with pytest.raises(SourceUnavailableError, match="does not start"):
            await is_well(pool)

    with_pool(test, program=("-c", "raise SystemExit(1)"))
