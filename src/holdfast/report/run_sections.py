"""Parts of report.html that show what the folder of a run holds: pictures, examples, data set, incidents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from holdfast.data.boxes_check import SIZE_EDGES
from holdfast.post.draw import PALETTE
from holdfast.report.examples import FALSE, HIT, MISS, TRUTH
from holdfast.report.gradient_plots import notable
from holdfast.report.page import bars, card, data_uri, lacks, listed, note, table, text, words
from holdfast.report.run_folder import EXAMPLES, RunFolder

SHOWN = 60  # rows of a list
GALLERIES = (
    ("worst", "Worst images", "Most errors first."),
    ("false alarms", "False alarms", "The most confident of each image, and what is wrong with it."),
    ("missed", "Missed objects", "The largest of each image, and how it was missed."),
    ("best", "Best images", "Most objects found without an error first."),
)


class Room:
    """Bytes of pictures that the page may still take."""

    def __init__(self, most: int) -> None:
        self.left = most

    def take(self, path: Path) -> str | None:
        """The picture as an address; None where it cannot be read or there is no room left."""
        try:
            data = path.read_bytes()
        except OSError:
            return None
        length = len(data) * 4 // 3
        if length > self.left:
            return None
        self.left -= length
        return data_uri(data, "png" if path.suffix == ".png" else "jpeg")


def prints(run: RunFolder, files: Sequence[tuple[str, str]], room: Room) -> str:
    """Pictures of the folder, on white paper."""
    shown = [(room.take(run.path / name), name, caption) for name, caption in files]
    figures = [
        f'<figure><img alt="{text(caption)}" src="{source}"><figcaption>{text(caption)}</figcaption></figure>'
        for source, _, caption in shown if source
    ]  # fmt: skip
    left = [name for source, name, _ in shown if not source]
    large, lacking = ([n for n in left if (run.file(n) is not None) == there] for there in (True, False))
    lines = lacks(", ".join(lacking)) if lacking else ""
    lines += note(f"Too large for this page: {', '.join(large)}.") if large else ""
    one = " one" if len(files) == 1 else ""
    return (f'<div class="prints{one}">{"".join(figures)}</div>' if figures else "") + lines


def examples(run: RunFolder, room: Room) -> list[str]:
    """Galleries of the last validation."""
    groups = run.examples.get("groups")
    if not isinstance(groups, dict):
        return [lacks("examples", "They come with the validation at the end of a run.")]
    seen, whole = run.examples.get("images", 0), run.results.get("images", 0)
    of = f"{seen} validation images" + (f" of {whole}, those of rank 0" if whole and seen < whole else "")
    keys = (("truth", TRUTH), ("hit", HIT), ("missed", MISS), ("false alarm", FALSE))
    legend = "".join(
        f'<i class="key" style="background: rgb{PALETTE[color]}"></i>{name}' for name, color in keys
    )
    chosen = f"Chosen among {of}, confidence above {run.examples.get('conf', 0):g}."
    parts = [f'<p class="soft">{chosen}{legend}</p>']
    for key, head, about in GALLERIES:
        figures = []
        for example in groups.get(key, ()):
            source = room.take(run.path / EXAMPLES / str(example.get("picture")))
            if source:
                caption = f"{Path(str(example.get('file'))).name}: {_told(example)}"
                figures.append(
                    f'<figure><img alt="{text(caption)}" src="{source}">'
                    f"<figcaption>{text(caption)}</figcaption></figure>"
                )
        small = "" if key in ("worst", "best") else " small"
        shown = f'<div class="cases{small}">{"".join(figures)}</div>' if figures else note("None.")
        parts += [f"<h3>{head}</h3>", f'<p class="soft">{about}</p>', shown]
    return parts


def _told(example: Mapping[str, Any]) -> str:
    if "text" in example:
        return str(example["text"])
    hits, missed, false = (int(example.get(key, 0)) for key in ("hits", "missed", "false"))
    return f"{hits} found, {missed} missed, {false} false alarm{'' if false == 1 else 's'}"


def data(run: RunFolder, room: Room) -> list[str]:
    """What the data set holds, and what of it is left out."""
    splits = run.data.get("splits")
    if not isinstance(splits, dict) or not splits:
        return [lacks("data.json"), prints(run, [("labels.jpg", "labels of the training images")], room)]
    heads = ("images", "images left out", "images without boxes", "boxes", "label rows left out")
    rows = [[f"<td>{head}</td>", *(f"<td>{split.get(head, 0):,}</td>" for split in splits.values())]
            for head in heads]  # fmt: skip
    for at, name in enumerate(("small", "medium", "large")):
        shares = [split["areas"][at] / max(split["boxes"], 1) for split in splits.values()]
        rows.append([f"<td>{name} boxes</td>", *(f"<td>{share:.0%}</td>" for share in shares)])
    names = [str(name) for name in run.data.get("names", ())]
    first = next(iter(splits.values()))["classes"]
    order = sorted(range(len(names)), key=lambda at: -first[at])
    labels = [f"{names[at]} ({at})" for at in order]
    counts = {name: [split["classes"][at] for at in order] for name, split in splits.items()}
    edges = [0.0, *SIZE_EDGES]
    sides = [*(f"{low:.0%} to {high:.0%}" for low, high in pairwise(edges)), f"{edges[-1]:.0%} and over"]
    parts = [
        table(["", *splits], rows),
        '<p class="soft">Small: under 32 x 32 pixels; large: over 96 x 96, as COCO counts.</p>',
        "<h3>Boxes per class</h3>", bars("class", labels, counts),
        "<h3>Size of boxes</h3>",
        bars("side", sides, {name: split["sides"] for name, split in splits.items()}),
        '<p class="soft">Side: the square root of the share that a box has of its image.</p>',
        "<h3>Problems</h3>",
    ]  # fmt: skip
    found = [(name, problem) for name, split in splits.items() for problem in split["problems"]]
    for name, problem in found[:SHOWN]:
        title = f"{problem['count']:,} x {problem['reason']} ({name})"
        parts.append(card("warning", title, str(problem["remedy"]), listed(problem["examples"])))
    if not found:
        parts.append(note("None: every image and every label is used."))
    return [*parts, prints(run, [("labels.jpg", "labels of the training images")], room)]


def incidents(run: RunFolder) -> list[str]:
    """What was out of the ordinary: events, images at fault, lost processes."""
    parts: list[str] = []
    events = notable(run)
    if run.starts:
        after = ", ".join(str(done) for done in run.starts)
        parts.append(note(f"Started again after epochs {after}."))
    if events:
        rows = [(event.what, event.epoch, event.step, event.text) for event in events[-SHOWN:]]
        parts.append(words(["what", "epoch", "step", "what was said"], rows))
        if len(events) > SHOWN:
            parts.append(note(f"The last {SHOWN} of {len(events)}; all are in health.jsonl."))
    if run.quarantine:
        keys = ("reason", "step", "file")
        cases = [[row.get(key, "") for key in keys] for row in run.quarantine[:SHOWN]]
        parts += ["<h3>Images at fault</h3>", words(keys, cases)]
        if len(run.quarantine) > SHOWN:
            parts.append(note(f"The first {SHOWN} of {len(run.quarantine)}; all are in quarantine.csv."))
    for name, told in run.incidents[-10:]:
        parts.append(f"<details><summary>{text(name)}</summary><pre>{text(told[:20_000])}</pre></details>")
    return parts or [note("None: every step counted, and no process was lost.")]
