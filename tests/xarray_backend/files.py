"""Files that are compared: what netCDF4, h5netcdf and h5py write, and look-alikes of files of other programs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5netcdf
import h5py
import hdf5plugin
import netCDF4
import numpy as np
import xarray as xr

Make = Callable[[Path], None]

CALENDARS = ("360_day", "noleap", "julian", "all_leap", "standard", "proleptic_gregorian")


def classic_cf(path: Path) -> None:
    """Packed, masked, unsigned, big, strings and chars, bounds, coordinates, groups that inherit dimensions."""
    with netCDF4.Dataset(path, "w") as nc:
        for name, length in {"time": None, "x": 4, "nv": 2, "strlen": 7, "unused": 3}.items():
            nc.createDimension(name, length)
        nc.title, nc.number, nc.one, nc.empty = "hello", np.float32(2.5), np.array([7], "u8"), ""
        nc.list = np.array([1, 2, 3], "i2")
        nc.setncattr_string("names", ["a", "é"])
        nc.setncattr_string("single", ["a"])
        time = nc.createVariable("time", "f8", ("time",))
        time.units, time.calendar, time.bounds = "days since 2000-01-01", "noleap", "time_bnds"
        bounds = nc.createVariable("time_bnds", "f8", ("time", "nv"))
        x = nc.createVariable("x", "f4", ("x",))
        x[:], x.units = [1, 2, 3, 4], "degrees_north"
        packed = nc.createVariable("packed", "i2", ("time", "x"), fill_value=-999, zlib=True)
        packed.scale_factor, packed.add_offset, packed.coordinates = 0.01, 3.0, "lon lat"
        packed.valid_range = np.array([0, 100], "i2")
        how = {"zlib": True, "complevel": 9, "shuffle": False, "fletcher32": True}
        unsigned = nc.createVariable("unsigned", "i1", ("time", "x"), fill_value=-1, **how)
        unsigned.setncattr("_Unsigned", "true")
        unsigned.scale_factor = np.float32(0.5)
        for name in ("lon", "lat"):
            nc.createVariable(name, "f8", ("x",))[:] = np.arange(4) * 1.5
        time[:], bounds[:] = np.arange(10), np.arange(20).reshape(10, 2)
        packed[:] = np.arange(40).reshape(10, 4)
        packed[2:4, 1] = np.ma.masked
        unsigned[:] = np.arange(40).reshape(10, 4)
        nc.createVariable("text", str, ("x",))[:] = np.array(["a", "bb", "", "é"], object)
        nc.createVariable("scalar_text", str)[...] = "hello"
        chars = nc.createVariable("chars", "S1", ("x", "strlen"))
        chars._Encoding = "utf-8"
        chars[:] = np.array(["abc", "é", "", "1234567"], "U7")
        raw_chars = nc.createVariable("raw_chars", "S1", ("x", "strlen"))
        raw_chars[:] = netCDF4.stringtochar(np.array(["abc", "d", "", "1234567"], "S7"))
        single = nc.createVariable("single_chars", "S1", ("x",), fill_value=b"x")
        single[:] = np.array([b"a", b"x", b"c", b"d"])
        nc.createVariable("masked_int64", "i8", ("x",), fill_value=-(2**63))[:] = [2**53 + 1, -(2**63), 3, 2**62 + 1]
        nc.createVariable("uint64", "u8", ("x",))[:] = [2**64 - 1, 1, 2, 2**53 + 1]
        nc.createVariable("default_fill", "f4", ("time", "x"))[0] = 1
        nc.createVariable("default_fill_int", "i4", ("time", "x"))[9] = 1
        nc.createVariable("crs", "i4").grid_mapping_name = "latitude_longitude"
        members = nc.createEnumType("u1", "cloud_t", {"clear": 0, "cloudy": 1, "missing": 255})
        nc.createVariable("clouds", members, ("x",), fill_value=255)[:] = [0, 1, 255, 0]
        pair = nc.createCompoundType(np.dtype([("a", "f4"), ("b", "i4")]), "pair_t")
        nc.createVariable("pairs", pair, ("x",))[:] = np.array([(1, 2)] * 4, pair.dtype)
        missing = nc.createVariable("two_missing", "f8", ("x",))
        missing.missing_value = np.array([1e20, -1e20])
        missing[:] = [1, 1e20, -1e20, np.nan]
        seconds = nc.createVariable("seconds", "i4", ("x",))
        seconds.units, seconds[:] = "seconds", [1, 2, 3, 4]
        group = nc.createGroup("group")
        group.note = "below"
        group.createVariable("w", "f4", ("time", "x"))[:] = np.ones((10, 4))
        group.createDimension("y", 3)
        group.createVariable("y", "i4", ("y",))[:] = [3, 2, 1]
        group.createVariable("z", "f8", ("y", "x"))[:] = 1
        deep = group.createGroup("deep")
        deep.createVariable("q", "f8", ("y", "time"))[:] = np.ones((3, 10))


def calendar(path: Path, name: str) -> None:
    with netCDF4.Dataset(path, "w") as nc:
        nc.createDimension("time", 5)
        time = nc.createVariable("time", "f8", ("time",))
        time.units, time.calendar = "days since 1850-01-01 00:00:00", name
        time[:] = [0, 31, 59, 360, 364.5]
        other = nc.createVariable("issued", "i8", ("time",), fill_value=-9)
        other.units, other.calendar = "seconds since 1970-01-01", name
        other[:] = [0, 1, -9 if "greg" in name else 2, 3, 4]


def unlimited(path: Path) -> None:
    """Variables of different lengths along unlimited dimensions: the shorter ones end in fill values."""
    with netCDF4.Dataset(path, "w") as nc:
        nc.createDimension("t", None)
        nc.createDimension("s", None)
        nc.createVariable("a", "f4", ("t",))[:] = np.arange(3)
        nc.createVariable("b", "i4", ("t", "s"))[0:5, 0:2] = np.ones((5, 2))
        nc.createVariable("c", "f8", ("s",), fill_value=-5.0)[0:1] = 9.0
        nc.createVariable("t", "f8", ("t",))[0:2] = [1.0, 2.0]
        nc.createGroup("g").createVariable("d", "f4", ("t",))[0:7] = np.arange(7)


def clash(path: Path) -> None:
    """Variables named as dimensions that are not theirs, and coordinates of two dimensions."""
    with netCDF4.Dataset(path, "w") as nc:
        nc.createDimension("x", 3)
        nc.createDimension("y", 2)
        nc.createVariable("y", "f4", ("x",))[:] = [1, 2, 3]
        nc.createVariable("x", "f8", ("x", "y"))[:] = np.arange(6).reshape(3, 2)
        nc.createVariable("m", "f8", ("y", "x"))[:] = np.arange(6).reshape(2, 3)


def by_h5netcdf(path: Path) -> None:
    with h5netcdf.File(path, "w") as file:
        file.dimensions = {"x": 5, "t": None}
        file.resize_dimension("t", 4)
        var = file.create_variable("foo", ("x", "t"), "f4", chunks=(2, 2), compression="gzip", compression_opts=3,
                                   shuffle=True, fillvalue=-1.0)  # fmt: skip
        var[...] = np.arange(20).reshape(5, 4)
        var.attrs["half"] = np.float16(1.5)
        file.create_variable("x", ("x",), "i8")[...] = np.arange(5)
        file.create_variable("complex", ("x",), "c8")[...] = np.arange(5) * (1 + 2j)
        file.create_group("a/b").create_variable("inherits", ("x",), "f8")[...] = 1
        file.attrs["matrix"] = np.array([[1, 2], [3, 4]])


def plain_hdf5(path: Path) -> None:
    """No dimension scales: every axis is a phony one."""
    with h5py.File(path, "w") as file:
        file["a"], file["b"], file["c"] = np.arange(12.0).reshape(3, 4), np.arange(3), np.arange(9).reshape(3, 3)
        file["bool"], file["complex"] = np.array([True, False, True]), np.arange(4) * (1 + 1j)
        file["float16"], file["S5"] = np.arange(4, dtype="f2"), np.array([b"ab", b"cdefg", b"\0a"], "S5")
        file["text"] = np.array(["x", "yy", "é"], object)
        file.create_dataset("ascii", data=["a", "b"], dtype=h5py.string_dtype("ascii"))
        utf8 = np.array(["é".encode(), b"b"], dtype=h5py.string_dtype("utf-8", 4))
        file.create_dataset("utf8_fixed", data=utf8)
        file["scalar"], file["scalar_text"], file["scalar_bytes"] = 3.5, "hello", np.bytes_(b"abc")
        payloads = np.array([0x7FF8000000000123, 0xFFF8000000000001, 0x8000000000000000], "u8")
        file["nan_payloads"], file["big_endian"] = payloads.view("f8"), np.arange(4, dtype=">i2")
        data, chunked = np.arange(1000).reshape(10, 100), {"chunks": (3, 30)}
        file.create_dataset("gzip", data=data, compression="gzip", shuffle=True, **chunked)
        file.create_dataset("lzf", data=data, compression="lzf", **chunked)
        file.create_dataset("scaleoffset", data=data, scaleoffset=0, **chunked)
        file.create_dataset("zstd", data=data * 1.0, **chunked, **hdf5plugin.Zstd())
        file.create_dataset("bitshuffle", data=data * 1.0, **chunked, **hdf5plugin.Bitshuffle())
        file.create_dataset("blosc2", data=data * 1.0, **chunked, **hdf5plugin.Blosc2())
        masked = file.create_dataset("filter_mask", (4, 6), "f4", chunks=(2, 3), compression="gzip")
        masked[...] = 1
        masked.id.write_direct_chunk((0, 0), np.arange(6, dtype="f4").tobytes(), filter_mask=1)
        file.create_dataset("never_written", (4, 5), "i4", fillvalue=7, chunks=(2, 2))
        file["empty"] = np.zeros((0, 3))
        file.create_dataset(
            "enum", data=np.array([0, 1, 2], "u1"), dtype=h5py.enum_dtype({"r": 0, "g": 1, "b": 2}, "u1")
        )
        file.create_dataset("compound", data=np.array([(1, 2.5, b"ab")], [("i", "<i4"), ("f", "<f8"), ("s", "S3")]))
        file.create_dataset("extensible", data=np.arange(6).reshape(2, 3), maxshape=(None, 3))
        attrs = file.attrs
        attrs["f32"], attrs["i64"], attrs["nan"], attrs["bool"] = np.float32(1.5), 2**62 + 1, np.nan, True
        attrs["array"], attrs["none"], attrs["row"] = np.arange(3, dtype=">i4"), np.zeros(0), np.ones((1, 3))
        attrs["not_ascii"], attrs["text"], attrs["char"] = np.bytes_(b"latin \xe9"), "é", np.bytes_(b"x")
        attrs["fixed"], attrs["chars"] = np.array([b"a", b"bc"]), np.array([b"a", b"b"])
        attrs["texts"], attrs["one_text"] = ["a", "b"], ["a"]
        attrs["fixed_2d"] = np.array([[b"ab", b"c"], [b"d", b"ef"]])
        attrs["texts_2d"] = np.array([["ab", "c"], ["d", "ef"]], object)
        attrs["null"], attrs["null_text"] = h5py.Empty("f4"), h5py.Empty(h5py.string_dtype())
        attrs["null_char"], attrs["null_fixed"] = h5py.Empty("S1"), h5py.Empty("S5")
        attrs["complex"], attrs["struct"] = 1 + 2j, np.array((1, 2.5), [("a", "i4"), ("b", "f8")])
        file["a"].attrs["utf8"] = np.array("é".encode(), dtype=h5py.string_dtype("utf-8", 2))
        file["a"].attrs["units"] = np.bytes_("°C".encode())
        group = file.create_group("group")
        group["p"], group["q"] = np.arange(3), np.arange(7)
        group.create_group("sub")["r"] = np.arange(7.0)
        file.create_group("zz")["s"] = np.arange(11)


def scales(path: Path) -> None:
    """Dimension scales of HDF5's own kind: with names, labels, several to an axis, and some that nothing uses."""
    with h5py.File(path, "w") as file:
        file["x"], file["y"], file["d"] = np.arange(4.0), np.arange(3), np.arange(12.0).reshape(3, 4)
        file["x"].make_scale("the x")
        file["y"].make_scale()
        file["d"].dims[0].attach_scale(file["y"])
        file["d"].dims[1].attach_scale(file["x"])
        file["d"].dims[0].label = "rows"
        file["lonely"], file["other"], file["x2"] = np.arange(4), np.arange(9), np.arange(4) * 2
        file["x2"].make_scale()
        file["e"] = np.arange(4)
        file["e"].dims[0].attach_scale(file["x"])
        file["e"].dims[0].attach_scale(file["x2"])


def tracked_order(path: Path) -> None:
    """Order of creation is tracked, and phony dimensions are counted in it."""
    with h5py.File(path, "w", track_order=True) as file:
        for name, length in {"zz": 3, "m": 5, "a": 7}.items():
            file[name] = np.arange(length)
        for name in ("b", "a2"):
            group = file.create_group(name, track_order=True)
            group["q"], group["c"] = np.arange(11), np.arange(2)


def nested_phony(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["r"] = np.arange(3)
        for where in ("b/c", "a/d", "a/e/f"):
            group = file.create_group(where)
            group["x"], group["y"] = np.arange(len(where)), np.ones((2, len(where)))
        file["a/only"] = np.arange(99)


def by_xarray(path: Path, engine: str, **options: object) -> None:
    """NaT, seconds before 1582, timedeltas, bools, strings of all kinds."""
    times = np.array(["2000-01-01", "NaT", "2020-05-05T12:00:00.123456789"], "M8[ns]")
    ds = xr.Dataset(
        {
            "t": ("i", times),
            "delta": ("i", np.array([1, 2, 3], "m8[D]")),
            "seconds": ("i", np.array(["2000-01-01", "2001-01-01", "1500-01-01"], "M8[s]")),
            "boolean": ("i", np.array([True, False, True])),
            "text": ("i", np.array(["a", "bb", "ccc"])),
            "objects": ("i", np.array(["x", "", "z"], object)),
            "raw": ("i", np.array([b"a", b"bb", b"ccc"])),
            "minus_zero": ("i", np.array([-0.0, 0.0, np.nan], "f4")),
        },
        coords={"i": [10, 20, 30], "label": ("i", ["p", "q", "r"])},
        attrs={"a": 1},
    )
    ds.to_netcdf(path, engine=engine, **options)


def tree(path: Path) -> None:
    parts = {
        "/": xr.Dataset({"t": ("i", [1.0, 2.0])}, {"i": [5, 6]}),
        "/c": xr.Dataset({"v": ("j", np.arange(3.0))}, {"j": [1, 2, 3]}),
        "/c/d": xr.Dataset({"w": ("k", ["a", "b"])}),
    }
    xr.DataTree.from_dict(parts).to_netcdf(path, engine="h5netcdf")


def era5(path: Path) -> None:
    """Packed shorts with an expver and a number, hours since 1900 (old) and seconds since 1970 (new)."""
    with netCDF4.Dataset(path, "w") as nc:
        nc.Conventions, nc.institution = "CF-1.7", "European Centre"
        for name, length in {"valid_time": 6, "latitude": 5, "longitude": 8}.items():
            nc.createDimension(name, length)
        nc.createVariable("number", "i8").units = "1"
        time = nc.createVariable("valid_time", "i8", ("valid_time",))
        time.units, time.calendar, time[:] = "seconds since 1970-01-01", "proleptic_gregorian", np.arange(6) * 3600
        nc.createVariable("latitude", "f8", ("latitude",), fill_value=np.nan)[:] = np.linspace(90, -90, 5)
        nc.createVariable("longitude", "f8", ("longitude",), fill_value=np.nan)[:] = np.arange(8) * 45.0
        nc.createVariable("expver", str, ("valid_time",))[:] = np.array(["0001"] * 6, object)
        t2m = nc.createVariable("t2m", "i2", ("valid_time", "latitude", "longitude"), fill_value=-32767, zlib=True,
                                chunksizes=(2, 5, 8))  # fmt: skip
        t2m.setncatts({"scale_factor": 0.0018, "add_offset": 258.4, "missing_value": np.int16(-32767), "units": "K",
                       "coordinates": "number valid_time latitude longitude expver"})  # fmt: skip
        t2m[:] = np.random.default_rng(0).uniform(220, 300, (6, 5, 8))


def cmip6(path: Path) -> None:
    """Bounds of all axes, a scalar height, cell measures, an auxiliary string coordinate, a 360-day year."""
    with netCDF4.Dataset(path, "w", format="NETCDF4_CLASSIC") as nc:
        for name, length in {"time": None, "lat": 4, "lon": 6, "bnds": 2, "type_strlen": 8}.items():
            nc.createDimension(name, length)
        for name, dims, units in (("time", ("time",), "days since 1850-01-01"), ("lat", ("lat",), "degrees_north"),
                                  ("lon", ("lon",), "degrees_east")):  # fmt: skip
            axis = nc.createVariable(name, "f8", dims)
            axis.units, axis.bounds = units, f"{name}_bnds"
            nc.createVariable(f"{name}_bnds", "f8", (*dims, "bnds"))
        nc["time"].calendar = "360_day"
        nc["time"][:], nc["time_bnds"][:] = np.arange(12) * 30 + 15, np.arange(24).reshape(12, 2) * 15
        nc["lat"][:], nc["lon"][:] = np.linspace(-67.5, 67.5, 4), np.arange(6) * 60
        height = nc.createVariable("height", "f8")
        height.units, height[...] = "m", 2.0
        land = nc.createVariable("type", "S1", ("type_strlen",))
        land[:] = netCDF4.stringtochar(np.array(["land"], "S8"))[0]
        tas = nc.createVariable("tas", "f4", ("time", "lat", "lon"), fill_value=1e20, zlib=True, complevel=1)
        tas.setncatts({"coordinates": "height type", "cell_measures": "area: areacella"})
        tas.setncatts({"missing_value": np.float32(1e20), "cell_methods": "area: time: mean"})
        tas[:] = np.arange(288.0).reshape(12, 4, 6)
        tas[3, 1, 2] = np.ma.masked


def nexus(path: Path) -> None:
    """Links, units in attributes, a detector's frames, strings of fixed and variable length, references."""
    with h5py.File(path, "w") as file:
        file.attrs["default"], file.attrs["HDF5_Version"] = "entry", np.bytes_("1.14")
        entry = file.create_group("entry")
        entry.attrs["NX_class"] = "NXentry"
        entry["start_time"] = "2026-01-01T00:00:00"
        entry["title"] = np.bytes_("run 1")
        detector = entry.create_group("instrument/detector")
        frames = detector.create_dataset("data", (4, 30, 40), "u2", chunks=(1, 30, 40), maxshape=(None, 30, 40),
                                         **hdf5plugin.Bitshuffle())  # fmt: skip
        frames[:3] = np.arange(3600, dtype="u2").reshape(3, 30, 40)
        frames.attrs["units"] = "counts"
        data = entry.create_group("data")
        data.attrs["signal"], data.attrs["axes"] = "data", np.array(["frame", ".", "."], object)
        data["data"] = h5py.SoftLink("/entry/instrument/detector/data")
        data["again"] = frames
        data["frame"] = np.arange(4)


def matlab(path: Path) -> None:
    """v7.3: a user block, transposed doubles, chars as uint16, logicals, and object references (skipped)."""
    with h5py.File(path, "w", userblock_size=512) as file:
        file["x"] = np.arange(12.0).reshape(4, 3)
        file["x"].attrs["MATLAB_class"] = np.bytes_("double")
        file["name"] = np.array([[ord(c)] for c in "matlab"], "u2")
        file["name"].attrs["MATLAB_class"], file["name"].attrs["MATLAB_int_decode"] = np.bytes_("char"), np.int32(2)
        file["flag"] = np.array([[1]], "u1")
        file["flag"].attrs["MATLAB_class"] = np.bytes_("logical")
        fields = file.create_group("s")
        fields.attrs["MATLAB_class"] = np.bytes_("struct")
        fields["a"] = np.ones((1, 1))
    with path.open("r+b") as raw:
        raw.write(b"MATLAB 7.3 MAT-file".ljust(116) + b"\0" * 8 + b"\0\x02IM")


def pytables(path: Path) -> None:
    """CLASS and VERSION on everything, a table, an extensible array, pickled attributes as bytes."""
    with h5py.File(path, "w") as file:
        for name, value in {"CLASS": "GROUP", "TITLE": "", "VERSION": "1.0", "PYTABLES_FORMAT_VERSION": "2.1"}.items():
            file.attrs[name] = np.bytes_(value)
        table = np.zeros(5, [("id", "<i8"), ("name", "S16"), ("pos", "<f8", (3,))])
        made = file.create_dataset("table", data=table, chunks=(2,), maxshape=(None,))
        made.attrs["CLASS"], made.attrs["VERSION"] = np.bytes_("TABLE"), np.bytes_("2.7")
        made.attrs["FIELD_0_FILL"], made.attrs["NROWS"] = np.int64(0), np.int64(5)
        array = file.create_dataset("earray", data=np.arange(20).reshape(5, 4), chunks=(2, 4), maxshape=(None, 4))
        array.attrs["CLASS"], array.attrs["EXTDIM"] = np.bytes_("EARRAY"), np.int32(0)
        array.attrs["FLAVOR"] = np.bytes_("numpy")


def anndata(path: Path) -> None:
    """Sparse matrices as groups, categoricals, strings of variable length, empty groups."""
    with h5py.File(path, "w") as file:
        file.attrs["encoding-type"], file.attrs["encoding-version"] = "anndata", "0.1.0"
        x = file.create_group("X")
        x.attrs["encoding-type"], x.attrs["shape"] = "csr_matrix", np.array([3, 4])
        x["data"], x["indices"], x["indptr"] = np.ones(5, "f4"), np.array([0, 1, 2, 3, 0]), np.array([0, 2, 3, 5])
        obs = file.create_group("obs")
        obs.attrs["_index"], obs.attrs["column-order"] = "_index", np.array(["cell_type"], object)
        obs["_index"] = np.array(["c1", "c2", "c3"], object)
        kind = obs.create_group("cell_type")
        kind.attrs["ordered"] = False
        kind["categories"], kind["codes"] = np.array(["B", "T"], object), np.array([0, 1, 0], "i1")
        file.create_group("uns")
        file.create_group("layers")


def hdfeos5(path: Path) -> None:
    """Swaths several groups deep, StructMetadata as a long string, fields with _FillValue, dimension names nowhere."""
    with h5py.File(path, "w") as file:
        info = file.create_group("HDFEOS INFORMATION")
        info.attrs["HDFEOSVersion"] = np.bytes_("HDFEOS_5.1.15")
        info["StructMetadata.0"] = np.bytes_("GROUP=SwathStructure\n" * 40)
        swath = file.create_group("HDFEOS/SWATHS/O3")
        geo, fields = swath.create_group("Geolocation Fields"), swath.create_group("Data Fields")
        geo["Latitude"], geo["Time"] = np.linspace(-80, 80, 10, dtype="f4"), np.arange(10.0)
        geo["Time"].attrs["Units"] = np.bytes_("s")
        column, fill = np.arange(60, dtype="f4").reshape(10, 6), np.float32(-1.2676506e30)
        how = {"compression": "gzip", "chunks": (5, 6), "fillvalue": fill}
        data = fields.create_dataset("ColumnAmountO3", data=column, **how)
        data.attrs["_FillValue"], data.attrs["MissingValue"] = np.float32([-1.2676506e30]), np.float32([-1.2676506e30])
        data.attrs["Offset"], data.attrs["ScaleFactor"] = np.float64([0.0]), np.float64([1.0])


def redefined(path: Path) -> None:
    """Groups that define a dimension anew, and use it below."""
    with netCDF4.Dataset(path, "w") as nc:
        nc.createDimension("x", 4)
        nc.createVariable("x", "i4", ("x",))[:] = np.arange(4)
        group = nc.createGroup("g")
        group.createDimension("x", 7)
        group.createVariable("x", "f8", ("x",))[:] = np.arange(7) * 2.0
        group.createVariable("v", "f8", ("x",))[:] = 1
        below = group.createGroup("h")
        below.createVariable("w", "f4", ("x",))[:] = 3
        below.createVariable("x", "f4", ("x",))[:] = 9


def string_coordinates(path: Path) -> None:
    """Coordinates of strings and of chars, an empty time, names that were changed later."""
    with netCDF4.Dataset(path, "w") as nc:
        for name, length in {"name": 3, "n": 5, "t": None}.items():
            nc.createDimension(name, length)
        nc.createVariable("name", str, ("name",))[:] = np.array(["a", "bb", "c"], object)
        nc.createVariable("v", "f8", ("name",))[:] = 1
        nc.createVariable("n", "S1", ("n", "name"))[:] = np.array([[b"a", b"b", b"c"]] * 5)
        for name in ("t", "other"):
            nc.createVariable(name, "f8", ("t",)).units = "days since 2000-01-01"
        nc.renameDimension("name", "nom")


def icesat(path: Path) -> None:
    """Scales that are coordinates of groups below theirs, with _FillValue of another dtype's precision."""
    with h5py.File(path, "w") as file:
        for beam in ("gt1l", "gt2r"):
            group = file.create_group(f"{beam}/land_ice")
            group["delta_time"] = np.arange(6.0)
            group["delta_time"].make_scale("delta_time")
            group["delta_time"].attrs["units"] = "seconds since 2018-01-01"
            for name in ("latitude", "h"):
                made = group.create_dataset(
                    name, data=np.arange(6.0), chunks=(4,), compression="gzip", fillvalue=3.4e38
                )
                made.dims[0].attach_scale(group["delta_time"])
                made.attrs["_FillValue"], made.attrs["coordinates"] = 3.4e38, np.bytes_("delta_time latitude")
            group["dem/x"] = np.arange(6.0)
            group["dem/x"].dims[0].attach_scale(group["delta_time"])


def imerg(path: Path) -> None:
    """HDF5 scales in a group, all texts of fixed length, times with a time zone and the julian calendar."""
    with h5py.File(path, "w") as file:
        grid = file.create_group("Grid")
        for name, length in {"time": 1, "lon": 8, "lat": 6, "latv": 2}.items():
            grid[name] = np.arange(length, dtype="i4" if name == "time" else "f4")
            grid[name].make_scale(name)
            grid[name].attrs["DimensionNames"] = np.bytes_(name)
        grid["time"].attrs["units"] = np.bytes_("seconds since 1980-01-06 00:00:00 UTC")
        grid["time"].attrs["calendar"] = np.bytes_("julian")
        rain = grid.create_dataset("precipitation", data=np.ones((1, 8, 6), "f4"), chunks=(1, 4, 6), compression="gzip")
        for axis, name in enumerate(("time", "lon", "lat")):
            rain.dims[axis].attach_scale(grid[name])
        rain.attrs["_FillValue"], rain.attrs["CodeMissingValue"] = np.float32(-9999.9), np.bytes_("-9999.9")
        grid["lat_bnds"] = np.ones((6, 2), "f4")
        grid["lat_bnds"].dims[0].attach_scale(grid["lat"])
        grid["lat_bnds"].dims[1].attach_scale(grid["latv"])


def sentinel5p(path: Path) -> None:
    with netCDF4.Dataset(path, "w") as nc:
        product = nc.createGroup("PRODUCT")
        for name, length in {"scanline": 3, "ground_pixel": 4, "corner": 4, "time": 1}.items():
            product.createDimension(name, length)
            if name != "corner":
                product.createVariable(name, "i4", (name,))[:] = 0
        product["time"].units = "seconds since 2010-01-01"
        quality = product.createVariable("qa", "u1", ("time", "scanline", "ground_pixel"), fill_value=255, zlib=True)
        quality.scale_factor, quality.add_offset = np.float32(0.01), np.float32(0)
        quality[:] = np.ones((1, 3, 4))
        delta = product.createVariable("delta_time", "i4", ("time", "scanline"), fill_value=-2147483647)
        delta.units, delta[:] = "milliseconds since 2020-01-01", 1
        support = product.createGroup("SUPPORT_DATA/GEO")
        support.createVariable("bounds", "f4", ("time", "scanline", "ground_pixel", "corner"))[:] = 1
        nc.createVariable("utc", str)[...] = "z"


def large_attributes(path: Path) -> None:
    """More than fits a listing, and texts whose bytes are not told by their text."""
    with h5py.File(path, "w", libver="latest") as file:
        file["a"] = np.arange(3)
        file["a"].attrs["large"] = np.arange(20000.0)
        file["a"].attrs["char"], file["a"].attrs["latin"] = np.bytes_(b"x"), np.bytes_(b"caf\xe9")
        file.attrs["long"] = "z" * 70_000


def odd_names(path: Path) -> None:
    """Names that addresses, paths and suffixes could trip over; letters of other scripts."""
    with h5py.File(path, "w") as file:
        for number, name in enumerate(
            ["a.b", "a.b2nd", "x.b2nd.b2nd", "#f?q=1&z%20", " lead", "trail ", "it's \"", "-"]
        ):
            file[name] = np.arange(number + 2)
        for name in ["tab\tx", "back\\slash", "g.b2nd/inner", "@at", "~t", "*", "[0]", "größe °C", "グループ/値"]:
            file[name] = np.arange(3.0)


def odd_attributes(path: Path) -> None:
    """Attributes of every kind that h5py writes."""
    with h5py.File(path, "w") as file:
        attrs = file.create_dataset("v", data=["a", "", "ééé"], dtype=h5py.string_dtype()).attrs
        attrs["list"], attrs["one"], attrs["fixed"] = ["x", "y"], ["only"], np.array([b"a", b"bc"])
        attrs["latin"], attrs["texts"] = np.bytes_(b"\xe9\xff"), np.array([["a", "b"], ["c", "d"]], object)
        attrs.create("fixed_utf8", np.array("é".encode(), h5py.string_dtype("utf-8", 8)))
        attrs["square"], attrs["yes"], attrs["bools"] = np.array([[1, 2], [3, 4]], "i2"), True, np.array([True, False])
        attrs["complex"], attrs["half"], attrs["big"] = 1 + 2j, np.float16(1.5), np.array([1, 2], ">i4")
        attrs["long"], attrs["u8"], attrs["u64"] = np.longdouble(1.25), np.uint8(255), np.uint64(2**64 - 1)
        attrs["nan"], attrs["zero"], attrs["none"] = np.float32("nan"), -0.0, h5py.Empty("f4")
        attrs["nothing"], attrs["compound"] = np.zeros(0, "i4"), np.array([(1, 2.0)], [("a", "i4"), ("b", "f8")])


def odd_packing(path: Path) -> None:
    """Fills, scales and units of dtypes that are not those of the data, and where decoding ends in another one."""
    with netCDF4.Dataset(path, "w") as nc:
        nc.createDimension("x", 4)

        def add(name: str, kind: str, values: list[float], fill: float | None = None, **attrs: object) -> None:
            variable = nc.createVariable(name, kind, ("x",), **({} if fill is None else {"fill_value": fill}))
            variable.set_auto_maskandscale(False)
            variable[: len(values)] = np.array(values, kind)
            for attr, value in attrs.items():
                variable.setncattr(attr, value)

        add("infinite", "f8", [1, np.inf], np.inf)
        add("two_missing", "i4", [1, -9, -8], missing_value=np.array([-9, -8], "i4"))
        add("wrong", "i2", [1, 2, 3], missing_value=-99.0)
        add("unsigned", "i1", [1, -1, -128], -1, _Unsigned="true")
        add("scaled_unsigned", "i2", [1, -1], -1, _Unsigned="true", scale_factor=0.1)
        add("signed", "u1", [1, 255, 128], 255, _Unsigned="false")
        add("single", "i2", [1, -32768], -32768, scale_factor=np.float32(0.01), add_offset=np.float32(273.15))
        add("whole", "i2", [1, 2], scale_factor=np.int32(2), add_offset=np.int32(1))
        add("array", "i2", [1, 2], scale_factor=np.array([0.5]))
        add("beyond", "i8", [2**53 + 1, -1], -1)
        add("largest", "u8", [1, 2**64 - 1], 2**64 - 1)
        add("bool", "i1", [0, 1, 1, 0], dtype="bool")
        add("zone", "i4", [0, 1, 2, 3], units="hours since 2000-01-01 00:00:00 +02:00")
        add("nanoseconds", "i8", [0, 10**18, 2, 3], units="nanoseconds since 1970-01-01")
        add("halves", "i2", [0, 1, 2, -1], -1, units="hours since 2000-01-01", scale_factor=0.5)
        add("spans", "f4", [1, 2, np.nan, 4], units="hours")
        add("capital", "i4", [0, 1, 2, 3], units="Days Since 2000-1-1")


FILES: dict[str, Make] = {
    "cf.nc": classic_cf,
    **{f"calendar-{name}.nc": (lambda path, name=name: calendar(path, name)) for name in CALENDARS},
    "unlimited.nc": unlimited,
    "clash.nc": clash,
    "h5netcdf.nc": by_h5netcdf,
    "plain.h5": plain_hdf5,
    "scales.h5": scales,
    "tracked.h5": tracked_order,
    "phony.h5": nested_phony,
    "xarray-h5netcdf.nc": lambda path: by_xarray(path, "h5netcdf"),
    "xarray-netcdf4.nc": lambda path: by_xarray(path, "netcdf4"),
    "xarray-classic.nc": lambda path: by_xarray(path, "netcdf4", format="NETCDF4_CLASSIC"),
    "tree.nc": tree,
    "era5.nc": era5,
    "cmip6.nc": cmip6,
    "run.nxs": nexus,
    "matlab.h5": matlab,
    "pytables.h5": pytables,
    "anndata.h5": anndata,
    "hdfeos.h5": hdfeos5,
    "redefined.nc": redefined,
    "strings.nc": string_coordinates,
    "icesat.h5": icesat,
    "imerg.h5": imerg,
    "s5p.nc": sentinel5p,
    "large-attributes.h5": large_attributes,
    "odd-names.h5": odd_names,
    "odd-attributes.h5": odd_attributes,
    "odd-packing.nc": odd_packing,
}


def write_all(directory: Path) -> None:
    for name, make in FILES.items():
        make(directory / name)
