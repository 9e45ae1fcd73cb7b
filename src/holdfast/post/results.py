"""What one image's prediction looks like to a user: the names and formats known from other detectors.

A `Results` holds one picture and the parts found in it. Every part (boxes now; masks, keypoints, oriented
boxes and class probabilities have their places) carries its rows in `data` and knows how to move, cut and
describe itself, so nothing here asks which task the model was trained for. Images are BGR, as OpenCV has
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
from holdfast.post.boxes import Boxes

PARTS = ("boxes", "masks", "keypoints", "obb", "probs")


class Results:
    """The prediction for one image or video frame.

    Args:
        orig_img: (H, W, 3) uint8 BGR.
        path: where the image came from.
        names: class index to name.
        boxes: rows as `Boxes` takes them, or `Boxes`, or None.
        speed: milliseconds of preprocess, inference and postprocess.

    Attributes:
        orig_img, orig_shape, path, names, speed: as given; orig_shape is (height, width).
        boxes: `Boxes` or None.
        masks, keypoints, obb, probs: None; the places of the other tasks' parts.
        save_dir: folder of the run, when there is one.
    """

    def __init__(
        self,
        orig_img: NDArray[np.uint8],
        *,
        path: str | Path,
        names: Mapping[int, str],
        boxes: Any = None,
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
        self.masks: Any = None
        self.keypoints: Any = None
        self.obb: Any = None
        self.probs: Any = None
        if boxes is not None:
            self.update(boxes=boxes)

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

    def update(self, *, boxes: Any = None) -> None:
        """Replaces parts in place.

        Args:
            boxes: rows as `Boxes` takes them, clipped to the image; or `Boxes`, taken as they are.
        """
        if isinstance(boxes, Boxes):
            self.boxes = boxes
        elif boxes is not None:
            made = Boxes(boxes, self.orig_shape)
            data = made.data.clone() if isinstance(made.data, Tensor) else made.data.copy()
            height, width = self.orig_shape
            data[:, 0:4:2] = data[:, 0:4:2].clip(0, width)
            data[:, 1:4:2] = data[:, 1:4:2].clip(0, height)
            self.boxes = Boxes(data, self.orig_shape)

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
        """Returns what was found in words: `2 cats, 1 dog`, or `(no detections)`."""
        if self.boxes is None or len(self.boxes) == 0:
            return "(no detections)"
        labels, counts = np.unique(np.asarray(self.boxes.numpy().cls).astype(int), return_counts=True)
        return ", ".join(
            f"{n} {self._name(c)}{'s' if n > 1 and not self._name(c).endswith('s') else ''}"
            for c, n in zip(labels.tolist(), counts.tolist(), strict=True)
        )

    def summary(self, normalize: bool = False, decimals: int = 5) -> list[dict[str, Any]]:
        """Returns one dictionary per object: name, class, confidence, box, and track_id when tracked.

        Args:
            normalize: give boxes as fractions of the image instead of pixels.
            decimals: digits after the point.
        """
        if self.boxes is None:
            return []
        boxes = self.boxes.numpy()
        corners = boxes.xyxyn if normalize else boxes.xyxy
        rows: list[dict[str, Any]] = []
        for i, (corner, conf, label) in enumerate(
            zip(corners.tolist(), boxes.conf.tolist(), boxes.cls.tolist(), strict=True)
        ):
            row: dict[str, Any] = {
                "name": self._name(int(label)),
                "class": int(label),
                "confidence": round(conf, decimals),
                "box": dict(zip(("x1", "y1", "x2", "y2"), (round(v, decimals) for v in corner), strict=True)),
            }
            if boxes.is_track:
                row["track_id"] = int(boxes.id[i])
            rows.append(row)
        return rows

    def to_json(self, normalize: bool = False, decimals: int = 5) -> str:
        """Returns the summary as JSON text."""
        return json.dumps(self.summary(normalize, decimals), indent=2, ensure_ascii=False)

    def to_csv(self, normalize: bool = False, decimals: int = 5) -> str:
        """Returns the summary as CSV text with a header; the box has a column per corner coordinate."""
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
        """Appends one row per object: class cx cy w h [confidence] [track id], as fractions of the image.

        Returns:
            The path; the file is not made when nothing was found.
        """
        if self.boxes is not None and len(self.boxes):
            boxes = self.boxes.numpy()
            lines = []
            for i in range(len(boxes)):
                numbers = [*boxes.xywhn[i].tolist()]
                if save_conf:
                    numbers.append(float(boxes.conf[i]))
                line = " ".join([str(int(boxes.cls[i])), *(f"{v:.6g}" for v in numbers)])
                lines.append(f"{line} {int(boxes.id[i])}" if boxes.is_track else line)
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

        if color_mode not in ("class", "instance"):
            raise ValueError(f"color_mode is 'class' or 'instance', not '{color_mode}'")
        picture = self.orig_img if img is None else img
        if boxes and self.boxes is not None:
            found = self.boxes.numpy()
            order = np.argsort(found.conf, kind="stable")  # lowest first, so that the best ends on top
            colors = found.cls.astype(int) if color_mode == "class" else np.arange(len(found))
            picture = draw_boxes(
                picture,
                found.xyxy[order],
                [self._label(found[int(i)], conf) if labels else "" for i in order],
                colors[order].tolist(),
                line_width=line_width,
                font_size=font_size,
                text=txt_color,
                bgr=True,
            )
        else:
            picture = picture.copy()
        if save:
            _write_image(Path(filename or self._default_name()), picture)
        if show:
            _open_in_viewer(picture, self.path)
        if pil:
            from PIL import Image

            return Image.fromarray(np.ascontiguousarray(picture[..., ::-1]))
        return picture

    def show(self, **options: Any) -> bool:
        """Opens the annotated picture in the system's viewer (options of `plot`).

        Returns:
            Whether there is a viewer.
        """
        return _open_in_viewer(self.plot(**{**options, "show": False, "pil": False}), self.path)

    def save(self, filename: str | Path | None = None, **options: Any) -> str:
        """Writes the annotated picture (options of `plot`) and returns its path."""
        path = Path(filename or self._default_name())
        _write_image(path, self.plot(**{**options, "pil": False}))
        return str(path)

    def save_crop(self, save_dir: str | Path, file_name: str | Path = "im.jpg") -> None:
        """Writes every object as a picture of its own: `<save_dir>/<class name>/<file name>.jpg`.

        Args:
            save_dir: folder for the class folders.
            file_name: name of the files; a number is added when it is taken.
        """
        if self.boxes is None:
            return
        boxes = self.boxes.numpy()
        stem = Path(file_name).stem
        for (x1, y1, x2, y2), label in zip(boxes.xyxy.tolist(), boxes.cls.tolist(), strict=True):
            # Whole pixels that the box touches; an empty box still gives one pixel.
            left, top = (
                min(int(v), limit - 1) for v, limit in zip((x1, y1), self.orig_shape[::-1], strict=True)
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
            _write_image(path, crop)

    # -- helpers ------------------------------------------------------------------------------------------

    def _name(self, label: int) -> str:
        return self.names.get(label, str(label))

    def _label(self, box: Boxes, conf: bool) -> str:
        number = f" id:{int(box.id[0])}" if box.is_track else ""
        score = f" {float(box.conf[0]):.2f}" if conf else ""
        return f"{self._name(int(box.cls[0]))}{number}{score}"

    def _default_name(self) -> str:
        return f"results_{Path(self.path).stem or 'image'}.jpg"

    def _columns(self) -> list[str]:
        tracked = self.boxes is not None and self.boxes.is_track
        return ["name", "class", "confidence", "x1", "y1", "x2", "y2", *(["track_id"] if tracked else [])]

    def _flat(self, normalize: bool, decimals: int) -> list[dict[str, Any]]:
        rows = self.summary(normalize, decimals)
        return [{**{k: v for k, v in row.items() if k != "box"}, **row["box"]} for row in rows]


def _open_in_viewer(image: NDArray[np.uint8], title: str) -> bool:
    """Hands a BGR image to the first viewer that Pillow finds."""
    from PIL import Image, ImageShow

    return ImageShow.show(Image.fromarray(np.ascontiguousarray(image[..., ::-1])), title=title)


def _write_image(path: Path, image: NDArray[np.uint8]) -> None:
    """Writes a BGR image; through memory, because OpenCV does not open every non-ASCII path."""
    import cv2

    path.parent.mkdir(parents=True, exist_ok=True)
    good, data = cv2.imencode(path.suffix or ".jpg", image)
    if not good:
        raise OSError(f"{path}: the picture cannot be encoded as {path.suffix or '.jpg'}")
    path.write_bytes(data.tobytes())
