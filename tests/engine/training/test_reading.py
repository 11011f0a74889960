from collections.abc import Sequence
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from tile_infer.engine.training.pairs import pairs_of
from tile_infer.engine.training.reading import (
    Raw,
    held_out,
    kind_of,
    labelled,
    metadata_of,
    read_pairs,
    set_constants,
)
from tile_infer.tiler.errors import ImageError, SettingError

GREY: NDArray[np.uint8] = np.arange(20, dtype=np.uint8).reshape(4, 5)


def write(folder: Path, *names: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        if name.endswith(".png"):
            (folder / name).write_bytes(imagecodecs.png_encode(GREY))
        else:
            tifffile.imwrite(folder / name, GREY)
    return folder


def named(pairs: Sequence[tuple[Path, Path]]) -> list[tuple[str, str]]:
    return [(image.name, labels.name) for image, labels in pairs]


def test_files_are_paired_by_name_in_natural_order(tmp_path: Path) -> None:
    images = write(tmp_path / "i", "10.tif", "2.tif", ".hidden.tif")
    labels = write(tmp_path / "l", "2.png", "10.png")
    pairs, how = pairs_of(str(images), str(labels))
    assert named(pairs) == [("2.tif", "2.png"), ("10.tif", "10.png")]
    assert how == "paired by name"


def test_a_pattern_chooses_files(tmp_path: Path) -> None:
    folder = write(tmp_path / "i", "1.tif", "2.tif", "1.png", "2.png")
    pairs, _ = pairs_of(f"{folder}/*.tif", f"{folder}/*.png")
    assert named(pairs) == [("1.tif", "1.png"), ("2.tif", "2.png")]


def test_files_of_other_names_are_paired_in_order_and_it_is_said(tmp_path: Path) -> None:
    images = write(tmp_path / "i", "a9.tif", "a10.tif")
    labels = write(tmp_path / "l", "mask10.tif", "mask9.tif")
    pairs, how = pairs_of(str(images), str(labels))
    assert named(pairs) == [("a9.tif", "mask9.tif"), ("a10.tif", "mask10.tif")]
    assert "in order of names, a9.tif with mask9.tif first" in how


def test_names_may_have_dots(tmp_path: Path) -> None:
    images = write(tmp_path / "i", "a.1.tif", "a.2.ome.tif")
    labels = write(tmp_path / "l", "a.1.png", "a.2.png")
    pairs, how = pairs_of(str(images), str(labels))
    assert named(pairs) == [("a.1.tif", "a.1.png"), ("a.2.ome.tif", "a.2.png")]
    assert how == "paired by name"
    with pytest.raises(ImageError, match=r"no labels for .*a\.1\.tif"):
        pairs_of(str(images), str(write(tmp_path / "other", "a.2.png", "a.3.png")))
    longer = write(tmp_path / "longer", "b.labels.png", "c.labels.png")
    pairs, how = pairs_of(str(write(tmp_path / "short", "c.tif", "b.tif")), str(longer))
    assert named(pairs) == [("b.tif", "b.labels.png"), ("c.tif", "c.labels.png")]
    assert how == "paired by name"


def test_what_lies_among_the_images_is_named(tmp_path: Path) -> None:
    images = write(tmp_path / "i", "1.tif", "2.tif", "2.net.png", "notes.txt", "2.net.zip", "3.x")
    with pytest.raises(ImageError, match=r"no labels for .*2\.net\.png, .* and 1 more; add labels"):
        pairs_of(str(images), str(write(tmp_path / "l", "1.png", "2.png")))


def test_what_does_not_pair_off_is_refused(tmp_path: Path) -> None:
    images = write(tmp_path / "i", "1.tif", "2.tif")
    with pytest.raises(ImageError, match=r"no labels for .*2\.tif"):
        pairs_of(str(images), str(write(tmp_path / "one", "1.png")))
    with pytest.raises(ImageError, match=r"2 images and .* 1 label images"):
        pairs_of(str(images), str(write(tmp_path / "other", "x.png")))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageError, match="holds no file"):
        pairs_of(str(tmp_path / "empty"), str(images))
    with pytest.raises(ImageError, match="holds no file"):
        pairs_of(str(images), f"{tmp_path}/*.gif")


def test_alpha_is_left_out_and_channels_must_agree(tmp_path: Path) -> None:
    colours: NDArray[np.uint8] = np.arange(80, dtype=np.uint8).reshape(4, 5, 4)
    folder = write(tmp_path / "i")
    (folder / "1.png").write_bytes(imagecodecs.png_encode(colours))
    labels = write(tmp_path / "l", "1.png")
    raw = read_pairs(pairs_of(str(folder), str(labels))[0])
    assert np.array_equal(raw.pixels[0], colours[..., :3])
    assert np.array_equal(raw.labels[0], GREY)
    write(folder, "2.png")
    write(labels, "2.png")
    with pytest.raises(ImageError, match=r"1\.png has 3 and .*2\.png 1"):
        read_pairs(pairs_of(str(folder), str(labels))[0])


def test_pixels_without_a_number_and_labels_that_are_none_are_refused(tmp_path: Path) -> None:
    images, labels = write(tmp_path / "i", "1.tif"), write(tmp_path / "l", "1.tif")
    for wrong in (np.nan, np.inf):
        pixels = GREY.astype(np.float32)
        pixels[1, 2] = wrong
        tifffile.imwrite(images / "1.tif", pixels)
        with pytest.raises(ImageError, match=r"i.1\.tif has NaN or infinity"):
            read_pairs(pairs_of(str(images), str(labels))[0])
    tifffile.imwrite(images / "1.tif", GREY.astype(np.float32))
    assert len(read_pairs(pairs_of(str(images), str(labels))[0]).pixels) == 1
    tifffile.imwrite(labels / "1.tif", GREY.astype(np.float32))
    with pytest.raises(ImageError, match=r"whole numbers; .*l.1\.tif holds float32"):
        read_pairs(pairs_of(str(images), str(labels))[0])


def raw_of(*labels: list[int]) -> Raw:
    rows = [np.array([each], np.uint16) for each in labels]
    return Raw(
        [f"{number}.tif" for number in range(len(rows))],
        [row[..., None].astype(np.uint8) for row in rows],
        list(rows),
    )


def test_two_values_are_taken_for_binary_and_more_must_be_told() -> None:
    assert kind_of(raw_of([0, 255], [0, 0], [255, 255]).labels) == "binary"
    with pytest.raises(SettingError, match="up to 2, which may be classes"):
        kind_of(raw_of([0, 1], [0, 2]).labels)
    with pytest.raises(SettingError, match=r"up to 7, .* label_kind=class or label_kind=instance"):
        kind_of(raw_of([0, 1], [0, 2, 7]).labels)


def test_constants_of_the_set_are_mean_and_deviation_of_all_pixels() -> None:
    raw = raw_of([0, 51], [255, 102, 0])
    values = np.array([0, 51, 255, 102, 0]) / 255
    (mean,), (deviation,) = set_constants(raw)
    assert mean == pytest.approx(values.mean(), rel=1e-6)
    assert deviation == pytest.approx(values.std(), rel=1e-6)
    every = [
        (image.pixels[..., 0] - image.offset[0]) * image.scale[0]
        for image in labelled(raw, "binary", metadata_of(raw, "dataset"))
    ]
    joined = np.concatenate(every, axis=1)
    assert joined.mean() == pytest.approx(0, abs=1e-5)
    assert joined.std() == pytest.approx(1, rel=1e-5)
    assert metadata_of(raw, "dataset") == {"mean": (mean,), "std": (deviation,)}


def test_other_modes_are_the_engines() -> None:
    raw = raw_of([0, 51], [255, 102, 0])
    unit = labelled(raw, "binary", {"normalize": "unit"})
    assert [image.scale for image in unit] == [(1 / 255,)] * 2
    own = labelled(raw, "binary", {"normalize": "zscore"})
    assert [image.offset for image in own] == [(25.5,), (119,)]
    assert metadata_of(raw, "zscore") == {"normalize": "zscore"}


def test_what_is_measured_on_is_not_learnt_from() -> None:
    images = labelled(
        raw_of(*[[number, 0] for number in range(1, 11)]), "binary", {"normalize": "unit"}
    )
    learn, measure = held_out(images, 0.2, seed=0)
    assert (len(learn), len(measure)) == (8, 2)
    assert {image.name for image in learn + measure} == {image.name for image in images}
    chosen = {
        tuple(image.name for image in held_out(images, 0.2, seed=seed)[1]) for seed in range(9)
    }
    assert len(chosen) > 3
    assert [len(part) for part in held_out(images[:1], 0.5, 0)] == [1, 0]
    assert [len(part) for part in held_out(images[:2], 0.01, 0)] == [1, 1]
    assert [len(part) for part in held_out(images[:2], 0.99, 0)] == [1, 1]
    assert [len(part) for part in held_out(images, 0, 0)] == [10, 0]
    with pytest.raises(SettingError, match="validation=1"):
        held_out(images, 1, 0)
