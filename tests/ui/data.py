"""A root with one of everything that the viewer shows, and what it must not show as more than text."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import blosc2
import h5py
import numpy as np

HOSTILE = "<img src=x onerror=alert(1)>"
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
MANY = 1200


def cube() -> np.ndarray:
    z, y, x = np.mgrid[0:12, 0:30, 0:40]
    return (np.sin(x / 6) * np.cos(y / 5) * 100 + z).astype("f4")


def make_root(root: Path) -> Path:
    root.mkdir()

    def put(name: str, array: np.ndarray, **kwargs: object) -> None:
        blosc2.asarray(np.ascontiguousarray(array), urlpath=str(root / f"{name}.b2nd"), mode="w", **kwargs)

    image = cube()[0]
    put("image", np.kron(image, np.ones((10, 10), "f4")))
    put("cube", cube(), chunks=(1, 30, 40))
    put("named", cube(), chunks=(1, 30, 40))
    named = blosc2.open(str(root / "named.b2nd"), mode="a")
    named.vlmeta["dims"] = ["time", "latitude", "longitude"]
    put("half", image.astype("f2"))
    put("big-endian", image.astype(">f4"))
    put("complex", (image[0] * (1 + 2j)).astype("c8"))
    put("int64", np.array([2**60, -1, 5]))
    table = np.zeros(5, [("id", "i4"), ("name", "S8"), ("value", "f8")])
    table["id"], table["name"], table["value"] = range(5), [f"row-{i}" for i in range(5)], np.arange(5) / 4
    put("table", table)
    put("times", np.array(["2024-02-29T12:34:56", "NaT"], "M8[s]").view("i8"))
    put("line", np.sin(np.arange(1000) / 50))
    vector = blosc2.zeros((10**9,), dtype="f8", urlpath=str(root / "vector.b2nd"), mode="w")
    vector.vlmeta["note"] = HOSTILE
    blosc2.zeros((20_000, 20_000), dtype="f4", urlpath=str(root / "plane.b2nd"), mode="w")
    with h5py.File(root / "nexus.h5", "w") as file:
        file.attrs["default"] = "entry"
        entry = file.create_group("entry")
        entry.attrs.update(NX_class="NXentry", default="data")
        data = entry.create_group("data")
        data.attrs.update(NX_class="NXdata", signal="counts", axes=["y", "x"])
        data["counts"] = image
        data["x"], data["y"] = np.linspace(-2, 2, 40), np.linspace(0, 3, 30)
        data["x"].attrs["units"] = "mm"
    with h5py.File(root / "kinds.h5", "w") as file:
        file["rgb"] = np.zeros((8, 9, 3), "u1")
        file["rgb"].attrs["CLASS"] = "IMAGE"
        file["text"] = np.array(["plain", HOSTILE], dtype=object)
        file["scalar"] = np.int64(2**60)
        file["scalar"].attrs[HOSTILE] = HOSTILE
        file["scalar"].attrs["nothing"] = np.nan
        states = h5py.enum_dtype({"OFF": 0, "ON": 1}, "i1")
        file.create_dataset("states", data=np.array([1, 0], "i1"), dtype=states)
        many = file.create_group("many")
        for i in range(MANY):
            many[f"d{i:04d}"] = i
    (root / "readme.md").write_text(
        f"# Heading {HOSTILE}\n\nSome *text*, [bad](javascript:alert(1)), [good](https://example.org/).\n\n- item\n"
    )
    (root / f"{HOSTILE}.txt").write_text(f"text {HOSTILE}")
    (root / "vector.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>')
    (root / "pixel.png").write_bytes(PIXEL)
    (root / "fake.png").write_text("<script>alert(1)</script>")
    output = {"output_type": "display_data", "data": {"text/html": "<script>alert(1)</script>", "text/plain": "plain"}}
    cells = [
        {"cell_type": "markdown", "source": ["## From a notebook"]},
        {"cell_type": "code", "source": "1 + 1", "outputs": [output]},
    ]
    (root / "note.ipynb").write_text(json.dumps({"cells": cells, "nbformat": 4, "nbformat_minor": 5}))
    return root
