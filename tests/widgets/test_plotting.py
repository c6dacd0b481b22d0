"""Figures show the values of the axes that were asked for, labelled; of what is large an overview, and never more."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import caterva2_jupyter as cat2
from tests.client.memory_service import MemoryService
from tests.widgets.conftest import arrays


def image_of(ax: Any) -> np.ma.MaskedArray:
    (image,) = ax.get_images()
    return image.get_array()


def drawn(ax: Any) -> None:
    ax.get_figure().canvas.draw()


def test_a_line_is_drawn_with_its_values(client: cat2.Client) -> None:
    ax = client["foo/line"].plot()
    (line,) = ax.get_lines()
    assert np.array_equal(line.get_ydata(), arrays()["line.b2nd"])
    assert ax.get_title() == "line.b2nd"
    drawn(ax)


def test_of_a_cube_the_first_plane_is_drawn_with_names_and_units(client: cat2.Client) -> None:
    ax = client["foo/cube"].plot()
    assert np.array_equal(image_of(ax), arrays()["cube.b2nd"][0])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("lon", "lat")
    assert ax.get_title() == "cube.b2nd\ntime=0"
    assert ax.get_figure().axes[1].get_ylabel() == "temperature [K]"
    drawn(ax)


def test_axes_are_chosen_by_name_and_by_position(client: cat2.Client) -> None:
    cube, values = client["foo/cube"], arrays()["cube.b2nd"]
    assert np.array_equal(image_of(cube.plot(time=3, x="lat", y="lon")), values[3].T)
    assert np.array_equal(image_of(cube.plot(x="lon", y="time", lat=-1)), values[:, -1])
    assert np.array_equal(image_of(cube.plot(np.s_[2, ::2, 5:15])), values[2, ::2, 5:15])
    assert np.array_equal(image_of(cube.plot(4, lon=slice(None, 7))), values[4, :, :7])
    assert np.array_equal(image_of(cube.plot(x=0, y=2, lat=1)), values[:, 1].T)
    (line,) = cube.plot(x="time", lat=2, lon=3).get_lines()
    assert np.array_equal(line.get_ydata(), values[:, 2, 3])
    (line,) = cube.plot(np.s_[..., 3, 4]).get_lines()
    assert np.array_equal(line.get_ydata(), values[:, 3, 4])


def test_an_axis_that_is_called_x_can_be_cut_and_drawn(client: cat2.Client) -> None:
    array, values = client["foo/group/xy"], np.arange(12).reshape(3, 4)
    assert np.array_equal(image_of(array.plot(x="x", y="y")), values.T)
    (line,) = array.plot(x=1).get_lines()
    assert np.array_equal(line.get_ydata(), values[1])


def test_an_extent_is_that_of_the_items(client: cat2.Client) -> None:
    (image,) = client["foo/cube"].plot(np.s_[0, 10:20:2, 5:15]).get_images()
    assert image.get_extent() == [4.5, 14.5, 9.0, 19.0]


def test_packed_values_are_unpacked_and_fills_left_out(client: cat2.Client) -> None:
    image = image_of(client["foo/packed"].plot())
    assert image.mask.sum() == 1
    assert image.mask[0, 0]
    assert image[2, 3] == 11 * 0.5 + 10
    assert image_of(client["foo/packed"].plot(decode=False))[2, 3] == 11


def test_a_long_line_is_drawn_as_an_envelope_of_an_overview(client: cat2.Client, service: MemoryService) -> None:
    service.requests.clear()
    ax = client["foo/long"].plot()
    assert [r for r in service.requests if "reduce" in r] == ["POST reduce"]
    assert not [r for r in service.requests if "read" in r]
    (line,) = ax.get_lines()
    assert len(line.get_ydata()) == 2000
    assert len(ax.collections) == 1
    assert "each 500 values" in ax.texts[0].get_text()


def test_a_large_plane_is_drawn_by_means(client: cat2.Client) -> None:
    ax = client["foo/plane"].plot()
    (image,) = ax.get_images()
    assert image.get_array().shape == (1000, 1000)
    assert image.get_extent() == [-0.5, 2999.5, -0.5, 2999.5]
    assert image.get_array()[0, 0] == pytest.approx(arrays()["plane.b2nd"][:3, :3].mean())
    assert image_of(client["foo/plane"].plot(max_nbytes=1000)).size <= 250


def test_colours_are_drawn_as_colours(client: cat2.Client) -> None:
    ax = client["foo/photo"].plot()
    assert np.array_equal(image_of(ax), arrays()["photo.b2nd"])
    assert ax.yaxis_inverted()
    assert len(ax.get_figure().axes) == 1
    assert image_of(client["foo/photo"].plot(kind="image")).shape == (30, 3)


def test_a_histogram_counts_the_values_that_there_are(client: cat2.Client) -> None:
    ax = client["foo/packed"].plot(kind="hist")
    assert sum(bar.get_height() for bar in ax.patches) == 11
    ax = client["foo/plane"].plot(kind="hist")
    assert "sample" in ax.get_ylabel()


@pytest.mark.parametrize("path", ["swapped", "complex", "dates", "flags", "none"])
def test_other_numbers_are_drawn(client: cat2.Client, path: str) -> None:
    drawn(client[f"foo/{path}"].plot())


def test_a_field_is_drawn(client: cat2.Client) -> None:
    (line,) = client["foo/table"]["b"].plot().get_lines()
    assert line.get_ydata().tolist() == [2.5, 3.5]
    with pytest.raises(cat2.TooLargeError, match="select less"):
        client["foo/table"]["b"].plot(max_nbytes=4)


def test_texts_of_publishers_are_not_mathematics(client: cat2.Client) -> None:
    ax = client["foo/group/hostile"].plot()
    drawn(ax)
    label = ax.get_figure().axes[1].get_ylabel()
    assert label.startswith("[<img src=x")
    assert "\x1b" not in label


def test_axes_of_others_are_drawn_into(client: cat2.Client) -> None:
    import matplotlib.pyplot as plt

    _, axes = plt.subplots(1, 2)
    assert client["foo/line"].plot(ax=axes[1]) is axes[1]
    assert not axes[0].get_lines()


@pytest.mark.parametrize(
    ("path", "options", "error", "text"),
    [
        ("cube", {"depth": 1}, TypeError, "no axis 'depth': there are 'time', 'lat', 'lon'"),
        ("cube", {"x": "nope"}, TypeError, "no axis 'nope'"),
        ("cube", {"x": 7}, TypeError, "no axis 7"),
        ("cube", {"x": "lon", "y": "lon"}, TypeError, "same axis"),
        ("cube", {"x": "lon", "lon": 3}, TypeError, "cannot be at one item too"),
        ("cube", {"time": 99}, IndexError, "index 99 is out of bounds for axis 'time' with size 6"),
        ("cube", {"key": (0, 0, 0, 0)}, IndexError, "too many indices"),
        ("cube", {"key": [1, 2]}, TypeError, "integers and slices"),
        ("cube", {"key": 0, "time": 1}, TypeError, "selected twice"),
        ("cube", {"key": (slice(None, None, -1),), "x": "time"}, TypeError, "steps above 0"),
        ("cube", {"kind": "pie"}, cat2.RequestError, "no plot of kind 'pie'"),
        ("scalar", {}, TypeError, "draws 1 axes, none is left"),
        ("words", {}, cat2.UnsupportedDatasetError, "not drawn"),
        ("table", {}, cat2.UnsupportedDatasetError, r"array\['a'\].plot\(\)"),
    ],
)
def test_what_cannot_be_drawn_says_why(
    client: cat2.Client, path: str, options: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        client[f"foo/{path}"].plot(**options)
