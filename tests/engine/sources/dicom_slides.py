"""Small DICOM whole-slide images, written for tests."""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

TILE_PX = 64


def write_dicom_slide(
    folder: Path, levels: Sequence[NDArray[np.uint8]], mpp: float = 0.5, jpeg: bool = False
) -> list[Path]:
    """Write RGB levels ``(y, x, 3)``, the largest first, a file each.

    Args:
        folder: Where to; made if it is not there.
        levels: The pixels.
        mpp: Micrometers per pixel of the first.
        jpeg: Write JPEG tiles, instead of uncompressed ones.
    """
    from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
    from pydicom.encaps import encapsulate
    from pydicom.uid import (
        ExplicitVRLittleEndian,
        JPEGBaseline8Bit,
        VLWholeSlideMicroscopyImageStorage,
        generate_uid,
    )

    folder.mkdir(exist_ok=True)
    series = generate_uid()
    frame_of_reference = generate_uid()
    files = []
    for number, pixels in enumerate(levels):
        meta = FileMetaDataset()
        meta.TransferSyntaxUID = JPEGBaseline8Bit if jpeg else ExplicitVRLittleEndian
        meta.MediaStorageSOPClassUID = VLWholeSlideMicroscopyImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid()
        path = folder / f"level{number}.dcm"
        slide = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
        slide.SOPClassUID = meta.MediaStorageSOPClassUID
        slide.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
        slide.StudyInstanceUID = generate_uid(entropy_srcs=[series])
        slide.SeriesInstanceUID = series
        slide.FrameOfReferenceUID = frame_of_reference
        slide.Modality = "SM"
        kind = "DERIVED" if number else "ORIGINAL"
        slide.ImageType = [kind, "PRIMARY", "VOLUME", "RESAMPLED" if number else "NONE"]
        _describe(slide, pixels.shape, Dataset, mpp * levels[0].shape[0] / pixels.shape[0])
        tiles = list(tiles_of(pixels))
        slide.PixelData = b"".join(tile.tobytes() for tile in tiles)
        if jpeg:
            slide.PhotometricInterpretation = "YBR_FULL_422"
            slide.PixelData = encapsulate([jpeg_of(tile) for tile in tiles])
            slide["PixelData"].is_undefined_length = True
        slide.save_as(path, enforce_file_format=True)
        files.append(path)
    return files


def _describe(slide: Any, shape: tuple[int, ...], dataset: Any, mpp: float) -> None:
    height, width = shape[:2]
    slide.TotalPixelMatrixRows, slide.TotalPixelMatrixColumns = height, width
    slide.TotalPixelMatrixFocalPlanes = 1
    slide.Rows = slide.Columns = TILE_PX
    slide.NumberOfFrames = -(-height // TILE_PX) * -(-width // TILE_PX)
    slide.DimensionOrganizationType = "TILED_FULL"
    slide.SamplesPerPixel, slide.PhotometricInterpretation = 3, "RGB"
    slide.PlanarConfiguration = slide.PixelRepresentation = 0
    slide.BitsAllocated, slide.BitsStored, slide.HighBit = 8, 8, 7
    measures, shared = dataset(), dataset()
    measures.PixelSpacing = [mpp / 1000, mpp / 1000]
    shared.PixelMeasuresSequence = [measures]
    slide.SharedFunctionalGroupsSequence = [shared]
    slide.OpticalPathSequence = [dataset()]


def tiles_of(pixels: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    """Yield the tiles row by row, those at the ends filled up with 0."""
    height, width = pixels.shape[:2]
    below, beside = -height % TILE_PX, -width % TILE_PX
    padded = np.pad(pixels, ((0, below), (0, beside), (0, 0)))
    for y in range(0, height, TILE_PX):
        for x in range(0, width, TILE_PX):
            yield padded[y : y + TILE_PX, x : x + TILE_PX]


def jpeg_of(tile: NDArray[np.uint8]) -> bytes:
    """Return a tile as JPEG, its colours halved in width."""
    file = io.BytesIO()
    Image.fromarray(tile).save(file, "JPEG", quality=90, subsampling=1)
    return file.getvalue()
