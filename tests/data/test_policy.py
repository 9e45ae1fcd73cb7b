"""Policies: colours against Pillow, places by hand."""

from __future__ import annotations

import numpy as np
import PIL.Image
import PIL.ImageEnhance
import PIL.ImageOps
import pytest

from holdfast.data.policy import Change, cutout, draw_changes, geometry, recolour
from holdfast.data.random import draws


def photo() -> np.ndarray:
    """A smooth picture with all kinds of colours, of which none is at the level of the filling gray."""
    y, x = np.mgrid[0:80, 0:100]
    image = np.stack([x * 2 + 20, y * 2 + 30, (x + y) + 10], axis=2).astype(np.uint8)
    image[image == 114] = 115
    return image


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (Change("posterize", 2.0), lambda im: PIL.ImageOps.posterize(im, 6)),
        (Change("solarize", 0.5), lambda im: PIL.ImageOps.solarize(im, 128)),
        (Change("autocontrast", 0.0), PIL.ImageOps.autocontrast),
        (Change("equalize", 0.0), PIL.ImageOps.equalize),
        (Change("brightness", 0.27), lambda im: PIL.ImageEnhance.Brightness(im).enhance(1.27)),
        (Change("contrast", -0.27), lambda im: PIL.ImageEnhance.Contrast(im).enhance(0.73)),
        (Change("color", 0.9), lambda im: PIL.ImageEnhance.Color(im).enhance(1.9)),
        (Change("sharpness", 0.5), lambda im: PIL.ImageEnhance.Sharpness(im).enhance(1.5)),
    ],
    ids=lambda value: value.name if isinstance(value, Change) else "",
)
def test_colours_are_those_of_pillow(change: Change, expected: object) -> None:
    image = photo()
    wanted = np.asarray(expected(PIL.Image.fromarray(image))).astype(int)  # type: ignore[operator]
    recolour(image, [change])
    assert image.dtype == np.uint8
    tolerance = 9 if change.name == "equalize" else 2  # Pillow rounds its table in whole steps
    inner = np.s_[1:-1, 1:-1]  # Pillow leaves the border unsharpened
    assert np.abs(image.astype(int) - wanted)[inner].max() <= tolerance


@pytest.mark.parametrize(
    "name", ["identity", "posterize", "solarize", "brightness", "contrast", "color", "sharpness"]
)
def test_an_amount_of_nothing_changes_nothing(name: str) -> None:
    image = photo()
    recolour(image, [Change(name, 0.0)])
    assert np.array_equal(image, photo())


def test_places_by_hand() -> None:
    def moved(change: Change) -> np.ndarray:
        matrix = geometry([change], height=100, width=200)
        assert matrix is not None
        return matrix @ (110.0, 60.0, 1.0)

    # the middle is (100, 50); the point lies (10, 10) from it
    assert moved(Change("translate_x", 0.1))[:2] == pytest.approx([130, 60])
    assert moved(Change("translate_y", -0.1))[:2] == pytest.approx([110, 50])
    assert moved(Change("shear_x", 0.5))[:2] == pytest.approx([115, 60])
    assert moved(Change("shear_y", 0.5))[:2] == pytest.approx([110, 65])
    assert moved(Change("rotate", 90.0))[:2] == pytest.approx([110, 40])
    assert geometry([Change("color", 1.0)], height=100, width=200) is None
    assert geometry([], height=100, width=200) is None


def test_randaugment_draws_two_of_all_changes_at_one_strength() -> None:
    drawn = [draw_changes(draws(0, 0, i, 0), "randaugment") for i in range(500)]
    assert {len(changes) for changes in drawn} == {2}
    names = {change.name for changes in drawn for change in changes}
    assert len(names) == 14
    angles = {change.amount for changes in drawn for change in changes if change.name == "rotate"}
    assert sorted(angles) == pytest.approx([-9.0, 9.0])


def test_autoaugment_draws_learned_pairs() -> None:
    drawn = [draw_changes(draws(0, 0, i, 0), "autoaugment") for i in range(500)]
    names = {change.name for changes in drawn for change in changes}
    assert names == {"translate_x", "equalize", "cutout", "shear_x", "shear_y", "rotate", "color"}
    assert draw_changes(draws(0, 0, 0, 0), "none") == []


def test_cutouts_stay_on_the_picture() -> None:
    for place in ((0.0, 0.0), (0.5, 0.5), (0.99, 0.2)):
        image = np.zeros((80, 100, 3), np.uint8)
        found = cutout(image, [Change("cutout", 0.25, place)])
        assert found is not None
        x0, y0, x1, y1 = map(int, found)
        assert (image[y0:y1, x0:x1] == 114).all()
        assert (image == 114).sum() == (x1 - x0) * (y1 - y0) * 3 > 0
    assert cutout(image, [Change("color", 0.1)]) is None
