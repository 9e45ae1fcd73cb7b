"""`holdfast certify`: repeats a short training, disturbs others, and judges both by stated limits."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from holdfast.certify.runs import Trained, ended, go_on, train
from holdfast.certify.verdicts import MAP50, Verdict, of_fault, of_repeats
from holdfast.children import changed
from holdfast.cli.environment import inspect
from holdfast.data.shapes import write_demo
from holdfast.errors import SettingsError
from holdfast.report.certificate_page import write_certificate
from holdfast.report.compare import plot_comparison
from holdfast.report.run_record import read_runs
from holdfast.runs import new_run_folder, write_json
from holdfast.settings import CertifySettings, TrainSettings

_OURS = ("repeats", "seeds", "faults", "images", "project", "name", "exist_ok", "resume")
_FAULT_IMAGES = 60  # drawn for the disturbed runs: 48 to train on
_FAULT_RUN = {"epochs": 3, "noval": True, "save_every": 0.01, "patience": 0, "fraction": 1.0}


@dataclass(frozen=True)
class Certificate:
    """What a certification found.

    Attributes:
        folder: where certificate.json and certificate.html are.
        verdicts: in the order they are shown.
    """

    folder: Path
    verdicts: list[Verdict]

    @property
    def holds(self) -> bool:
        """Whether every verdict holds."""
        return all(verdict.holds for verdict in self.verdicts)

    @property
    def exit_code(self) -> int:
        """0 where every verdict holds, else 1."""
        return 0 if self.holds else 1


def run_certify(settings: CertifySettings, *, say: Callable[[str], None] = print) -> Certificate:
    """Runs `holdfast certify`.

    Raises:
        SettingsError: several devices, or a run to resume.
        HoldfastError: an undisturbed training does not come to its end.
    """
    if settings.resume:
        raise SettingsError("A certificate is made in one go.", hint="Leave resume out.")
    if settings.processes > 1:
        raise SettingsError(
            "certify disturbs a run in one process.", hint="Name one device, such as --device 0."
        )
    talk = say if settings.verbose else _silent
    values = {key: getattr(settings, key) for key in ("model", "epochs", "imgsz", "batch", "hyp")}
    values |= {key: value for key, value in settings.given().items() if key not in _OURS}
    training = TrainSettings(**values)
    folder = new_run_folder(settings.project, settings.name, exist_ok=settings.exist_ok)
    data = settings.data or write_demo(folder / "data", images=settings.images)
    keys = changed({**training.as_dict(), "data": str(data)})

    runs: list[Trained] = []
    for number in range(settings.repeats):
        seed = settings.seed + (number if settings.seeds == "different" else 0)
        runs.append(ended(train({**keys, "seed": seed}, folder / f"repeat{number + 1}")))
        run = runs[-1]
        talk(
            f"repeat {number + 1}/{settings.repeats}, seed {seed}: mAP50 {run.metric(MAP50):.3f} in "
            f"{run.seconds:.0f} s, first loss after {run.first_loss or 0:.1f} s"
        )
    verdicts = of_repeats(runs, epochs=settings.epochs, same_seed=settings.seeds == "same")
    if settings.faults:
        verdicts += disturbed(keys, folder / "faults", talk)
    certificate = Certificate(folder, verdicts)
    picture = plot_comparison(read_runs([run.folder for run in runs]), folder / "repeats.png")
    content = _content(certificate, runs, keys, settings)
    write_json(folder / "certificate.json", content)
    page = write_certificate(folder / "certificate.html", content, picture)
    for verdict in verdicts:
        talk(
            f"{'holds' if verdict.holds else 'FAILS':<6} {verdict.title}: {verdict.measured} "
            f"(limit: {verdict.limit})"
        )
    failed = sum(not verdict.holds for verdict in verdicts)
    say(f"{failed} of {len(verdicts)} verdicts fail" if failed else f"all {len(verdicts)} verdicts hold")
    say(f"certificate: {page}")
    return certificate


def disturbed(keys: Mapping[str, Any], folder: Path, say: Callable[[str], None]) -> list[Verdict]:
    """Plants each fault into a shorter run on drawn pictures, and judges what comes of it.

    Args:
        keys: of the training; its length and data are replaced.
        folder: a new folder for the runs.
    """
    keys = {**keys, **_FAULT_RUN, "data": str(write_demo(folder / "data", images=_FAULT_IMAGES))}
    batch = min(int(keys.get("batch", TrainSettings.model_fields["batch"].default)), 16)
    keys["batch"] = batch
    per_epoch = -(-_FAULT_IMAGES * 4 // 5 // batch)
    late = per_epoch + max(per_epoch // 2, 1)  # in the second epoch
    reference = ended(train(keys, folder / "undisturbed"))
    found: list[Verdict] = []

    def judge(name: str, title: str, run: Trained, *, exact: bool, told: str = "") -> None:
        found.append(of_fault(name, title, run, reference, exact=exact, told=told))
        say(f"fault {name}: {found[-1].measured}")

    judge(
        "nan_weights", "A weight becomes NaN in the second epoch",
        train(keys, folder / "nan-weights", fault="nan_weights", step=late), exact=True, told="not finite",
    )  # fmt: skip
    other = write_demo(folder / "damaged", images=_FAULT_IMAGES)
    victims = sorted((other.parent / "images" / "train").iterdir())[::4]  # some are still to be read
    judge(
        "damaged_images", "Image files are cut short while the run reads them",
        train(
            {**keys, "data": str(other)}, folder / "damaged-images", fault="damaged_images", step=1,
            victims=victims,
        ),
        exact=False, told="could not be read while the run was under way",
    )  # fmt: skip
    judge(
        "out_of_memory", "Memory runs out once, in a forward pass",
        train(keys, folder / "out-of-memory", fault="out_of_memory", step=late), exact=False, told="memory",
    )  # fmt: skip
    killed = train(keys, folder / "killed", fault="kill", step=late)
    judge("kill", "The process is killed in mid-epoch and the run is resumed", go_on(killed), exact=True)
    cut = train(keys, folder / "cut-checkpoint", fault="kill", step=late + 1)
    last = cut.folder / "weights" / "last.pt"
    if last.is_file():
        last.write_bytes(last.read_bytes()[: last.stat().st_size // 2])
    judge(
        "cut_checkpoint", "The newest checkpoint is cut short and the run is resumed", go_on(cut), exact=True
    )
    return found


def _content(
    certificate: Certificate, runs: list[Trained], keys: Mapping[str, Any], settings: CertifySettings
) -> dict[str, Any]:
    found = inspect()
    return {
        "holds": certificate.holds,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": " ".join(["holdfast", "certify", *(f"{k}={v}" for k, v in settings.given().items())]),
        "settings": {key: value for key, value in keys.items() if key != "data"},
        "data": settings.data or f"{settings.images} drawn pictures",
        "verdicts": [asdict(verdict) for verdict in certificate.verdicts],
        "repeats": [
            {
                "run": run.folder.name,
                "seed": settings.seed + (number if settings.seeds == "different" else 0),
                "mAP50": run.metric(MAP50),
                "mAP50-95": run.metric("metrics/mAP50-95(B)"),
                "steps": run.measures["steps"],
                "seconds": round(run.seconds, 1),
                "first_loss_seconds": round(run.first_loss or 0.0, 2),
                "peak_bytes": run.peak,
                "leak_in_ten_epochs": run.leak(steps_per_epoch=run.measures["steps"] / settings.epochs),
                "largest_gradient_norm": max(run.measures["norms"], default=None),
            }
            for number, run in enumerate(runs)
        ],
        "environment": json.loads(json.dumps(found.facts)),
    }


def _silent(text: str) -> None:
    """Takes a line and drops it."""
