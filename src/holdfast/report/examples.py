"""Pictures of a validation that are worth a look: worst and best images, false alarms, missed objects.

They are chosen while batches go by, so only those that are kept are held in memory, small. A process that
shares a validation with others chooses among its own images.

Dimensions: N detections, M objects of one image.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from holdfast.data.batch import Batch
from holdfast.evaluate.match import iou_matrix, matches
from holdfast.post.draw import draw_boxes
from holdfast.report.run_folder import EXAMPLES, EXAMPLES_LIST
from holdfast.runs import write_atomic, write_json

CONF = 0.25  # detections at or below it are left out, as in the confusion matrix
LOOSE = 0.1  # IoU with an object from which a false alarm is a bad box, and not about nothing
WIDE, TALL, SIDE = 480, 360, 220  # pixels of a picture, and of the surroundings of one box
AROUND = 2.5  # times its side that is shown around one box
LABELLED = 12  # boxes on a picture that still get a label
TRUTH, HIT, MISS, FALSE = 5, 2, 6, 4  # colours, by their numbers in post.draw.PALETTE

Boxes = NDArray[np.float32]


@dataclass(frozen=True)
class Answer:
    """What was found on one image, and what is there.

    Attributes:
        boxes, scores, classes: (N, 4) xyxy, (N,), (N,) of the detections above CONF.
        taken: (N,) number of the object that each matches, or -1.
        truth, truth_classes: (M, 4) xyxy and (M,).
        faint: (K, 6) detections up to CONF.
    """

    boxes: Boxes
    scores: NDArray[np.float32]
    classes: NDArray[np.int64]
    taken: NDArray[np.int64]
    truth: Boxes
    truth_classes: NDArray[np.int64]
    faint: NDArray[np.float32]

    @property
    def hits(self) -> int:
        """Objects found."""
        return int((self.taken >= 0).sum())

    @property
    def false(self) -> NDArray[np.int64]:
        """Numbers of the detections that match nothing."""
        return np.flatnonzero(self.taken < 0)

    @property
    def missed(self) -> NDArray[np.int64]:
        """Numbers of the objects that were not found."""
        return np.setdiff1d(np.arange(len(self.truth)), self.taken)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall, 1 where nothing is there and nothing was found."""
        errors = len(self.false) + len(self.missed)
        return 2 * self.hits / (2 * self.hits + errors) if self.hits + errors else 1.0


def answer(found: Tensor, truth: Tensor, truth_classes: Tensor) -> Answer:
    """Matches the detections of an image.

    Args:
        found: (n, 6 or more) xyxy, score, class.
        truth: (M, 4) xyxy in the same pixels.
        truth_classes: (M,).
    """
    rows = found.detach().float().cpu().numpy()[:, :6]
    sure = rows[rows[:, 4] > CONF]
    classes, there = sure[:, 5].astype(np.int64), truth_classes.cpu().numpy().astype(np.int64)
    boxes = truth.cpu().numpy().astype(np.float32)
    taken = matches(sure[:, :4], sure[:, 4], classes, boxes, there)
    return Answer(sure[:, :4], sure[:, 4], classes, taken, boxes, there, rows[rows[:, 4] <= CONF])


class Examples:
    """Chooses pictures of a validation.

    Args:
        names: class index to name.
        images: most pictures of whole images, the worst and the best each.
        crops: most false alarms, and most missed objects; one of an image each.
    """

    def __init__(self, names: Mapping[int, str], *, images: int = 8, crops: int = 12) -> None:
        self.names = names
        self.seen = 0
        self._groups = {
            "worst": _Top(images), "false alarms": _Top(crops), "missed": _Top(crops), "best": _Top(images),
        }  # fmt: skip

    def add(self, batch: Batch, found: Sequence[Tensor]) -> None:
        """Looks at a batch.

        Args:
            batch: of a validation.
            found: per image (n, 6) xyxy in pixels of the batch's images, score, class.
        """
        for at, rows in enumerate(found):
            if at in batch.unread:
                continue
            self.seen += 1
            mine = batch.targets.of_images(at, at + 1)
            self._look(_content(batch, at), answer(rows, mine.boxes, mine.classes), batch.paths[at])

    def save(self, folder: Path) -> Path:
        """Writes the pictures into the folder `examples` of a run, in place of those that are there.

        Returns:
            The list of them.
        """
        home = folder / EXAMPLES
        home.mkdir(exist_ok=True)
        for old in home.glob("*.jpg"):
            with suppress(OSError):
                old.unlink()
        groups: dict[str, list[dict[str, Any]]] = {}
        for group, top in self._groups.items():
            groups[group] = []
            for number, example in enumerate(top.ranked()):
                name = f"{group.replace(' ', '_')}_{number + 1:02d}.jpg"
                write_atomic(home / name, example.pop("jpeg"))
                groups[group].append({"picture": name, **example})
        write_json(home / EXAMPLES_LIST, {"images": self.seen, "conf": CONF, "groups": groups})
        return home / EXAMPLES_LIST

    def _look(self, content: _Content, of: Answer, path: str) -> None:
        errors = len(of.false) + len(of.missed)
        told = {"file": path, "hits": of.hits, "missed": len(of.missed), "false": len(of.false)}

        def whole() -> dict[str, Any]:
            return {"jpeg": self._draw(content, of, None), **told}

        if errors:
            self._groups["worst"].offer(errors * (1 - of.f1), whole)
        if of.hits:
            self._groups["best"].offer(of.hits * of.f1**3, whole)
        if len(of.false):
            row = int(of.false[of.scores[of.false].argmax()])
            self._groups["false alarms"].offer(
                float(of.scores[row]),
                lambda: {
                    "jpeg": self._draw(content, of, of.boxes[row], FALSE),
                    "file": path,
                    "text": self._alarm(of, row),
                },
            )
        if len(of.missed):
            sides = np.sqrt(np.maximum(of.truth[:, 2:] - of.truth[:, :2], 0).prod(axis=1))
            at = int(of.missed[sides[of.missed].argmax()])
            self._groups["missed"].offer(
                float(sides[at]),
                lambda: {
                    "jpeg": self._draw(content, of, of.truth[at], MISS),
                    "file": path,
                    "text": self._loss(of, at),
                },
            )

    def _name(self, label: int) -> str:
        return self.names.get(int(label), str(int(label)))

    def _alarm(self, of: Answer, row: int) -> str:
        """What is wrong with a detection."""
        said = f"{self._name(of.classes[row])} {of.scores[row]:.2f}"
        if not len(of.truth):
            return f"{said}: nothing is labelled on this image"
        overlap = iou_matrix(of.boxes[row : row + 1], of.truth)[0]
        at = int(overlap.argmax())
        there = self._name(of.truth_classes[at])
        if overlap[at] >= 0.5:
            same = of.truth_classes[at] == of.classes[row]
            return f"{said}: this {there} was found already" if same else f"{said}: labelled as {there}"
        if overlap[at] >= LOOSE:
            return f"{said}: the box does not fit this {there} (IoU {overlap[at]:.2f})"
        return f"{said}: nothing is labelled here"

    def _loss(self, of: Answer, at: int) -> str:
        """How an object was missed."""
        name = self._name(of.truth_classes[at])
        box = of.truth[at : at + 1]
        if len(of.boxes):
            overlap = iou_matrix(box, of.boxes)[0]
            row = int(overlap.argmax())
            if overlap[row] >= 0.5 and of.classes[row] != of.truth_classes[at]:
                return f"{name}: taken for {self._name(of.classes[row])}"
            if overlap[row] >= LOOSE and of.classes[row] == of.truth_classes[at] and of.taken[row] < 0:
                return f"{name}: the box does not fit (IoU {overlap[row]:.2f})"
        faint = of.faint[of.faint[:, 5] == of.truth_classes[at]]
        if len(faint):
            close = faint[iou_matrix(box, faint[:, :4])[0] >= 0.5]
            if len(close):
                return f"{name}: found with a confidence of {close[:, 4].max():.2f} only"
        return f"{name}: not found"

    def _draw(self, content: _Content, of: Answer, focus: Boxes | None, focus_color: int = 0) -> bytes:
        """The image, or the surroundings of one box which stands out, with truth and answer as a JPEG."""
        image, left, top = content
        if focus is not None:
            image, left, top = _surroundings(image, left, top, focus)
        limit = (WIDE, TALL) if focus is None else (SIDE, SIDE)
        scale = min(limit[0] / image.shape[1], limit[1] / image.shape[0], 6.0)
        size = max(round(image.shape[1] * scale), 1), max(round(image.shape[0] * scale), 1)
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        canvas = np.asarray(cv2.resize(image, size, interpolation=method), dtype=np.uint8)
        hit = of.taken >= 0
        few = focus is None and len(of.false) + len(of.missed) + int(hit.sum()) <= LABELLED
        named = zip(of.classes, of.scores, strict=True)
        said = [f"{self._name(label)} {score:.2f}" for label, score in named]
        missed = of.missed
        width = 2 if focus is None else 1
        parts: list[tuple[Boxes, list[str], int, int]] = [
            (of.truth[of.taken[hit]], [], TRUTH, 1),
            (of.truth[missed], [self._name(label) for label in of.truth_classes[missed]], MISS, width),
            (of.boxes[hit], [name for name, good in zip(said, hit, strict=True) if good], HIT, width),
            (of.boxes[of.false], [said[row] for row in of.false], FALSE, width),
        ]
        if focus is not None:
            parts.append((focus[None], [], focus_color, 3))
        for boxes, labels, color, line in parts:
            places = (boxes - np.array([left, top, left, top])) * scale
            inside = (places[:, 2:] > 0).all(axis=1) & (places[:, :2] < size).all(axis=1)
            shown = [labels[i] if labels and few else "" for i in np.flatnonzero(inside)]
            canvas = draw_boxes(
                canvas, places[inside], shown, [color] * len(shown), line_width=line, font_size=12
            )
        good, data = cv2.imencode(".jpg", canvas[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])
        assert good
        return data.tobytes()


class _Top:
    """The examples with the highest keys; of equal ones the earlier."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._count = 0
        self._kept: list[tuple[float, int, dict[str, Any]]] = []

    def offer(self, key: float, make: Callable[[], dict[str, Any]]) -> None:
        """Keeps what `make` returns, if its key is high enough."""
        self._count += 1
        if len(self._kept) < self._most:
            heapq.heappush(self._kept, (key, -self._count, make()))
        elif key > self._kept[0][0]:
            heapq.heapreplace(self._kept, (key, -self._count, make()))

    def ranked(self) -> list[dict[str, Any]]:
        """The highest first."""
        kept = sorted(self._kept, key=lambda entry: entry[:2], reverse=True)
        return [dict(example) for _, _, example in kept]


_Content = tuple[NDArray[np.uint8], float, float]  # (H, W, 3) RGB and where its corner is in the input


def _content(batch: Batch, at: int) -> _Content:
    """An image of a batch without its padding."""
    image = batch.images[at].permute(1, 2, 0).cpu().numpy()
    if batch.letterboxes is None:
        return image, 0.0, 0.0
    box = batch.letterboxes[at]
    high, wide = max(round(box.height * box.scale_y), 1), max(round(box.width * box.scale_x), 1)
    return image[box.top : box.top + high, box.left : box.left + wide], float(box.left), float(box.top)


def _surroundings(image: NDArray[np.uint8], left: float, top: float, box: Boxes) -> _Content:
    """What is around a box, square where the image allows it."""
    height, width = image.shape[:2]
    reach = max(AROUND * float((box[2:] - box[:2]).max()), 48.0) / 2
    x, y = float(box[0] + box[2]) / 2 - left, float(box[1] + box[3]) / 2 - top
    x0, x1 = (int(min(max(x + way * reach, 0), width)) for way in (-1, 1))
    y0, y1 = (int(min(max(y + way * reach, 0), height)) for way in (-1, 1))
    if x1 - x0 < 4 or y1 - y0 < 4:
        return image, left, top
    return image[y0:y1, x0:x1], left + x0, top + y0
