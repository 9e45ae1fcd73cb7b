"""What one image's prediction looks like to a user: the names and formats known from other detectors.

A `Results` holds one picture and the parts found in it. Every part (boxes, masks, keypoints, oriented boxes,
class probabilities) carries its rows in `data` and knows how to move, cut and describe itself, so nothing
here asks which task the model was trained for. Images are BGR, as OpenCV has
them; all boxes are in pixels of the original image.

Dimensions: N objects.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from holdfast.errors import MissingExtraError
from holdfast.post.boxes import OBB, Boxes, Rows
from holdfast.post.files import open_in_viewer, write_image
from holdfast.post.keypoints import Keypoints
from holdfast.post.masks import Masks
from holdfast.post.part import Part
from holdfast.post.probs import Probs
from holdfast.post.text import class_lines, flat_row, label_lines, object_rows

PARTS: dict[str, type[Part]] = {
    "boxes": Boxes, "masks": Masks, "keypoints": Keypoints, "obb": OBB, "probs": Probs,
}  # fmt: skip


class Results:
    """The prediction for one image or video frame.

    Args:
        orig_img: (H, W, 3) uint8 BGR.
        path: where the image came from.
        names: class index to name.
        boxes: rows as `Boxes` takes them, or `Boxes`, or None.
        masks, keypoints, obb, probs: likewise of their types.
        speed: milliseconds of preprocess, inference and postprocess.

    Attributes:
        orig_img, orig_shape, path, names, speed: as given; orig_shape is (height, width).
        boxes: `Boxes` or None.
        masks, keypoints: of the same objects, or None.
        obb: oriented boxes in place of `boxes`, or None.
        probs: of a classified image, or None.
        save_dir: folder of the run, when there is one.
    """

    def __init__(
        self,
        orig_img: NDArray[np.uint8],
        *,
        path: str | Path,
        names: Mapping[int, str],
        boxes: Any = None,
        masks: Any = None,
        keypoints: Any = None,
        obb: Any = None,
        probs: Any = None,
        speed: Mapping[str, float] | None = None,
    ) -> None:
        self.orig_img = orig_img
        self.orig_shape: tuple[int, int] = (int(orig_img.shape[0]), int(orig_img.shape[1]))
        self.path = str(path)
        self.names = dict(names)
        self.speed: dict[str, float | None] = {"preprocess": None, "inference": None, "postprocess": None}
        self.speed.update(speed or {})
        self.save_dir: str | None = None
        self.boxes: Boxes | None = None
        self.masks: Masks | None = None
        self.keypoints: Keypoints | None = None
        self.obb: OBB | None = None
        self.probs: Probs | None = None
        self.update(boxes=boxes, masks=masks, keypoints=keypoints, obb=obb, probs=probs)

    # -- the parts, without asking which ------------------------------------------------------------------

    def _present(self) -> list[str]:
        return [name for name in PARTS if getattr(self, name) is not None]

    def _each(self, method: str, *args: Any, **kwargs: Any) -> Results:
        """Returns a copy with a method applied to every part."""
        result = self.new()
        for name in self._present():
            setattr(result, name, getattr(getattr(self, name), method)(*args, **kwargs))
        return result

    def new(self) -> Results:
        """Returns a result of the same image without any part."""
        result = Results(self.orig_img, path=self.path, names=self.names)
        result.speed = dict(self.speed)
        result.save_dir = self.save_dir
        return result

    @property
    def rows(self) -> Rows | None:
        """The objects with their confidences and classes: `boxes` or `obb`."""
        return self.boxes if self.boxes is not None else self.obb

    def update(
        self,
        *,
        boxes: Any = None,
        masks: Any = None,
        keypoints: Any = None,
        obb: Any = None,
        probs: Any = None,
    ) -> None:
        """Replaces parts in place.

        Args:
            boxes: rows as `Boxes` takes them, clipped to the image; or `Boxes`, taken as they are.
            masks, keypoints, obb, probs: rows as their types take them, or such a part.
        """
        if boxes is not None and not isinstance(boxes, Boxes):
            made = Boxes(boxes, self.orig_shape)
            boxes = made.data.clone() if isinstance(made.data, Tensor) else made.data.copy()
            height, width = self.orig_shape
            boxes[:, 0:4:2] = boxes[:, 0:4:2].clip(0, width)
            boxes[:, 1:4:2] = boxes[:, 1:4:2].clip(0, height)
        given = {"boxes": boxes, "masks": masks, "keypoints": keypoints, "obb": obb, "probs": probs}
        for name, part in given.items():
            if part is not None:
                kind = PARTS[name]
                setattr(self, name, part if isinstance(part, kind) else kind(part, self.orig_shape))

    def cpu(self) -> Results:
        """Returns the result with all tensors on the CPU."""
        return self._each("cpu")

    def cuda(self) -> Results:
        """Returns the result with all tensors on the current CUDA device."""
        return self._each("cuda")

    def numpy(self) -> Results:
        """Returns the result with numpy arrays instead of tensors."""
        return self._each("numpy")

    def to(self, *args: Any, **kwargs: Any) -> Results:
        """Returns the result with all tensors moved (arguments of `torch.Tensor.to`)."""
        return self._each("to", *args, **kwargs)

    def __len__(self) -> int:
        present = self._present()
        return len(getattr(self, present[0])) if present else 0

    def __getitem__(self, index: Any) -> Results:
        return self._each("__getitem__", index)

    def __iter__(self) -> Iterator[Results]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        height, width = self.orig_shape
        return f"Results({self.path!r}, {width}x{height}: {self.verbose()})"

    # -- as text ------------------------------------------------------------------------------------------

    def verbose(self) -> str:
        """Returns what was found in words: `2 cats, 1 dog`, `(no detections)`, or `cat 0.92, dog 0.05`."""
        if self.probs is not None:
            return ", ".join(
                f"{self._name(c)} {p:.2f}"
                for c, p in zip(self.probs.top5, self.probs.numpy().top5conf.tolist(), strict=True)
            )
        rows = self.rows
        if rows is None or len(rows) == 0:
            return "(no detections)"
        labels, counts = np.unique(np.asarray(rows.numpy().cls).astype(int), return_counts=True)
        return ", ".join(
            f"{n} {self._name(c)}{'s' if n > 1 and not self._name(c).endswith('s') else ''}"
            for c, n in zip(labels.tolist(), counts.tolist(), strict=True)
        )

    def summary(self, normalize: bool = False, decimals: int = 5) -> list[dict[str, Any]]:
        """Returns one dictionary per object: name, class, confidence, box, track_id when tracked, segments
        and keypoints where there are; of a classified image one with name, class and confidence.

        Args:
            normalize: give boxes as fractions of the image instead of pixels.
            decimals: digits after the point.
        """
        if self.probs is not None:
            first, sure = self.probs.top1, float(self.probs.top1conf)
            return [{"name": self._name(first), "class": first, "confidence": round(sure, decimals)}]
        if self.rows is None:
            return []
        others = [part for part in (self.masks, self.keypoints) if part is not None]
        return object_rows(self.rows, others, self._name, normalize=normalize, decimals=decimals)

    def to_json(self, normalize: bool = False, decimals: int = 5) -> str:
        """Returns the summary as JSON text."""
        return json.dumps(self.summary(normalize, decimals), indent=2, ensure_ascii=False)

    def to_csv(self, normalize: bool = False, decimals: int = 5) -> str:
        """Returns the summary as CSV text with a header; the box has a column per corner coordinate, and
        outlines and keypoints one per axis, which holds a list.
        """
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=self._columns(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self._flat(normalize, decimals))
        return text.getvalue()

    def to_df(self, normalize: bool = False, decimals: int = 5) -> Any:
        """Returns the summary as a polars or pandas table, whichever is installed; columns as in `to_csv`.

        Raises:
            MissingExtraError: neither is installed.
        """
        rows = self._flat(normalize, decimals)
        columns = {name: [row[name] for row in rows] for name in self._columns()}
        try:
            import polars

            return polars.DataFrame(columns)
        except ImportError:
            pass
        try:
            import pandas

            return pandas.DataFrame(columns)
        except ImportError:
            raise MissingExtraError(
                "to_df() needs polars or pandas, and neither is installed.",
                hint="Install one (`pip install polars`), or use summary() or to_csv().",
            ) from None

    def save_txt(self, path: str | Path, save_conf: bool = False) -> str:
        """Appends one row per object, in fractions of the image: class cx cy w h [confidence] [track id].

        In place of the box a mask has its outline and an oriented box its four corners; keypoints follow. Of
        a classified image the five most probable classes: probability and name.

        Returns:
            The path; the file is not made when nothing was found.
        """
        lines = [] if self.probs is None else class_lines(self.probs, self._name)
        if self.rows is not None:
            lines = label_lines(self.rows, self.masks, self.keypoints, save_conf=save_conf)
        if lines:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            with open(path, "a", encoding="utf-8") as file:
                file.write("\n".join(lines) + "\n")
        return str(path)

    # -- as pictures --------------------------------------------------------------------------------------

    def plot(
        self,
        *,
        conf: bool = True,
        line_width: int | None = None,
        font_size: int | None = None,
        img: NDArray[np.uint8] | None = None,
        labels: bool = True,
        boxes: bool = True,
        masks: bool = True,
        probs: bool = True,
        kpt_radius: int | None = None,
        kpt_line: bool = True,
        color_mode: str = "class",
        txt_color: tuple[int, int, int] | None = None,
        pil: bool = False,
        show: bool = False,
        save: bool = False,
        filename: str | Path | None = None,
    ) -> Any:
        """Draws the result on a copy of the image, the most confident object on top.

        Args:
            conf: write confidences.
            line_width: of boxes, in pixels; by image size when absent.
            font_size: text height in pixels; by image size when absent.
            img: draw on this BGR image instead of the original.
            labels: write class names.
            boxes: draw boxes.
            masks: draw masks.
            probs: write the most probable classes.
            kpt_radius: of keypoints, in pixels; by image size when absent.
            kpt_line: join the keypoints of people.
            color_mode: `class` gives every class its colour, `instance` every object.
            txt_color: RGB colour of texts; by contrast when absent.
            pil: return a PIL image (RGB) instead of a BGR array.
            show: also open it in the system's viewer.
            save: also write it to `filename`.
            filename: where to; `results_<name>.jpg` in the current folder when absent.

        Returns:
            (H, W, 3) uint8 BGR array, or a PIL image.

        Raises:
            ValueError: an unknown colour mode.
        """
        from holdfast.post.draw import draw_boxes
        from holdfast.post.draw_parts import draw_keypoints, draw_lines, draw_masks

        if color_mode not in ("class", "instance"):
            raise ValueError(f"color_mode is 'class' or 'instance', not '{color_mode}'")
        picture = np.array(self.orig_img if img is None else img, dtype=np.uint8)
        if self.rows is not None:
            found = self.rows.numpy()
            order = np.argsort(found.conf, kind="stable")  # lowest first, so that the best ends on top
            numbers = found.cls.astype(int) if color_mode == "class" else np.arange(len(found))
            colors = numbers[order].tolist()
            if masks and self.masks is not None:
                drawn = (self.masks[int(i)].in_image()[0] for i in order)  # one at a time: they are large
                draw_masks(picture, drawn, colors, bgr=True)
            if boxes:
                picture = draw_boxes(
                    picture,
                    found.xyxy[order],
                    [self._label(found[int(i)], conf) if labels else "" for i in order],
                    colors,
                    corners=None if found.corners == 2 else found.places(False)[order],
                    line_width=line_width,
                    font_size=font_size,
                    text=txt_color,
                    bgr=True,
                )
            if self.keypoints is not None:
                points = self.keypoints.numpy().data[order]
                draw_keypoints(picture, points, colors, radius=kpt_radius, lines=kpt_line, bgr=True)
        if probs and self.probs is not None:
            lines = [
                f"{self._name(c)} {p:.2f}" if conf else self._name(c)
                for c, p in zip(self.probs.top5, self.probs.numpy().top5conf.tolist(), strict=True)
            ]
            draw_lines(picture, lines, font_size=font_size, bgr=True)
        if save:
            write_image(Path(filename or self._default_name()), picture)
        if show:
            open_in_viewer(picture, self.path)
        if pil:
            from PIL import Image

            return Image.fromarray(np.ascontiguousarray(picture[..., ::-1]))
        return picture

    def show(self, **options: Any) -> bool:
        """Opens the annotated picture in the system's viewer (options of `plot`).

        Returns:
            Whether there is a viewer.
        """
        return open_in_viewer(self.plot(**{**options, "show": False, "pil": False}), self.path)

    def save(self, filename: str | Path | None = None, **options: Any) -> str:
        """Writes the annotated picture (options of `plot`) and returns its path."""
        path = Path(filename or self._default_name())
        write_image(path, self.plot(**{**options, "pil": False}))
        return str(path)

    def save_crop(self, save_dir: str | Path, file_name: str | Path = "im.jpg") -> None:
        """Writes every object as a picture of its own: `<save_dir>/<class name>/<file name>.jpg`.

        Of an oriented box the upright box around it; of a classified image nothing.

        Args:
            save_dir: folder for the class folders.
            file_name: name of the files; a number is added when it is taken.
        """
        if self.rows is None:
            return
        boxes = self.rows.numpy()
        stem = Path(file_name).stem
        for (x1, y1, x2, y2), label in zip(boxes.xyxy.tolist(), boxes.cls.tolist(), strict=True):
            # Whole pixels that the box touches; an empty box still gives one pixel.
            left, top = (
                min(max(int(v), 0), limit - 1)
                for v, limit in zip((x1, y1), self.orig_shape[::-1], strict=True)
            )
            crop = self.orig_img[top : max(top + 1, int(np.ceil(y2))), left : max(left + 1, int(np.ceil(x2)))]
            folder = Path(save_dir) / (
                re.sub(r'[\\/:*?"<>|\x00-\x1f]', "_", self._name(int(label))).strip(". ") or "_"
            )
            path = folder / f"{stem}.jpg"
            number = 2
            while path.exists():
                path = folder / f"{stem}_{number}.jpg"
                number += 1
            write_image(path, crop)

    # -- helpers ------------------------------------------------------------------------------------------

    def _name(self, label: int) -> str:
        return self.names.get(label, str(label))

    def _label(self, box: Rows, conf: bool) -> str:
        number = f" id:{int(box.id[0])}" if box.is_track else ""
        score = f" {float(box.conf[0]):.2f}" if conf else ""
        return f"{self._name(int(box.cls[0]))}{number}{score}"

    def _default_name(self) -> str:
        return f"results_{Path(self.path).stem or 'image'}.jpg"

    def _columns(self) -> list[str]:
        if self.probs is not None:
            return ["name", "class", "confidence"]
        rows = self.rows
        axes = [f"{axis}{i + 1}" for i in range(2 if rows is None else rows.corners) for axis in "xy"]
        tracked = ["track_id"] if rows is not None and rows.is_track else []
        outlines = ["segments_x", "segments_y"] if self.masks is not None else []
        points = []
        if self.keypoints is not None:
            points = ["keypoints_x", "keypoints_y", "keypoints_visible"][: self.keypoints.shape[-1]]
        return ["name", "class", "confidence", *axes, *tracked, *outlines, *points]

    def _flat(self, normalize: bool, decimals: int) -> list[dict[str, Any]]:
        return [flat_row(row) for row in self.summary(normalize, decimals)]
