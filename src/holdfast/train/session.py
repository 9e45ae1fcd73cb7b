"""Entry of training: puts the parts of a run together, says what was decided, runs the loop, closes the
books.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from holdfast.data.dataset_file import read_dataset_file
from holdfast.data.helpers import choose_kind
from holdfast.data.listing import pack
from holdfast.data.loader import TrainLoader
from holdfast.devices import choose_precision, narrower_precision
from holdfast.loggers import Loggers, require_loggers
from holdfast.runs import CsvLog, RunLock, SideFiles, new_run_folder
from holdfast.settings import TrainSettings
from holdfast.settings.components import (
    MemorySettings,
)
from holdfast.settings.types import usable_cores
from holdfast.train.announce import announcement, run_facts
from holdfast.train.checkpoint import Progress, restore
from holdfast.train.data_changes import FILE as LISTING
from holdfast.train.data_changes import data_changes
from holdfast.train.dist import Place, Ranks, place
from holdfast.train.finish import TrainResult, close_books, validate_best
from holdfast.train.interrupt import Interrupt
from holdfast.train.loop import Run
from holdfast.train.model import compiled, placed, repeatable
from holdfast.train.monitor import Told
from holdfast.train.optim import (
    group_names,
    steps_per_epoch,
)
from holdfast.train.outputs import Outputs, columns
from holdfast.train.parts import (
    evaluator_of,
    indices_of,
    loss_of,
    model_of,
    monitor_of,
    optimizer_of,
    plan_of,
    samples_of,
    schedule_of,
    sides_of,
    stepper_of,
    stores_of,
    work_of,
)
from holdfast.train.pictures import Pictures
from holdfast.train.plan import tightest
from holdfast.train.quarantine import Quarantine
from holdfast.train.recorder import recorder_of
from holdfast.train.resume import (
    AUTO,
    compared,
    earlier_model,
    earlier_plan,
    folder_of_launch,
    refuse_finished,
    resume,
    resume_path,
    run_folder,
)
from holdfast.train.roles import Evaluator, Reporter, tell_of_end
from holdfast.train.saver import Saver
from holdfast.train.start import (
    agree,
    device_of,
    norm_note,
    spread,
    threads_of,
)

# What an earlier run has left in the folder, and would be taken for this one's until it has its own.
_OF_BEFORE = ("weights/last.pt", "weights/last.previous.pt", "results.json", "quarantine.csv")


def fit(
    settings: TrainSettings,
    *,
    make_evaluator: Callable[..., Evaluator],
    reporter: Reporter,
    say: Callable[[str], None] = print,
    index_cache: Path | None = None,
    image_cache: Path | None = None,
    scanned: Callable[[int, int], None] | None = None,
    folder: Path | None = None,
    made: Callable[[Path], None] | None = None,
) -> TrainResult:
    """Trains as the settings say and returns the best weights' validation.

    Where the environment names several ranks (torchrun, or `launch.py`) this is one of them: rank 0 writes,
    prints and draws, and what it returns is complete.

    Args:
        make_evaluator: builds the validator from an index and keyword numbers (`val.run.Evaluator`).
        reporter: draws the pictures.
        say: where lines go when `verbose`.
        index_cache: folder for the indices of large data sets.
        image_cache: where `cache=disk` keeps images; a folder of the project when None.
        scanned: told how many images are scanned, and how many there are.
        folder: the run folder to write into; None makes one.
        made: told the run folder, by rank 0, as soon as there is one.

    Raises:
        HoldfastError: the settings, the data set, the weights or the device cannot be used, or a rank is
            gone.
    """
    with Ranks(place(), timeout=settings.ddp_timeout) as ranks, RunLock() as lock:
        return _fit(
            settings,
            ranks,
            lock,
            make_evaluator=make_evaluator,
            reporter=reporter,
            say=say,
            index_cache=index_cache,
            image_cache=image_cache,
            scanned=scanned if ranks.main else None,
            folder=folder,
            made=made or _unheard,
        )


def _fit(
    settings: TrainSettings,
    ranks: Ranks,
    lock: RunLock,
    *,
    make_evaluator: Callable[..., Evaluator],
    reporter: Reporter,
    say: Callable[[str], None],
    index_cache: Path | None,
    image_cache: Path | None,
    scanned: Callable[[int, int], None] | None,
    folder: Path | None,
    made: Callable[[Path], None],
) -> TrainResult:
    asked = settings
    where = replace(place(), restarts=ranks.largest(place().restarts))
    settings, content, folder = ranks.from_main(lambda: _begun(asked, folder, where, lock, say))
    require_loggers(settings.loggers)
    talk = Told(say if settings.verbose and ranks.main else _silent)
    tell = Told(talk)  # for parts of which lines are recorded too
    device = device_of(ranks, settings.device, say)
    if device.fallback and not settings.verbose and ranks.main:
        say(f"device: {device.note}")
    threads = threads_of(ranks, settings.threads, usable_cores())
    precision = choose_precision(device.device, amp=settings.amp, amp_dtype=settings.amp_dtype)
    dataset = read_dataset_file(settings.data)
    names = {0: "object"} if settings.single_cls else dict(dataset.names)
    torch.manual_seed(settings.seed)
    loaded = model_of(settings, dataset, names) if content is None else earlier_model(content, names)
    needs = loaded.model.needs._replace(hidden=not settings.overlap_mask)
    own_side = dataset.imgsz or loaded.model.own_imgsz
    if own_side and "imgsz" not in settings.given():
        settings = settings.replace(imgsz=own_side)
    splits = indices_of(settings, dataset, needs, cache=index_cache, scanned=scanned)
    train, val = splits["train"], splits["val"]
    agree(
        ranks,
        settings.as_dict(),
        {"training images": train.fingerprint, "validation images": val.fingerprint},
    )
    for line in ranks.from_main(partial(data_changes, content, folder, splits, names)):
        talk(line)
    model = placed(loaded, device, channels_last=settings.channels_last, frozen=settings.freeze)
    sides = sides_of(settings, max(model.strides))
    read_at = {split: sides.read(split, index, needs) for split, index in splits.items()}
    stores = stores_of(settings, ranks, splits, read_at, image_cache)
    loss = loss_of(settings, model, train)

    wanted, accumulate, length = settings.batch, settings.accumulate, None
    if content is not None:  # what was found out then stays
        length = content["facts"].get("planned_steps")
        if wanted == -1:
            wanted, accumulate = content["facts"]["batch"], 1
    narrow = narrower_precision(device.device, precision)
    memory = earlier_plan(content, settings.part(MemorySettings), device=device.note, ranks=ranks.world)
    if memory is None:
        own = plan_of(
            settings,
            model,
            loss,
            make_optimizer=lambda of, batch: optimizer_of(
                settings, of, batch, images=len(train), length=length
            )[1],
            precision=precision,
            narrow=narrow,
            sides=sides,
            train=train,
            batch=wanted,
            accumulate=accumulate,
            ranks=ranks,
            read_at=read_at["train"],
            stored=sum(opened.promised for opened in stores.values()),
        )
        memory = compared(tightest(ranks.gather_all(own)), content)
    loss.assigner_bytes = memory.assigner
    if memory.narrowed and narrow is not None:
        precision = replace(narrow, note=memory.precision)
    batch = min(memory.batch * ranks.world if wanted == -1 else wanted * accumulate, len(train))
    model.recompute(memory.recompute)
    steps = steps_per_epoch(len(train), batch)
    choice, optimizer = optimizer_of(settings, model, batch, images=len(train), length=length)
    stepper = stepper_of(
        settings, model, loss, optimizer, precision=precision, memory=memory, ranks=ranks, say=tell
    )
    progress, work = Progress(), work_of(settings)
    if content is not None:
        progress = restore(
            content, model=model, ema=stepper.ema, optimizer=optimizer, scaler=stepper.scaler
        )
        stepper.load_state(content.get("step", {}))
        progress.batch = min(progress.batch, steps)  # of a data set that has become smaller
        progress.step = progress.epoch * steps + progress.batch  # by which the schedule goes
        ranks.from_main(
            partial(
                refuse_finished,
                folder,
                over=work.over(progress),
                asked=asked.resume,
                epochs=settings.epochs,
                say=talk,
            )
        )
    spread(ranks, model, None if stepper.ema is None else stepper.ema.model)
    files = SideFiles(talk)
    anew = content is None
    folder = ranks.from_main(lambda: _run_folder(settings, folder, lock, files, made, anew=anew))
    samples = samples_of(
        settings, dataset, train, needs, sides=sides, read_at=read_at["train"], opened=stores["train"]
    )
    facts = run_facts(
        loaded,
        train,
        val,
        device=device.note,
        precision=precision.note,
        compiled=compiled(model, device) if settings.compile else "",
        optimizer=choice.note,
        batch=batch,
        asked_batch=settings.batch * settings.accumulate,
        imgsz=sides.train,
        asked_imgsz=settings.imgsz,
        fraction=settings.fraction,
        cache=[opened.note for opened in stores.values() if opened.note],
        augmentation=samples.remarks(),
        plan=memory,
        ranks=ranks.world,
        cores=usable_cores(),
    )
    if where.launch:
        facts["launch"] = where.launch
    facts["groups"], facts["reproduce"] = group_names(optimizer), settings.command()
    facts["planned_steps"] = length or steps * settings.epochs
    processes, facts["workers"] = choose_kind(
        settings.worker_kind, workers=threads, store=stores["train"].store
    )
    facts["batch_norm"] = norm_note(ranks, settings.sync_bn, memory.micro_batch)
    plots = settings.plots and ranks.main
    if ranks.main:
        files.write_json(folder / "manifest.json", facts)
        files.write(folder / LISTING, pack(splits))
    for line in announcement(facts, folder, progress):
        talk(line)
    if plots:
        reporter.data(folder, splits, names, talk)

    pictures = Pictures(reporter, folder, names, files) if plots else None
    evaluator = evaluator_of(
        settings,
        make_evaluator,
        val,
        model,
        needs,
        sides=sides,
        read_at=read_at["val"],
        opened=stores["val"],
        memory=memory,
        workers=threads,
        device=device,
        precision=precision,
        ranks=ranks,
        say=talk,
    )
    pin = device.device.type == "cuda"
    loader = TrainLoader(
        samples,
        batch=batch,
        workers=threads,
        pin=pin,
        say=say if settings.verbose else _silent,  # each rank of its own images
        processes=processes,
        part=ranks.rank,
        parts=ranks.world,
        device=device.device if pin and memory.ahead else None,
        needs=needs,
    )
    outputs = recorder = None
    if ranks.main:
        known = None if content is None else content.get("rows")
        header = columns(stepper, evaluator.columns)
        csv = CsvLog(folder / "results.csv", header, keep_rows=progress.epoch, known=known)
        with files.spared(csv.path):
            csv.write()
        plain = settings.as_dict()
        outputs = Outputs(
            saver=Saver(folder / "weights", every=0.0 if settings.nosave else settings.save_every, say=tell),
            csv=csv,
            loggers=Loggers(settings.loggers, folder, settings=plain, done=progress.epoch, say=talk),
            settings=plain,
            facts=facts,
            on_batch=None if pictures is None else pictures.train,
        )
        recorder = recorder_of(folder, plain, facts, progress, talk)
    monitor = monitor_of(
        settings,
        stepper,
        steps=steps,
        memory=memory,
        sides=sides,
        ranks=ranks,
        shared=bool(where.launch),
        recorder=recorder,
    )
    tell.monitor = monitor
    if content is not None:
        monitor.restore(content.get("items", torch.zeros(0, len(loss.terms))))
    rescue = {} if content is None else content.get("rescue", {})
    del content
    with ExitStack() as stack:
        if plots:
            stack.push(partial(tell_of_end, reporter, folder, talk))
        for opened in stores.values():
            stack.enter_context(closing(opened))
        stack.enter_context(closing(evaluator))
        stack.enter_context(closing(loader))
        if outputs is not None:
            stack.enter_context(outputs)
        stack.enter_context(repeatable(settings.deterministic))
        stack.enter_context(monitor)
        interrupt = stack.enter_context(Interrupt())
        run = Run(
            stepper,
            loader,
            schedule_of(settings, choice, steps),
            evaluator,
            plan=work,
            progress=progress,
            monitor=monitor,
            interrupt=interrupt,
            quarantine=Quarantine(
                folder / "quarantine.csv" if ranks.main else None, leave_out=samples.leave_out, say=talk
            ),
            outputs=outputs,
        )
        run.rescue.load_state(rescue)
        progress = run.epochs()
        loader.close()
        done = run.at_once(lambda: validate_best(folder, evaluator, progress, ranks, pictures, talk))
    close_books(
        done,
        files=files if ranks.main else None,
        pictures=pictures,
        monitor=monitor,
        unread=len(samples.faults.reasons),
        talk=talk,
    )
    return done


def _silent(text: str) -> None:
    """Takes a line and drops it."""


def _unheard(folder: Path) -> None:
    """Takes a folder and does nothing."""


def beginning(
    settings: TrainSettings, folder: Path | None, where: Place, say: Callable[[str], None]
) -> tuple[TrainSettings, dict[str, Any] | None, Path | None]:
    """Returns the settings, checkpoint and folder that a run begins with."""
    project = Path(settings.project)
    path = resume_path(settings.resume, project, settings.name, folder, where)
    if path is None:
        return settings, None, folder or folder_of_launch(project, where)
    given = settings.given() if settings.resume else {}
    values, content = resume(path, settings.as_dict(), given, say)
    return TrainSettings.from_mapping(values), content, run_folder(path) or folder


def _begun(
    settings: TrainSettings, folder: Path | None, where: Place, lock: RunLock, say: Callable[[str], None]
) -> tuple[TrainSettings, dict[str, Any] | None, Path | None]:
    """`beginning`, with the folder held where there is one."""
    begun = beginning(settings, folder, where, say)
    if begun[2] is not None:
        lock.hold(begun[2])
    return begun


def _run_folder(
    settings: TrainSettings,
    folder: Path | None,
    lock: RunLock,
    files: SideFiles,
    made: Callable[[Path], None],
    *,
    anew: bool,
) -> Path:
    """The folder of a run, which one that begins `anew` may have to clear of an earlier one."""
    if folder is None:
        again = settings.exist_ok or settings.resume == AUTO
        folder = new_run_folder(settings.project, settings.name, exist_ok=again)
    lock.hold(folder)
    for name in _OF_BEFORE if anew else ():
        with files.spared(folder / name):
            (folder / name).unlink(missing_ok=True)
    with files.spared(folder / "weights"):
        (folder / "weights").mkdir(exist_ok=True)
    files.write(folder / "args.yaml", settings.as_yaml().encode())
    made(folder)
    return folder
