"""Dask arrays over remote ones: the same values under every scheduler, names that depend on content, no secrets."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import caterva2_jupyter as cat2
from caterva2_jupyter.storage.memory_root import MemoryRoot
from tests.client.memory_service import MemoryService
from tests.processes import wait_for

da = pytest.importorskip("dask.array")
dask = pytest.importorskip("dask")

FIELD = np.sin(np.arange(40 * 60 * 70, dtype="<f4")).reshape(40, 60, 70)
TOKEN = "a-secret-token"

ARRAYS: dict[str, tuple[np.ndarray, dict[str, Any]]] = {
    "field.b2nd": (FIELD, {"chunks": (8, 30, 35), "blocks": (4, 10, 35)}),
    "big-endian.b2nd": (np.arange(1000, dtype=">i8"), {"chunks": (130,), "blocks": (17,)}),
    "scalar.b2nd": (np.array(42.5), {}),
    "none.b2nd": (np.zeros((3, 0, 4), "<f4"), {}),
    "strings.b2nd": (np.array([["a", "bé", ""], ["日本", "x" * 300, "\n"]], dtype=object), {"chunks": (1, 2)}),
    "word.b2nd": (np.array("word", dtype=object), {}),
    "dates.b2nd": (np.array(["2026-01-01", "NaT", "2026-03-01"], "M8[s]"), {}),
    "pairs.b2nd": (np.zeros(9, [("x", "<i4"), ("v", ">f8", (3,))]), {"chunks": (4,), "blocks": (2,)}),
}


def memory_root() -> MemoryRoot:
    root = MemoryRoot()
    for path, (values, partition) in ARRAYS.items():
        root.set(path, values, attrs={"long": "x" * 2000}, **partition)
    return root


@pytest.fixture(scope="module")
def service() -> Iterator[MemoryService]:
    with MemoryService({"foo": memory_root()}, token=TOKEN) as running:
        yield running


@pytest.fixture
def root(service: MemoryService, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("CATERVA2_URL", service.url)
    monkeypatch.setenv("CATERVA2_TOKEN", TOKEN)
    return cat2.connect()["foo"]


@pytest.mark.parametrize("path", sorted(ARRAYS))
def test_a_dask_array_has_the_values_and_dtype_of_its_source(root: Any, path: str) -> None:
    expected, _ = ARRAYS[path]
    lazy = root[path].to_dask()
    assert (lazy.shape, lazy.dtype) == (expected.shape, expected.dtype)
    with dask.config.set(scheduler="threads"):
        values = lazy.compute()
    assert np.asarray(values).dtype == expected.dtype
    np.testing.assert_array_equal(values, expected)


def test_nothing_is_read_before_it_is_computed(root: Any, service: MemoryService) -> None:
    array = root["field"]
    asked = len(service.requests)
    lazy = array.to_dask()[3:5].mean(axis=0)
    assert len(service.requests) == asked
    np.testing.assert_allclose(lazy.compute(scheduler="synchronous"), FIELD[3:5].mean(axis=0))
    assert service.requests[asked:] == ["POST read"], "of the chunks that are not touched nothing is asked for"


def test_chunks_are_stored_ones_or_several_of_them(root: Any) -> None:
    array = root["field"]
    assert array.to_dask({}).chunksize == (8, 30, 35)
    assert array.to_dask().chunks == ((40,), (60,), (70,)), "small chunks are read together"
    assert array.to_dask((16, 60, -1)).chunksize == (16, 60, 70)
    assert array.to_dask({0: 24}).chunksize == (24, 30, 35)
    with dask.config.set({"array.chunk-size": "200 kiB"}):
        assert all(n % stored == 0 for n, stored in zip(array.to_dask("auto").chunksize, (8, 30, 35), strict=True))
    with pytest.warns(UserWarning, match=r"chunks of 5 along axis 0 cut through stored ones of 8"):
        array.to_dask((5, 30, 35))


@pytest.mark.parametrize("chunks", [(5, 5), "some", (-3, 1, 1), {"x": 4}, (3.5, 1, 1)])
def test_chunks_that_do_not_fit_are_refused_in_one_line(root: Any, chunks: Any) -> None:
    with pytest.raises(cat2.ConfigError) as raised:
        root["field"].to_dask(chunks)
    assert "foo/field.b2nd" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_names_depend_on_version_and_chunks_alone(root: Any, service: MemoryService) -> None:
    array = root["field"]
    name = array.to_dask().name
    assert name == cat2.connect(service.url, token=TOKEN)["foo/field"].to_dask().name
    assert name == pickle.loads(pickle.dumps(array)).to_dask().name
    assert len({name, array.to_dask({}).name, root["dates"].to_dask().name}) == 3
    assert root["pairs"]["x"].to_dask().name != root["pairs"].to_dask().name
    with MemoryService({"foo": (own := memory_root())}) as other:
        opened = cat2.connect(other.url)["foo/field"]
        before = opened.to_dask().name
        own.set("field.b2nd", FIELD * 2)
        other.rescan()
        assert opened.refresh().to_dask().name != before


def test_a_graph_holds_no_secret_and_is_small(service: MemoryService) -> None:
    import cloudpickle

    lazy = cat2.connect(service.url, token=TOKEN)["foo/field"].to_dask({})
    graph = cloudpickle.dumps(lazy)
    assert TOKEN.encode() not in graph
    assert TOKEN not in repr(lazy) + repr(dict(lazy.dask)) + lazy._repr_html_()
    assert len(graph) < 8000


def test_threads_and_processes_compute_the_same(root: Any) -> None:
    mean = root["field"].to_dask({}).mean(axis=0, dtype="f8")
    expected = FIELD.mean(axis=0, dtype="f8")
    np.testing.assert_allclose(mean.compute(scheduler="threads"), expected)
    np.testing.assert_allclose(mean.compute(scheduler="processes", num_workers=2), expected)


def test_tasks_of_a_process_share_their_connections(root: Any) -> None:
    one, other = (pickle.loads(pickle.dumps(root[path])) for path in ("field", "dates"))
    assert one._session is other._session
    assert one._session is not root._session


def test_a_dataset_that_changes_while_it_is_computed_raises() -> None:
    with MemoryService({"foo": (own := memory_root())}) as service:
        lazy = cat2.connect(service.url)["foo/field"].to_dask({})
        seen = []

        def change(block: np.ndarray) -> np.ndarray:
            seen.append(block.shape)
            if len(seen) == 3:
                own.set("field.b2nd", -FIELD, chunks=(8, 30, 35), blocks=(4, 10, 35))
                service.rescan()
            return block

        with pytest.raises(cat2.DatasetChangedError, match="foo/field"):
            lazy.map_blocks(change, dtype="f4", meta=np.empty((0, 0, 0), "f4")).compute(scheduler="synchronous")
        assert len(seen) == 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_amid_reads_of_other_threads_reads_on(root: Any) -> None:
    array = root["field"]
    stopped = threading.Event()
    failures: list[BaseException] = []

    def read() -> None:
        try:
            while not stopped.is_set():
                assert array[7, 3, 5] == FIELD[7, 3, 5]
                np.testing.assert_array_equal(array[:, 20:40], FIELD[:, 20:40])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(4):
            child = os.fork()
            if child == 0:
                signal.alarm(30)  # a lock that was held at the fork would never be free
                try:
                    os._exit(0 if np.array_equal(array.to_dask({})[5:9].compute(scheduler="sync"), FIELD[5:9]) else 1)
                except BaseException:
                    os._exit(2)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        stopped.set()
        for thread in threads:
            thread.join()
    assert not failures


def _environment(service: MemoryService, tmp_path: Path) -> dict[str, str]:
    """Of a worker: it finds the credentials by itself."""
    paths = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    return os.environ | {
        "CATERVA2_URL": service.url,
        "CATERVA2_TOKEN": TOKEN,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "DASK_TEMPORARY_DIRECTORY": str(tmp_path),
    }


def _slow(block: np.ndarray) -> np.ndarray:
    time.sleep(0.02)
    return block * 2


@pytest.mark.filterwarnings("ignore")
def test_a_cluster_of_processes_computes_the_same(
    service: MemoryService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distributed = pytest.importorskip("distributed")
    for name in ("CATERVA2_URL", "CATERVA2_TOKEN", "PYTHONPATH", "DASK_TEMPORARY_DIRECTORY"):
        monkeypatch.setenv(name, _environment(service, tmp_path)[name])
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=2, processes=True, dashboard_address=None, local_directory=tmp_path
    )
    with cluster, distributed.Client(cluster):
        root = cat2.connect(service.url, token=TOKEN)["foo"]
        np.testing.assert_array_equal(root["field"].to_dask({}).compute(), FIELD)
        np.testing.assert_array_equal(root["strings"].to_dask({}).compute(), ARRAYS["strings.b2nd"][0])
        with MemoryService({"bar": (own := MemoryRoot({"line.b2nd": np.arange(100)}))}) as other:
            lazy = cat2.connect(other.url)["bar/line"].to_dask()
            own.set("line.b2nd", np.arange(100) * 2)
            other.rescan()
            with pytest.raises(cat2.DatasetChangedError, match="bar/line"):
                lazy.compute()


@pytest.mark.filterwarnings("ignore")
def test_workers_started_as_commands_compute_and_one_that_dies_is_survived(
    service: MemoryService, tmp_path: Path
) -> None:
    distributed = pytest.importorskip("distributed")
    environ = _environment(service, tmp_path)
    file = tmp_path / "scheduler.json"
    dask_command = [sys.executable, "-m", "dask"]
    processes: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str, **changed: str) -> subprocess.Popen[bytes]:
        with (tmp_path / f"{arguments[0]}-{len(processes)}.log").open("wb") as log:
            process = subprocess.Popen(
                [*dask_command, *arguments], env=environ | changed, cwd=tmp_path, stdout=log, stderr=subprocess.STDOUT
            )
        processes.append(process)
        return process

    try:
        # The scheduler sees the graph and nothing else: it knows no credentials.
        start("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file),
              CATERVA2_URL="", CATERVA2_TOKEN="")  # fmt: skip
        wait_for(file.exists, 40, "the scheduler listens")
        worker = ("worker", "--scheduler-file", str(file), "--nthreads", "1", "--no-dashboard", "--no-nanny")
        victim, _ = start(*worker), start(*worker)
        with distributed.Client(scheduler_file=str(file), timeout=40) as client:
            client.wait_for_workers(2, timeout=40)
            field = cat2.connect(service.url, token=TOKEN)["foo/field"].to_dask((2, 30, 35))
            pids = client.run(os.getpid)
            (address,) = [address for address, pid in pids.items() if pid == victim.pid]
            doubled = client.persist(field.map_blocks(_slow, dtype="f4", meta=np.empty((0, 0, 0), "f4")))
            wait_for(lambda: len(client.has_what().get(address, ())) > 3, 40, "the victim holds results")
            victim.kill()
            np.testing.assert_array_equal(client.compute(doubled).result(timeout=60), FIELD * 2)
            assert address not in client.scheduler_info()["workers"]
    finally:
        for process in processes:  # asked to stop, a worker looks for its scheduler for as long as half a minute
            process.kill()
            process.wait()
