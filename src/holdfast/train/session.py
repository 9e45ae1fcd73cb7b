"""Entry of training: turns settings into the parts of a run, says what was decided, runs the loop, closes
the books.

Longer than other files: it is one sequence, and the only place that knows all parts of a run.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.optim import Optimizer

from holdfast.data.crops import TrainCrops, read_side
from holdfast.data.dataset_file import read_dataset_file
from holdfast.data.helpers import choose_kind
from holdfast.data.index import Index
from holdfast.data.listing import pack
from holdfast.data.loader import TrainLoader
from holdfast.data.reader import EvalReader, TrainReader, recent_bytes
from holdfast.data.samples import TrainSamples
from holdfast.data.splits import split_index
from holdfast.devices import choose_precision, narrower_precision
from holdfast.loggers import Loggers, require_loggers
from holdfast.losses.detect import criterion
from holdfast.memory.budget import held, trim
from holdfast.models.detector import Detector
from holdfast.nn.sync_norm import synchronise
from holdfast.runs import CsvLog, RunLock, SideFiles, new_run_folder
from holdfast.settings import TrainSettings
from holdfast.settings.components import (
    AugmentSettings,
    DetectionSettings,
    LossSettings,
    MemorySettings,
)
from holdfast.settings.types import usable_cores
from holdfast.train.announce import announcement, run_facts
from holdfast.train.checkpoint import Progress, restore
from holdfast.train.data_changes import FILE as LISTING
from holdfast.train.data_changes import data_changes
from holdfast.train.dist import Place, Ranks, place
from holdfast.train.ema import Ema
from holdfast.train.finish import TrainResult, close_books, validate_best
from holdfast.train.gauge import breakdown, image_bytes
from holdfast.train.guard import Guard
from holdfast.train.interrupt import Interrupt
from holdfast.train.layers import LayerNorms
from holdfast.train.loop import Plan, Run
from holdfast.train.micro import MicroBatch
from holdfast.train.model import compiled, placed, repeatable, starting_model
from holdfast.train.monitor import Monitor, Told
from holdfast.train.optim import (
    OptimChoice,
    build_optimizer,
    choose_optimizer,
    group_names,
    rescaled,
    scaled_weight_decay,
    steps_per_epoch,
)
from holdfast.train.outputs import Outputs, columns
from holdfast.train.pictures import Pictures
from holdfast.train.plan import tightest
from holdfast.train.planner import most_boxes, plan_run
from holdfast.train.quarantine import Quarantine
from holdfast.train.recorder import recorder_of
from holdfast.train.resume import (
    AUTO,
    compared,
    earlier_plan,
    folder_of_launch,
    refuse_finished,
    resume,
    resume_path,
    run_folder,
)
from holdfast.train.roles import Evaluator, Reporter, tell_of_end
from holdfast.train.saver import Saver
from holdfast.train.schedule import Schedule, shape_of
from holdfast.train.start import (
    agree,
    device_of,
    norm_note,
    spread,
    synchronises,
    threads_of,
)
from holdfast.train.step import Stepper
from holdfast.train.stores import open_stores


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
    index = partial(
        split_index,
        dataset,
        single_cls=settings.single_cls,
        workers=settings.threads,
        cache=index_cache,
        scanned=scanned,
    )
    torch.manual_seed(settings.seed)
    loaded = starting_model(
        settings.model,
        named="model" in settings.given(),
        weights=settings.weights,
        pretrained=settings.pretrained,
        names=names,
        keypoints=dataset.keypoints,
    )
    needs = loaded.model.needs
    loaded.model.spare(settings.nms)  # an impossible choice is refused now, not after an epoch
    own_side = dataset.imgsz or loaded.model.own_imgsz
    if own_side and "imgsz" not in settings.given():
        settings = settings.replace(imgsz=own_side)
    train_index = index("train", needs=needs, fraction=settings.fraction, min_items=settings.min_items)
    val_index = index("val", needs=needs)
    data = {"training images": train_index.fingerprint, "validation images": val_index.fingerprint}
    agree(ranks, settings.as_dict(), data)
    splits = {"train": train_index, "val": val_index}
    for line in ranks.from_main(partial(data_changes, content, folder, splits, names)):
        talk(line)
    model = placed(loaded, device, channels_last=settings.channels_last, frozen=settings.freeze)
    stride = max(model.strides)
    imgsz = max(-(-settings.imgsz // stride) * stride, 64)
    val_imgsz = max(-(-(settings.val_imgsz or imgsz) // stride) * stride, 64)
    largest = round(imgsz * (1 + settings.multi_scale))
    train_side, val_side = (
        read_side(split, side, whole=needs.whole)
        for split, side in ((train_index, largest), (val_index, val_imgsz))
    )
    images = image_cache or Path(settings.project) / "images"
    train_store, val_store = open_stores(
        settings.cache,
        ranks,
        train_index,
        val_index,
        sides=(train_side, val_side),
        budget=settings.cache_budget,
        folder=images,
    )
    loss = criterion(
        model.outputs,
        strides=model.strides,
        reg_max=model.reg_max,
        extra=model.extra,
        sigmas=train_index.sigmas,
        **settings.part(LossSettings),
    )

    def optimizer_over(of: Detector, batch: int) -> tuple[OptimChoice, Optimizer]:
        choice = choose_optimizer(
            settings.optimizer,
            steps=steps_per_epoch(len(train_index), batch) * settings.epochs,
            classes=len(names),
            lr0=settings.lr0,
            momentum=settings.momentum,
            warmup_bias_lr=settings.warmup_bias_lr,
            long_run=of.long_run_optimizer,
        )
        choice = rescaled(choice, settings.lr_scale, batch=batch, nominal_batch=settings.nbs)
        decay = scaled_weight_decay(settings.weight_decay, batch=batch, nominal_batch=settings.nbs)
        return choice, build_optimizer(of, choice, weight_decay=decay, class_branches=of.class_branches)

    wanted, accumulate = settings.batch, settings.accumulate
    if content is not None and wanted == -1:  # what was found out then stays
        wanted, accumulate = content["facts"]["batch"], 1
    narrow = narrower_precision(device.device, precision)
    memory = earlier_plan(content, settings.part(MemorySettings), device=device.note, ranks=ranks.world)
    if memory is None:
        with repeatable(settings.deterministic):
            own = plan_run(
                model,
                loss,
                make_optimizer=lambda of, batch: optimizer_over(of, batch)[1],
                precision=precision,
                channels_last=settings.channels_last,
                side=-(-largest // stride) * stride,
                boxes=_most_boxes(settings, train_index),
                images=len(train_index),
                batch=wanted,
                accumulate=accumulate,
                ranks=ranks.world,
                micro_batch=settings.micro_batch,
                ckpt=str(settings.ckpt),
                memory_limit=settings.memory_limit,
                headroom=settings.headroom,
                average=settings.ema,
                host_images=recent_bytes(train_index.sizes, train_side)
                + (train_store.promised + val_store.promised if settings.cache == "ram" else 0),
                sharing=ranks.local_world if device.device.type == "cpu" else 1,
                nms=settings.nms,
                narrow=narrow,
                may_narrow=settings.amp,
                **settings.part(DetectionSettings),
            )
        memory = compared(tightest(ranks.gather_all(own)), content)
    loss.assigner_bytes = memory.assigner
    if memory.narrowed and narrow is not None:
        precision = replace(narrow, note=memory.precision)
    batch = min(memory.batch * ranks.world if wanted == -1 else wanted * accumulate, len(train_index))
    model.recompute(memory.recompute)
    steps = steps_per_epoch(len(train_index), batch)
    choice, optimizer = optimizer_over(model, batch)
    ema = Ema(model, decay=settings.ema_decay, tau=settings.ema_tau) if settings.ema else None
    sync = synchronises(ranks, settings.sync_bn, memory.micro_batch)
    stepper = Stepper(
        model,
        loss,
        optimizer,
        ema=ema,
        precision=precision,
        clip_norm=settings.clip_norm,
        channels_last=settings.channels_last,
        micro=MicroBatch(memory.micro_batch if memory.parts > 1 else None),
        tidy=trim if memory.trim else _idle,
        exact=settings.exact_gradient,
        ranks=ranks,
        exchange=synchronise(model, ranks.sum_) if sync else None,
        guard=Guard(spikes=settings.skip_spikes),
        say=tell,
    )
    progress = Progress()
    work = Plan(
        epochs=settings.epochs,
        val_interval=0 if settings.noval else settings.val_interval,
        patience=settings.patience,
        save_last=not settings.nosave,
        save_period=settings.save_period,
    )
    if content is not None:
        progress = restore(content, model=model, ema=ema, optimizer=optimizer, scaler=stepper.scaler)
        stepper.load_state(content.get("step", {}))
        progress.batch = min(progress.batch, steps)  # of a data set that has become smaller
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
    spread(ranks, model, None if ema is None else ema.model)
    files = SideFiles(talk)
    folder = ranks.from_main(lambda: _run_folder(settings, folder, lock, files, made))
    samples = (TrainCrops if needs.whole else TrainSamples)(
        train_index,
        imgsz=imgsz,
        seed=settings.seed,
        epochs=settings.epochs,
        multi_scale=settings.multi_scale,
        rect=settings.rect,
        image_weights=settings.image_weights,
        stride=stride,
        flip_index=dataset.flip_idx,
        **settings.part(AugmentSettings),
        read=TrainReader(
            train_index, side=train_side, store=train_store.store, timeout=settings.read_timeout
        ),
    )
    facts = run_facts(
        loaded,
        train_index,
        val_index,
        device=device.note,
        precision=precision.note,
        compiled=compiled(model, device) if settings.compile else "",
        optimizer=choice.note,
        batch=batch,
        asked_batch=settings.batch * settings.accumulate,
        imgsz=imgsz,
        asked_imgsz=settings.imgsz,
        fraction=settings.fraction,
        cache=[opened.note for opened in (train_store, val_store) if opened.note],
        augmentation=samples.remarks(),
        plan=memory,
        ranks=ranks.world,
        cores=usable_cores(),
    )
    if where.launch:
        facts["launch"] = where.launch
    facts["groups"], facts["reproduce"] = group_names(optimizer), settings.command()
    processes, facts["workers"] = choose_kind(
        settings.worker_kind, workers=threads, store=train_store.store
    )
    facts["batch_norm"] = norm_note(ranks, settings.sync_bn, memory.micro_batch)
    plots = settings.plots and ranks.main
    if ranks.main:
        files.write_json(folder / "manifest.json", facts)
        files.write(folder / LISTING, pack(splits))
    for line in announcement(facts, folder, progress):
        talk(line)
    if plots:
        reporter.data(folder, {"train": train_index, "val": val_index}, names, talk)

    schedule = Schedule(
        shape=shape_of(cosine=settings.cos_lr, flat=settings.flat_cos_lr, fixed=settings.fixed_lr),
        epochs=settings.epochs,
        steps_per_epoch=steps,
        lr0=choice.lr0,
        lrf=settings.lrf,
        momentum=choice.momentum,
        warmup_epochs=settings.warmup_epochs,
        warmup_momentum=settings.warmup_momentum,
        warmup_bias_lr=choice.warmup_bias_lr,
    )

    pictures = Pictures(reporter, folder, names, files) if plots else None
    evaluator = make_evaluator(
        val_index,
        names=names,
        imgsz=val_imgsz,
        stride=stride,
        batch=max(1, int(memory.val_batch * min(1.0, (largest / val_imgsz) ** 2))),
        workers=threads,
        rect=True,
        device=device.device,
        precision=precision,
        **settings.part(DetectionSettings),
        nms=settings.nms,
        single_cls=settings.single_cls,
        needs=needs,
        answers=loaded.model.answers,
        read=EvalReader(val_index, side=val_side, store=val_store.store, timeout=settings.read_timeout),
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
        mask_stride=needs.mask_stride,
    )
    outputs = None
    if ranks.main:
        known = None if content is None else content.get("rows")
        header = columns(stepper, evaluator.columns)
        csv = CsvLog(folder / "results.csv", header, keep_rows=progress.epoch, known=known)
        with files.spared(csv.path):
            csv.write()
        plain = settings.as_dict()
        outputs = Outputs(
            saver=Saver(folder / "weights", every=settings.save_every, say=tell),
            csv=csv,
            loggers=Loggers(settings.loggers, folder, settings=plain, done=progress.epoch, say=talk),
            settings=plain,
            facts=facts,
            on_batch=None if pictures is None else pictures.train,
        )
    monitor = Monitor(
        epochs=settings.epochs,
        steps_per_epoch=steps,
        device=device.device,
        terms=stepper.loss.terms,
        verbose=settings.verbose and ranks.main,
        shared=bool(where.launch),
        cores=usable_cores(),
        clip_norm=settings.clip_norm,
        planned=memory.peak,
        recorder=recorder_of(folder, settings.as_dict(), facts, progress, talk) if ranks.main else None,
        layers=LayerNorms(model, optimizer) if ranks.main else None,
        account=partial(
            breakdown,
            model,
            optimizer,
            None if ema is None else ema.model,
            image_bytes(memory.micro_batch, largest, precision.dtype),
            held(device.device),
        ),
    )
    tell.monitor = monitor
    if content is not None:
        monitor.restore(content.get("items", torch.zeros(0, len(loss.terms))))
    rescue = {} if content is None else content.get("rescue", {})
    del content
    with ExitStack() as stack:
        if plots:
            stack.push(partial(tell_of_end, reporter, folder, talk))
        stack.enter_context(closing(train_store))
        stack.enter_context(closing(val_store))
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
            schedule,
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
        done = validate_best(folder, evaluator, progress, ranks, pictures, talk)
    close_books(
        done,
        files=files if ranks.main else None,
        pictures=pictures,
        monitor=monitor,
        unread=len(samples.faults.reasons),
        talk=talk,
    )
    return done


def _idle() -> None:
    """Does nothing."""


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
) -> Path:
    if folder is None:
        again = settings.exist_ok or settings.resume == AUTO
        folder = new_run_folder(settings.project, settings.name, exist_ok=again)
    lock.hold(folder)
    with files.spared(folder / "weights"):
        (folder / "weights").mkdir(exist_ok=True)
    files.write(folder / "args.yaml", settings.as_yaml().encode())
    made(folder)
    return folder


def _most_boxes(settings: TrainSettings, index: Index) -> int:
    """Most boxes that the augmentation can bring into one picture."""
    joined = 4 if settings.mosaic_tiles == "4" else 9
    doubled = settings.mixup > 0 or settings.cutmix > 0 or settings.copy_paste > 0
    return most_boxes(index.offsets, joined=joined if settings.mosaic > 0 else 1, mixed=doubled)
