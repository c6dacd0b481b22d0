"""cat2import and cat2export: values, attributes, what is reported, exit codes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import blosc2
import h5py
import numpy as np
import pytest

from caterva2_jupyter.core.attributes import decode_attr
from caterva2_jupyter.storage.directory_root import DirectoryRoot
from caterva2_jupyter.tools import example_hdf5, export_hdf5, import_hdf5
from tests.storage.hdf5_compare import assert_same, listed, read


def plain_value_of(attrs: Any) -> Any:
    values = {name: decode_attr(form) for name, form in attrs.items() if name != "_ARRAY_DIMENSIONS"}
    return {name: value.tolist() if hasattr(value, "tolist") else value for name, value in values.items()}


@pytest.fixture
def example(tmp_path: Path) -> Path:
    example_hdf5.make_example(tmp_path / "example.h5")
    return tmp_path / "example.h5"


def test_the_example_is_written_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "root-example.h5"
    assert example_hdf5.main([str(path)]) == 0
    assert capsys.readouterr().out == f"Created example HDF5 root: '{path}'\n"
    assert example_hdf5.main([str(path)]) == 1
    assert capsys.readouterr().err == f"'{path}' exists already: remove it, or choose another name\n"
    assert [p.name for p in tmp_path.iterdir()] == ["root-example.h5"]


def test_an_example_that_cannot_be_written_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert example_hdf5.main([str(tmp_path / "none" / "file.h5")]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_an_imported_file_has_the_values_of_the_file(example: Path, tmp_path: Path, capsys: Any) -> None:
    assert import_hdf5.main([str(example), str(tmp_path / "root")]) == 0
    told = capsys.readouterr()
    assert "49 copied, 7 skipped" in told.out
    assert "skipped 'unsupported/ragged.b2nd': its values are arrays of variable length" in told.err
    root = DirectoryRoot(tmp_path / "root", "owner")
    entries = listed(root)
    with h5py.File(example) as file:
        for path, entry in entries.items():
            if entry.kind == "array":
                assert_same(read(root, entry), file[path.removesuffix(".b2nd")][...])
    assert entries["climate/temperature.b2nd"].dims == ("time", "lat", "lon")
    assert decode_attr(entries["attrs.b2nd"].attrs["Arr"]).tolist() == [[1, 2, 3], [4, 5, 6]]
    packed = blosc2.open(str(tmp_path / "root" / "climate" / "temperature.b2nd"))
    assert packed.schunk.vlmeta["scale_factor"] == 0.01
    root.close()


@pytest.mark.parametrize("compression", ["blosc2", "gzip", "none"])
def test_an_exported_root_has_the_values_of_the_root(compression: str, example_root: Path, tmp_path: Path) -> None:
    times = np.arange("2024-01-01", "2024-01-11", dtype="M8[D]").astype("M8[ns]")
    blosc2.asarray(times, urlpath=str(example_root / "times.b2nd"), mode="w")
    blosc2.asarray(np.array(["zwölf", "二"]), urlpath=str(example_root / "words.b2nd"), mode="w")
    arguments = [str(example_root), str(tmp_path / "out.h5"), "--compression", compression]
    assert export_hdf5.main(arguments) == 0
    root = DirectoryRoot(example_root, "owner")
    with h5py.File(tmp_path / "out.h5") as file:
        for path, entry in listed(root).items():
            if entry.geometry is None:
                continue
            stored = file[path.removesuffix(".b2nd") if entry.kind == "array" else path]
            values = read(root, entry)
            if values.dtype.kind == "U":
                assert (
                    stored.asstr()[()] == values.item() if not values.shape else (stored.asstr()[...] == values).all()
                )
            else:
                assert_same(values, stored[...])
    root.close()


def test_there_and_back_gives_the_same_arrays(example_root: Path, tmp_path: Path) -> None:
    export_hdf5.export_hdf5(example_root, tmp_path / "out.h5")
    import_hdf5.import_hdf5(tmp_path / "out.h5", tmp_path / "back")
    root, back = DirectoryRoot(example_root, "owner"), DirectoryRoot(tmp_path / "back", "owner")
    again = listed(back)
    for path, entry in listed(root).items():
        if entry.kind == "array":
            values, returned = read(root, entry), read(back, again[path])
            if values.dtype.kind == "U":  # HDF5 has UTF-8 bytes
                returned = np.char.decode(returned, "utf-8").astype(values.dtype)
            assert_same(returned, values)
            attrs = {name: form for name, form in again[path].attrs.items() if name != "_ARRAY_DIMENSIONS"}
            assert plain_value_of(attrs) == plain_value_of(entry.attrs)
    root.close()
    back.close()


def test_mistakes_are_one_line_and_leave_nothing_behind(example: Path, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "text").write_text("not HDF5")
    mistakes = [
        (import_hdf5.main, [str(tmp_path / "none.h5"), str(tmp_path / "out")]),
        (import_hdf5.main, [str(tmp_path / "text"), str(tmp_path / "out")]),
        (import_hdf5.main, [str(example), str(tmp_path)]),
        (export_hdf5.main, [str(tmp_path / "none"), str(tmp_path / "out")]),
        (export_hdf5.main, [str(tmp_path), str(example)]),
    ]
    for main, arguments in mistakes:
        assert main(arguments) == 1
        assert len(capsys.readouterr().err.splitlines()) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["example.h5", "text"]
    with pytest.raises(SystemExit) as usage:
        import_hdf5.main([])
    assert usage.value.code == 2


def test_what_fails_is_reported_and_the_rest_goes_on(tmp_path: Path, capsys: Any) -> None:
    with h5py.File(tmp_path / "file.h5", "w") as file:
        file["good"] = np.arange(5)
        bad = file.create_dataset("bad", data=np.arange(9000.0), chunks=(9000,), compression="gzip", fletcher32=True)
        where = bad.id.get_chunk_info(0).byte_offset
    data = bytearray((tmp_path / "file.h5").read_bytes())
    data[where + 20] ^= 1
    (tmp_path / "file.h5").write_bytes(data)
    assert import_hdf5.main([str(tmp_path / "file.h5"), str(tmp_path / "out")]) == 1
    told = capsys.readouterr()
    assert "failed 'bad.b2nd': chunk 0 fails its fletcher32 checksum" in told.err
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        ".caterva2-hdf5",
        ".caterva2-import.json",
        "good.b2nd",
    ]
