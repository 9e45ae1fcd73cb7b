"""Each rule finds the fault it is for, planted in a healthy run, and accuses no healthy run."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest

from histories import GIB, history
from holdfast.health.records import Epoch, Event, Finding, History, Window
from holdfast.health.rules import examine

Change = Callable[[Epoch], dict[str, Any]]


def found(run: History) -> dict[str, Finding]:
    return {finding.rule: finding for finding in examine(run)}


@pytest.mark.parametrize("epochs", [1, 2, 5, 12, 35, 60, 100])
@pytest.mark.parametrize("seed", range(5))
def test_a_healthy_run_is_accused_of_nothing(epochs: int, seed: int) -> None:
    for end in {epochs, max(epochs // 2, 1)}:  # rules are asked after each epoch
        whole = history(epochs, seed=seed)
        run = dataclasses.replace(whole, epochs=whole.epochs[:end])
        assert [finding.text for finding in examine(run) if finding.level != "good"] == []


def test_what_goes_well_is_told() -> None:
    run = found(history())
    assert run["learning"].evidence["box_loss_fall"] >= 0.4
    assert 8 < run["tight-boxes"].evidence["gap"] < 15


def jumps(epoch: Epoch) -> dict[str, Any]:
    return {"rss": 12 * GIB} if epoch.epoch > 30 else {}


def fills(epoch: Epoch) -> dict[str, Any]:
    return {"rss": round(GIB * (6 + min(epoch.epoch, 12) / 3))}


def saws(epoch: Epoch) -> dict[str, Any]:
    return {"rss": round(GIB * (6 + epoch.epoch % 10 / 5 if epoch.epoch % 20 < 10 else 6))}


def pauses(epoch: Epoch) -> dict[str, Any]:
    return {"images_per_second": 40.0} if epoch.epoch == 20 else {}


def restarts(epoch: Epoch) -> dict[str, Any]:  # each part of a run starts with little memory
    return {"rss": round(GIB * (6 + 0.05 * (epoch.epoch % 15)))}


def good_answers(epoch: Epoch) -> dict[str, Any]:
    rising = 1.5 + epoch.epoch / 100
    return {"val_losses": {"box": rising}}  # AP goes on rising


def fine_tuned(epoch: Epoch) -> dict[str, Any]:
    return {
        "losses": {"box": 0.5, "cls": 0.3},
        "metrics": {"metrics/mAP50(B)": 0.97, "metrics/mAP50-95(B)": 0.92},
    }


@pytest.mark.parametrize(
    "change", [jumps, fills, saws, pauses, restarts, good_answers, fine_tuned], ids=lambda x: x.__name__
)
def test_what_is_odd_but_harmless_is_no_accusation(change: Change) -> None:
    assert [finding.text for finding in examine(history(60, change)) if finding.level != "good"] == []


@pytest.mark.parametrize(("where", "key"), [("host", "rss"), ("device", "allocated")])
def test_a_leak_is_found_with_its_size(where: str, key: str) -> None:
    run = found(history(45, lambda epoch: {key: round(getattr(epoch, key) * (1 + 0.006 * epoch.epoch))}))
    leak = run[f"leak-{where}"]
    assert leak.level == "warning"
    assert len(leak.evidence["growth"]) == 3
    assert all(share > 0.03 for share in leak.evidence["growth"])
    assert found(history(29, lambda epoch: {key: epoch.epoch * GIB})).keys().isdisjoint({f"leak-{where}"})


def test_a_leak_that_began_late_is_found() -> None:
    run = found(history(60, lambda e: {"rss": round(6 * GIB * (1 + 0.008 * max(e.epoch - 28, 0)))}))
    assert run["leak-host"].epoch == 60


def test_a_fragmented_allocator_is_found() -> None:
    run = found(history(12, lambda epoch: {"peak": 9 * GIB, "reserved": 13 * GIB}))
    assert run["fragmentation"].evidence["fragmentation"][0] == pytest.approx(4 / 13)
    small = found(history(12, lambda epoch: {"peak": 2 * GIB, "reserved": 4 * GIB}))  # of 16 GiB: who cares
    assert "fragmentation" not in small


def test_a_full_device_with_nothing_to_do_is_bound_by_data() -> None:
    def change(epoch: Epoch) -> dict[str, Any]:
        return {"utilisation": 0.2, "reserved": round(11.8 * GIB)}

    finding = found(history(12, change, threads=2))["memory-full-device-idle"]
    assert finding.flag == "--workers 8"
    assert finding.evidence["memory"] > 0.95
    assert found(history(12, change))["memory-full-device-idle"].flag == "--cache ram"


def test_a_busy_device_with_memory_to_spare_should_take_shorter_numbers() -> None:
    def change(epoch: Epoch) -> dict[str, Any]:
        return {"utilisation": 0.97, "reserved": 4 * GIB, "peak": 4 * GIB}

    assert found(history(12, change, precision="float32"))["compute-bound"].flag.startswith("--amp")
    assert found(history(12, change, recompute="norm"))["compute-bound"].flag == "--ckpt off"
    assert "compute-bound" not in found(history(12, change))


def events(*steps: int) -> tuple[Event, ...]:
    return tuple(
        Event(
            what="skip", text="step left out", epoch=2, step=step, time=0.0,
            facts={"reason": "the gradient is not finite", "layers": ["head.box.0.0.conv.weight"]},
        )
        for step in steps
    )  # fmt: skip


def test_gradients_that_are_not_finite_are_counted_with_layer_and_step() -> None:
    finding = found(dataclasses.replace(history(12), events=events(417, 520)))["non-finite"]
    assert "2 steps" in finding.text
    assert "first at step 417 in head.box.0.0.conv.weight" in finding.text
    assert finding.evidence["layers"] == {"head.box.0.0.conv.weight": 2}
    assert examine(dataclasses.replace(history(12), events=events(417)))[0] == max(
        found(dataclasses.replace(history(12), events=events(417))).values(), key=lambda item: item.gain
    )
    spike = Event(what="skip", text="", epoch=2, step=3, time=0.0, facts={"reason": "the loss jumped"})
    assert "non-finite" not in found(dataclasses.replace(history(12), events=(spike,)))


def test_a_loss_that_is_not_a_number_is_found_in_records_alone() -> None:
    run = history(12, lambda epoch: {"losses": {"box": math.nan}} if epoch.epoch == 9 else {})
    assert found(run)["non-finite"].evidence["epochs"] == [9]


def test_a_gradient_norm_that_runs_away_is_found() -> None:
    run = found(history(20, lambda epoch: {"norm": 900.0} if epoch.epoch > 16 else {}))
    assert run["gradient-runaway"].evidence["usual"] == pytest.approx(14, rel=0.4)


def test_layers_whose_gradient_vanishes_or_explodes_are_named() -> None:
    def change(epoch: Epoch) -> dict[str, Any]:
        late = epoch.epoch > 16
        return {
            "layers": {
                **epoch.layers,
                "backbone.stage2": 1e-7 if late else 3.0,
                "neck.out4": 500.0 if late else 2.0,
                "head.dead": 0.0,
            }
        }

    run = found(history(20, change))
    assert set(run["gradient-vanished"].evidence["layers"]) == {"backbone.stage2", "head.dead"}
    assert set(run["gradient-grown"].evidence["layers"]) == {"neck.out4"}


def test_a_throughput_collapse_is_found_with_its_cause() -> None:
    def disk(epoch: Epoch) -> dict[str, Any]:
        return {"images_per_second": 90.0, "wait_share": 0.7} if epoch.epoch > 17 else {}

    def device(epoch: Epoch) -> dict[str, Any]:
        return {"images_per_second": 90.0} if epoch.epoch > 17 else {}

    run = found(history(20, disk))
    assert run["throughput-collapse"].flag == "--cache ram"
    assert "data-wait" not in run  # the run as a whole does not wait much
    assert "other programs" in found(history(20, device))["throughput-collapse"].remedy


def test_a_collapse_within_one_long_epoch_is_found_in_its_windows() -> None:
    speeds = [200.0] * 25 + [60.0] * 6
    windows = tuple(
        Window(epoch=2, step=i, done=i, steps=900, time=0.0, images_per_second=speed)
        for i, speed in enumerate(speeds)
    )
    assert "throughput-collapse" in found(dataclasses.replace(history(1), windows=windows))
    assert "throughput-collapse" not in found(dataclasses.replace(history(1), windows=windows[:28]))


def test_a_run_that_waits_for_data_is_told_the_knobs_that_are_left() -> None:
    def wait(epoch: Epoch) -> dict[str, Any]:
        return {"wait_share": 0.4}

    finding = found(history(5, wait, threads=2))["data-wait"]
    assert finding.flag == "--workers 8 --cache ram"
    assert finding.text == "data-bound: 40% of an epoch is spent waiting for images"
    assert "imgsz" in found(history(5, wait, cache="ram"))["data-wait"].remedy
    assert "data-wait" not in found(history(1, wait))  # the first epoch fills caches
    assert "data-wait" in found(history(1, wait, epochs=1))


def test_a_run_that_overfits_is_told_to_stop_sooner() -> None:
    def change(epoch: Epoch) -> dict[str, Any]:
        late = max(epoch.epoch - 15, 0)
        score = 0.4 - 0.003 * late
        return {
            "val_losses": {"box": 1.5 + 0.03 * late + max(15 - epoch.epoch, 0) / 10},
            "metrics": {"metrics/mAP50(B)": score + 0.12, "metrics/mAP50-95(B)": score},
        }

    finding = found(history(40, change))["overfit"]
    assert 13 <= finding.evidence["epoch"] <= 17
    assert finding.flag == "--patience 10 --mixup 0.1"
    assert "overfit" not in found(history(17, change))


def stays(epoch: Epoch) -> dict[str, Any]:
    return {
        "losses": {"box": 3.5, "cls": 4.0},
        "metrics": {"metrics/mAP50(B)": 0.002, "metrics/mAP50-95(B)": 0.001},
    }


def test_a_loss_that_is_stuck_is_blamed_on_the_rate_or_on_small_objects() -> None:
    assert found(history(12, stays))["stuck"].flag == "--lr0 0.001"
    assert found(history(12, stays, object_side=9.0))["stuck"].flag == "--imgsz 1280"
    assert "stuck" not in found(history(8, stays))


def test_a_loss_that_rises_in_warm_up_and_falls_since_is_not_stuck() -> None:
    def bump(epoch: Epoch) -> dict[str, Any]:
        return {**stays(epoch), "losses": {"box": {1: 9.4, 2: 7.8, 3: 14.0}.get(epoch.epoch, 10.0)}}

    assert history(12, bump).facts.warmup_epochs == 3
    assert "stuck" not in found(history(12, bump))


def test_a_loss_that_rises_in_warm_up_and_stays_is_stuck() -> None:
    def rise(epoch: Epoch) -> dict[str, Any]:
        return {**stays(epoch), "losses": {"box": 9.4 if epoch.epoch < 3 else 14.0}}

    assert "stuck" in found(history(12, rise))


def test_the_gap_between_ap50_and_ap_tells_loose_boxes_from_an_underfit() -> None:
    def scores(ap50: float, ap: float) -> Change:
        return lambda epoch: {"metrics": {"metrics/mAP50(B)": ap50, "metrics/mAP50-95(B)": ap}}

    assert found(history(20, scores(0.60, 0.35)))["loose-boxes"].flag == "--box 9.98"
    assert found(history(20, scores(0.12, 0.06)))["underfit"].flag == "--epochs 200"
    assert {"loose-boxes", "underfit", "tight-boxes"}.isdisjoint(found(history(20, scores(0.6, 0.42))))
    assert "tight-boxes" in found(history(20, scores(0.95, 0.90)))  # little is lost where boxes are right


def test_a_small_data_set_is_told_what_helps_and_is_not_in_force() -> None:
    finding = found(history(12, train_images=2000, mixup=0.15))["small-data-set"]
    assert finding.flag == "--lr0 0.005 --warmup-epochs 1 --mixup 0 --autoaugment randaugment"
    done = {"train_images": 2000, "lr0": 0.005, "warmup_epochs": 1.0, "autoaugment": "randaugment"}
    assert "small-data-set" not in found(history(12, **done))


def test_findings_come_by_expected_gain_and_good_news_last() -> None:
    run = history(45, lambda epoch: {"wait_share": 0.4, "rss": epoch.epoch * GIB}, train_images=2000)
    assert [finding.rule for finding in examine(run)] == [
        "leak-host", "data-wait", "small-data-set", "tight-boxes", "learning",
    ]  # fmt: skip
    gains = [finding.gain for finding in examine(run)]
    assert gains == sorted(gains, reverse=True)
