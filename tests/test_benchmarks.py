"""The benchmark itself, on tiny data: it runs, verifies what it reads, and notices what is wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from benchmarks import run, scale
from benchmarks.datasets import NAMES, SIZES, make_data
from benchmarks.measure import Sample, Truth
from benchmarks.peers import Site
from benchmarks.report import markdown
from benchmarks.workloads import draw


@pytest.mark.timeout(400)
def test_a_quick_run_measures_and_verifies_every_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    peers = ["local", "local-hdf5", "this", *(["blocks"] if shutil.which("nginx") else [])]
    how = ["--quick", "--peers", ",".join(peers), "--tables", "reads,crowd,listing", "--seed", "1"]
    assert run.main([*how, "--work", str(tmp_path)]) == 0
    report = Path(capsys.readouterr().out.strip())
    found = json.loads((report.parent / "loopback.json").read_text())
    errors = [s["error"] for s in [*found["samples"], *found["crowds"], *found["listings"]] if s["error"]]
    assert errors == []
    workloads = {w.name for w in draw(SIZES["quick"], 1)}
    assert {s["workload"] for s in found["samples"] if s["peer"] == "caterva2-jupyter"} == workloads
    assert {(x["peer"], x["count"]) for x in found["listings"]} >= {("caterva2-jupyter", SIZES["quick"].nsmall)}
    assert all(f"| {name}" in report.read_text() for name in ("local blosc2", "caterva2-jupyter"))
    assert not list(tmp_path.glob("state-*"))


def test_unknown_names_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(["--work", str(tmp_path), "--peers", "this,nobody", "--links", "moon"]) == 2
    assert capsys.readouterr().err == "benchmarks: no such link or peer: moon, nobody\n"


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_selections_fit_and_are_not_warm_for_one_another(size: object) -> None:
    for seed in range(20):
        seen: dict[str, set[int]] = {}
        for workload in draw(size, seed):  # type: ignore[arg-type]
            if workload.dataset in NAMES:
                array = getattr(size, workload.dataset)
                for key in workload.keys:
                    for part, n in zip(key, array.shape, strict=True):
                        start, stop = part if isinstance(part, list) else (part, part + 1)
                        assert 0 <= start < stop <= n
            if workload.name in ("map", "box", "random", "bulk"):
                planes = {
                    plane
                    for first, *_ in workload.keys
                    for plane in (range(*first) if isinstance(first, list) else [first])
                }
                assert all(not planes & others for others in seen.values()), (workload.name, seed)
                seen[workload.name] = planes


def test_digests_tell_values_apart(tmp_path: Path) -> None:
    make_data(tmp_path, SIZES["quick"])
    truth = Truth(tmp_path)
    keys = [[[0, 5], 3, [1, 9]]]
    assert truth.digest("field", keys) == truth.digest("field", keys)
    assert truth.digest("field", keys) != truth.digest("field", [[[0, 5], 3, [2, 10]]])
    assert truth.digest("hdf5", keys) == truth.digest("field", keys)


def test_the_report_has_medians_and_says_what_failed() -> None:
    link = {"title": "A link", "rtt_s": 0.04, "bits_per_s": 100e6, "loss": 0.0}
    samples = [
        Sample(run, "peer", "box", "cold", 1, 12_062_500, seconds, down_nbytes=24_125_000)
        for run, seconds in enumerate([9.0, 2.08, 1.0])
    ]
    samples.append(Sample(3, "peer", "box", "cold", 1, 12_062_500, 180.0, "late: no answer"))
    text = markdown(link, samples, [], [])
    assert text.count("2.08 s (1 failed)") == 1
    assert "| peer | 2.00 (1 failed) |" in text  # of the floor, and of the bytes
    assert np.isclose(24_125_000 / 12_062_500, 2)


def test_reads_through_xarray_are_verified(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("zarr")
    pytest.importorskip("dask")
    from benchmarks import xarray_reads

    assert xarray_reads.main(["--quick", "--runs", "1", "--peers", "local,direct", "--work", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "| direct |" in out
    assert "WRONG" not in out


def test_figures_of_many_are_verified(tmp_path: Path) -> None:
    data = tmp_path / "data"
    make_data(data, SIZES["quick"])
    site = Site(data, tmp_path / "work", tmp_path, None)
    for measure in (scale.followers, scale.many_chunks, scale.one_cold_block):
        for figure in measure(site, SIZES["quick"], 1, Truth(data)):
            assert not figure.error
            if figure.what.startswith("upstream requests"):
                assert figure.value == "1"
