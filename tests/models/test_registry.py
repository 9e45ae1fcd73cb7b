"""Names in every spelling lead to the published model; faults are one sentence with the nearest name."""

from __future__ import annotations

import copy

import pytest
import torch

from holdfast import models
from holdfast.errors import SettingsError, WeightsError


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("yolov9-s", "yolov9-s"),
        ("yolov9s", "yolov9-s"),
        ("yolov9-s.yaml", "yolov9-s"),
        ("models/detect/yolov9-s.yaml", "yolov9-s"),
        ("models\\detect\\gelan-c.YML", "gelan-c"),
        ("GELAN_E", "gelan-e"),
        ("yolo26n", "yolo26n"),
        ("yolo26-x.yaml", "yolo26x"),
        ("ultralytics/cfg/models/26/yolo26.yaml", "yolo26n"),
        ("YOLO26", "yolo26n"),
        ("yolo26s-seg.yaml", "yolo26s-seg"),
        ("yolo26-pose.yaml", "yolo26n-pose"),
        ("yolo26xobb", "yolo26x-obb"),
        ("YOLO26-cls", "yolo26n-cls"),
    ],
)
def test_spellings(spelling: str, name: str) -> None:
    assert models.resolve(spelling) == name


def test_all_models_are_listed() -> None:
    nine = [f"{f}-{s}" for f in ("yolov9", "gelan") for s in "tsmce"]
    tasks = ("", "-seg", "-pose", "-obb", "-cls")
    assert models.available() == (*nine, *(f"yolo26{s}{task}" for task in tasks for s in "nsmlx"))


def test_faults_say_what_to_type() -> None:
    with pytest.raises(SettingsError, match=r"no model 'yolov9-ss'\. Did you mean 'yolov9-s'\?.*gelan-e"):
        models.build("yolov9-ss")
    with pytest.raises(SettingsError, match="classes=0"):
        models.build("gelan-t", 0)
    with pytest.raises(SettingsError, match=r"0\.\.2"):
        models.build("gelan-t", 3, names={0: "a", 1: "b"})
    with pytest.raises(WeightsError, match="classes"):
        models.from_header({"name": "gelan-t"})


def test_header_rebuilds_the_same_form() -> None:
    with torch.device("meta"):
        for model in (
            models.build("yolov9-t", 2, names={0: "a", 1: "b"}),
            models.build("gelan-m", 2),
            models.build("yolov9-c", 2),  # its auxiliary class towers have another width than the main ones
            models.build("yolov9-t", 3, class_width=80, box_groups=1),
            models.build("yolo26n", 2),
            models.build("yolo26m", 3, class_width=80),
        ):
            forms = [model, model.deploy()]
            if model.name.startswith("yolo26"):
                forms.append(model.deploy(nms=True))
            for form in forms:
                again = models.from_header(form.header)
                assert again.header == form.header
                shapes = [{k: v.shape for k, v in m.state_dict().items()} for m in (form, again)]
                assert shapes[0] == shapes[1]


def test_deploy_draws_nothing_and_shares_nothing() -> None:
    model = models.build("yolov9-t", 2)
    state = torch.get_rng_state()
    deployed = model.deploy()
    assert torch.equal(torch.get_rng_state(), state)
    assert model.auxiliary is not None
    own = {p.data_ptr() for p in model.parameters()}
    assert not any(p.data_ptr() in own or p.requires_grad for p in deployed.parameters())


def test_start_of_head_biases() -> None:
    head = models.build("gelan-t").head
    assert all(tower[-1].bias.eq(1).all() for tower in head.box)
    # ln(5 / 80 / (640 / stride)^2) for strides 8, 16, 32
    starts = [tower[-1].bias[0].item() for tower in head.cls]
    assert starts == pytest.approx([-11.5366, -10.1503, -8.7641], abs=1e-4)


def test_copies_are_independent_and_answer_alike() -> None:
    model = models.build("gelan-t", 2).eval()
    twin = copy.deepcopy(model)
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(model(x).main.boxes[0], twin(x).main.boxes[0])
        twin.backbone.stem1.conv.weight.zero_()
    assert model.backbone.stem1.conv.weight.any()
