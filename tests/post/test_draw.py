"""Labels stay inside the picture, colours stay apart, text stays readable."""

from __future__ import annotations

import numpy as np
import pytest

from holdfast.post.draw import PALETTE, auto_line_width, class_color, draw_boxes, mosaic_grid, text_color


def gray(height: int = 120, width: int = 160) -> np.ndarray:
    return np.full((height, width, 3), 127, dtype=np.uint8)


def test_first_eighty_classes_have_different_colors() -> None:
    assert len({class_color(i) for i in range(80)}) == 80
    assert class_color(0) == PALETTE[0]
    assert all(0 <= v <= 255 for i in range(1000) for v in class_color(i))


def test_text_is_black_on_light_and_white_on_dark() -> None:
    assert text_color((255, 255, 255)) == text_color((240, 228, 66)) == (0, 0, 0)
    assert text_color((0, 0, 0)) == text_color((0, 114, 178)) == (255, 255, 255)


def test_line_width_grows_with_the_image() -> None:
    assert auto_line_width(32, 32) == 1
    assert auto_line_width(480, 640) == 2
    assert auto_line_width(2160, 3840) == 9


def test_box_has_its_color_in_both_channel_orders() -> None:
    r, g, b = class_color(1)
    box = [[20, 20, 100, 90]]
    assert draw_boxes(gray(), box, [""], [1])[20, 60].tolist() == [r, g, b]
    assert draw_boxes(gray(), box, [""], [1], bgr=True)[20, 60].tolist() == [b, g, r]


@pytest.mark.parametrize(
    "box", [[0, 0, 30, 20], [130, 0, 160, 20], [130, 100, 160, 120], [0, 110, 10, 120], [0, 0, 160, 120]]
)
def test_whole_label_is_inside_at_every_border(box: list[int]) -> None:
    """The label's area, counted in its fill colour, is the same at the border as in the middle."""
    color = np.array(class_color(0))

    def filled(corners: list[int]) -> int:
        plain = (draw_boxes(gray(), [corners], [""], [0]) == color).all(axis=2)
        labelled = (draw_boxes(gray(), [corners], ["cat 0.91"], [0], font_size=12) == color).all(axis=2)
        return int((labelled & ~plain).sum())

    assert filled(box) > 0.75 * filled([40, 60, 120, 110])


def test_labels_of_identical_boxes_do_not_cover_each_other() -> None:
    box = [40, 50, 120, 110]
    one = (draw_boxes(gray(), [box], ["aa"], [0]) == class_color(0)).all(axis=2).sum()
    both = draw_boxes(gray(), [box, box], ["aa", "bb"], [0, 1])
    upper_box_hides_lower = (both == class_color(0)).all(axis=2).sum()
    assert upper_box_hides_lower > 0.1 * one


@pytest.mark.parametrize(
    "label", ["", "x", "a very long label that is wider than the picture itself", "猫 собака é"]
)
@pytest.mark.parametrize("shape", [(1, 1), (8, 200), (200, 8), (50, 50)])
def test_any_label_on_any_shape(label: str, shape: tuple[int, int]) -> None:
    image = np.zeros((*shape, 3), dtype=np.uint8)
    assert draw_boxes(image, [[0, 0, 5, 5]], [label], [3]).shape == image.shape


def test_strange_boxes_are_drawn_without_error() -> None:
    boxes = [[-50, -50, 500, 500], [np.nan, 0, 10, np.inf], [90, 90, 10, 10]]
    assert draw_boxes(gray(), boxes, ["a", "b", "c"], [0, 1, 2]).shape == (120, 160, 3)
    assert (draw_boxes(gray(), np.zeros((0, 4)), [], []) == gray()).all()


def test_input_is_left_alone_even_when_it_is_a_view() -> None:
    image = gray()[:, ::-1, ::-1]
    draw_boxes(image, [[5, 5, 50, 50]], ["a"], [0])
    assert (image == 127).all()


def test_grid_holds_images_of_any_size_within_the_limit() -> None:
    images = [gray(100, 200), gray(200, 100), gray(50, 50)]
    boxes = [np.array([[10, 10, 40, 40]]), np.zeros((0, 4)), np.array([[0, 0, 50, 50], [1, 1, 9, 9]])]
    grid = mosaic_grid(
        images, boxes, [[0], [], [1, 7]], {0: "a", 1: "b"}, scores=[[0.5], [], [0.25, 1.0]],
        titles=["a.jpg", "b" * 100, ""], side=640,
    )  # fmt: skip
    assert max(grid.shape) <= 641
    assert grid.dtype == np.uint8
    assert mosaic_grid(images * 10, boxes * 10, [[0], [], [1, 7]] * 10, {}, limit=4).shape[0] < 1921
    assert mosaic_grid([], [], [], {}).shape == (64, 64, 3)


def test_labels_of_hundreds_of_objects_leave_the_picture_to_be_seen() -> None:
    image = np.zeros((400, 600, 3), np.uint8)
    x, y = (g.ravel() for g in np.meshgrid(np.arange(10, 590, 20), np.arange(10, 390, 20)))
    boxes = np.stack([x, y, x + 8, y + 8], 1)
    drawn = draw_boxes(image, boxes, ["ship 0.50"] * len(boxes), [0] * len(boxes))
    bare = draw_boxes(image, boxes, [""] * len(boxes), [0] * len(boxes))
    assert 0 < (drawn != bare).any(2).mean() < 0.25


def test_shapes_are_drawn_in_place_of_upright_boxes() -> None:
    image = np.zeros((100, 100, 3), np.uint8)
    diamond = np.array([[[50, 10], [90, 50], [50, 90], [10, 50]]])
    drawn = draw_boxes(image, [[10, 10, 90, 90]], [""], [0], corners=diamond, line_width=1)
    assert drawn[12, 12].max() == 0
    assert drawn[30, 70].max() > 0
