"""What a map of the picture does to the objects on it: boxes, outlines, keypoints and corners alike.

Boxes are the hull of what an object has: of its outline, else of its corners, else of the old box. A cut is
made in the outline and in the corners first, so the box that follows holds what is still to be seen. Points
that are no longer on the picture count as not labelled.

Coordinates are edges: see augment.py. Dimensions: M objects, P points of all outlines, K keypoints.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from holdfast.data.augment import MIN_AREA_LEFT, Area, Matrix, cut_boxes, keep_boxes, warp_boxes
from holdfast.data.objects import Floats, Objects

Indices = npt.NDArray[np.int64]

MIN_AREA_LEFT_OUTLINED = 0.01  # a cut outline still says exactly what is left of its object
_NEAREST = 1e-3  # points with less depth are behind the viewer
_RECTANGULAR = 0.02  # how far a map may bend rectangles before they are fitted again


def warp_objects(
    objects: Objects, matrix: Matrix, *, width: float, height: float, flip_index: Indices | None = None
) -> Objects:
    """Maps objects and cuts them at the output.

    Objects that are not on the output, or partly behind the viewer (perspective), get an empty box.

    Args:
        objects: what is on the image.
        matrix: (3, 3).
        width: width of the output.
        height: height of the output.
        flip_index: (K,) which keypoint each one becomes when the map mirrors, such as left eye for right eye.
    """
    if _only_boxes(objects):
        return objects.replace(boxes=warp_boxes(objects.boxes, matrix, width=width, height=height))
    return cut_objects(move_objects(objects, matrix, flip_index=flip_index), (0.0, 0.0, width, height))


def move_objects(objects: Objects, matrix: Matrix, *, flip_index: Indices | None = None) -> Objects:
    """Maps objects without cutting them; arguments as in `warp_objects`."""
    everywhere = float("inf")
    corners_of_boxes = objects.boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2)
    mapped, behind = _project(corners_of_boxes, matrix)
    hidden = behind.any(axis=1)
    boxes = np.concatenate([mapped.min(axis=1), mapped.max(axis=1)], axis=1).reshape(-1, 4)
    points, behind = _project(objects.points, matrix)
    hidden |= np.bincount(_owners(objects)[behind], minlength=len(objects)) > 0
    keypoints, corners = objects.keypoints, objects.corners
    if keypoints is not None:
        places, behind = _project(keypoints[:, :, :2], matrix)
        seen = np.where(behind, np.float32(0), keypoints[:, :, 2])[:, :, None]
        keypoints = np.concatenate([np.where(seen > 0, places, np.float32(0)), seen], axis=2)
        if flip_index is not None and np.linalg.det(matrix) < 0:
            keypoints = keypoints[:, flip_index]
    if corners is not None:
        corners, behind = _project(corners, matrix)
        hidden |= behind.any(axis=1)
        if not _keeps_rectangles(matrix):
            corners = np.array([_fit(four) for four in corners], np.float32).reshape(-1, 4, 2)
    moved = Objects(objects.classes, boxes, points, objects.starts, keypoints, corners)
    moved = moved.replace(boxes=_hulls(moved, (-everywhere, -everywhere, everywhere, everywhere)))
    return _without(moved, hidden) if hidden.any() else moved


def cut_objects(objects: Objects, area: Area) -> Objects:
    """Cuts objects at a rectangle xyxy; what lies outside gets an empty box and no outline."""
    if _only_boxes(objects):
        return objects.replace(boxes=cut_boxes(objects.boxes, area))
    points, starts = _cut_outlines(objects, area)
    keypoints = objects.keypoints
    if keypoints is not None:
        x0, y0, x1, y1 = area
        x, y, seen = keypoints[:, :, 0], keypoints[:, :, 1], keypoints[:, :, 2]
        inside = (x >= x0) & (x <= x1) & (y >= y0) & (y <= y1) & (seen > 0)
        keypoints = np.where(inside[:, :, None], keypoints, np.float32(0))
    cut = Objects(objects.classes, objects.boxes, points, starts, keypoints, objects.corners)
    boxes = _hulls(cut, area)
    outlined = np.diff(objects.starts) > 0
    vanished = outlined & (np.diff(starts) == 0)
    boxes[vanished] = 0.0
    if objects.corners is None:
        return cut.replace(boxes=boxes)
    corners = objects.corners.copy()
    low, high = np.array(area[:2], np.float32), np.array(area[2:], np.float32)
    for number in np.flatnonzero(((corners < low) | (corners > high)).any(axis=(1, 2))):
        rest = clip_polygon(corners[number], area)
        if not outlined[number]:
            boxes[number] = 0.0 if len(rest) < 3 else (*rest.min(axis=0), *rest.max(axis=0))
        corners[number] = _fit(rest) if len(rest) >= 3 else 0.0
    corners[vanished] = 0.0
    return cut.replace(boxes=boxes, corners=corners)


def keep_objects(before: Floats, after: Objects, *, zoom: float) -> Objects:
    """The warped objects that still show something, judged by `keep_boxes`.

    Args:
        before: (M, 4) boxes before the warp.
        after: the objects after warp and cut.
        zoom: the zoom of the warp.
    """
    exact = (np.diff(after.starts) > 0) | (after.corners is not None)
    least = np.where(exact, np.float32(MIN_AREA_LEFT_OUTLINED), np.float32(MIN_AREA_LEFT))
    return after.take(keep_boxes(before, after.boxes, zoom=zoom, least=least))


def clip_polygon(points: Floats, area: Area) -> Floats:
    """Cuts a polygon (p, 2) at a rectangle xyxy, edge by edge (Sutherland and Hodgman).

    Parts of a polygon that the cut separates stay joined by lines along the edge, which hold no area.
    """
    x0, y0, x1, y1 = area
    for axis, limit, sign in ((0, x0, 1.0), (0, x1, -1.0), (1, y0, 1.0), (1, y1, -1.0)):
        depth = (points[:, axis] - limit) * sign
        inside = depth >= 0
        if inside.all():
            continue
        if not inside.any():
            return points[:0]
        crossing = inside != np.roll(inside, -1)
        after = np.roll(depth, -1)
        share = depth / np.where(crossing, depth - after, 1.0)
        cuts = points + share[:, None] * (np.roll(points, -1, axis=0) - points)
        cuts[:, axis] = limit
        both = np.stack([points, cuts], axis=1).reshape(-1, 2)
        points = both[np.stack([inside, crossing], axis=1).reshape(-1)].astype(np.float32)
    return points


def _only_boxes(objects: Objects) -> bool:
    return not len(objects.points) and objects.keypoints is None and objects.corners is None


def _project(points: Floats, matrix: Matrix) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Maps points (..., 2); the mask (...) says which are behind the viewer."""
    places = points @ matrix[:2, :2].T + matrix[:2, 2]
    if matrix[2, 0] == 0 and matrix[2, 1] == 0:
        return (places / matrix[2, 2]).astype(np.float32), np.zeros(points.shape[:-1], dtype=np.bool_)
    depth = points @ matrix[2, :2] + matrix[2, 2]
    behind = depth < _NEAREST
    return (places / np.where(behind, 1.0, depth)[..., None]).astype(np.float32), behind


def _keeps_rectangles(matrix: Matrix) -> bool:
    """Whether turned rectangles stay (nearly) rectangles: no perspective, shear or uneven zoom."""
    if matrix[2, 0] != 0 or matrix[2, 1] != 0:
        return False
    (a, b), (c, d) = matrix[:2, :2].tolist()
    xx, xy, yy = a * a + c * c, a * b + c * d, b * b + d * d
    return bool(abs(xx - yy) + 2 * abs(xy) <= _RECTANGULAR * (xx + yy))


def _fit(points: Floats) -> Floats:
    """Corners (4, 2) of the smallest rectangle around points (p, 2)."""
    return np.asarray(cv2.boxPoints(cv2.minAreaRect(np.ascontiguousarray(points, np.float32))), np.float32)


def _owners(objects: Objects) -> Indices:
    """Which object each outline point (P,) belongs to."""
    return np.repeat(np.arange(len(objects)), np.diff(objects.starts))


def _hulls(objects: Objects, area: Area) -> Floats:
    """Boxes (M, 4) around outlines, else around corners, else the boxes as they are; cut at an area."""
    boxes = objects.boxes
    if objects.corners is not None and len(objects):
        boxes = np.concatenate([objects.corners.min(axis=1), objects.corners.max(axis=1)], axis=1)
    boxes = cut_boxes(boxes, area)
    outlined = np.diff(objects.starts) > 0
    if outlined.any():
        at = objects.starts[:-1][outlined]
        low, high = np.minimum.reduceat(objects.points, at), np.maximum.reduceat(objects.points, at)
        boxes[outlined] = np.concatenate([low, high], axis=1)
    return boxes


def _cut_outlines(objects: Objects, area: Area) -> tuple[Floats, Indices]:
    low, high = np.array(area[:2], np.float32), np.array(area[2:], np.float32)
    outside = ((objects.points < low) | (objects.points > high)).any(axis=1)
    if not outside.any():
        return objects.points, objects.starts
    touched = np.bincount(_owners(objects)[outside], minlength=len(objects)) > 0
    parts = [objects.outline(number) for number in range(len(objects))]
    for number in np.flatnonzero(touched):
        parts[number] = clip_polygon(parts[number], area)
    starts = np.cumsum([0, *(len(part) for part in parts)], dtype=np.int64)
    return np.concatenate(parts), starts


def _without(objects: Objects, hidden: npt.NDArray[np.bool_]) -> Objects:
    """The objects, of which the hidden ones have an empty box at the origin and nothing else."""
    parts = [objects.outline(number)[: 0 if hidden[number] else None] for number in range(len(objects))]
    starts = np.cumsum([0, *(len(part) for part in parts)], dtype=np.int64)
    boxes = np.where(hidden[:, None], np.float32(0), objects.boxes)
    keypoints, corners = objects.keypoints, objects.corners
    return Objects(
        objects.classes,
        boxes,
        np.concatenate(parts),
        starts,
        None if keypoints is None else np.where(hidden[:, None, None], np.float32(0), keypoints),
        None if corners is None else np.where(hidden[:, None, None], np.float32(0), corners),
    )
