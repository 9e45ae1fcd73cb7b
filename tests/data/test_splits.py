"""From a split of a data file to its index: what is said when there is none."""

from __future__ import annotations

from pathlib import Path

import pytest
import sets

from holdfast.data.dataset_file import read_dataset_file
from holdfast.data.shapes import write_demo
from holdfast.data.splits import split_index
from holdfast.errors import DataError, SettingsError
from holdfast.geometry.targets import Needs


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("val: images/vall", r"val: 'images/vall' does not exist.*Did you mean '.*images/val'"),
        ("val:", r"has no 'val' entry \(it has train\)"),
    ],
)
def test_a_split_that_cannot_be_found_is_told_as_the_data_file_knows_it(
    tmp_path: Path, entry: str, message: str
) -> None:
    data = sets.make(tmp_path, {"train": 2, "val": 2}, sets.YAML.replace("val: images/val", entry))
    dataset = read_dataset_file(data)
    assert len(split_index(dataset, "train", single_cls=False, workers=0)) == 2
    with pytest.raises(DataError, match=message):
        split_index(dataset, "val", single_cls=False, workers=0)


def test_boxes_are_not_counted_where_there_are_none(tmp_path: Path) -> None:
    whole = Needs(whole=True)
    dataset = read_dataset_file(write_demo(tmp_path, images=10, needs=whole))
    with pytest.raises(SettingsError, match="min_items counts boxes"):
        split_index(dataset, "train", needs=whole, single_cls=False, min_items=1, workers=0)
