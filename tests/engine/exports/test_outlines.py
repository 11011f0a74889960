"""Regions and their outlines, against a flood fill and a scan-line filler."""

from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from zarr.storage import MemoryStore

from tile_infer.engine.exports import outlines
from tile_infer.engine.exports.outlines import Points, Region, trace
from tile_infer.engine.exports.rings import polygon, simple_rings, twice_area

from .finished_masks import Labels, filled, flooded

SIDES = st.integers(1, 14)
LABELS = arrays(
    np.uint8, st.tuples(SIDES, SIDES), elements=st.sampled_from([0, 1, 2, 255]), fill=st.nothing()
)

PICTURES = {
    "hole": ["#####", "#...#", "#.#.#", "#...#", "#####"],
    "nested rings": ["#######", "#.....#", "#.###.#", "#.#.#.#", "#.###.#", "#.....#", "#######"],
    "diagonal touch of two": ["##..", "##..", "..##", "..##"],
    "diagonal touch of one": ["###.", "#.#.", "##.#", "..##", "####"],
    "hole that touches the outside": ["####", "#.##", "##.#", "###."],
    "two holes that touch": ["#####", "#.###", "##.##", "#####"],
    "arms that meet below": ["#.#.#", "#.#.#", "###.#", "....#", "#####"],
    "chequered": ["#.#.#", ".#.#.", "#.#.#"],
    "one pixel": ["#"],
}


def stored(labels: Labels, chunks: tuple[int, int]) -> Any:
    array = zarr.create_array(
        MemoryStore(), shape=labels.shape, chunks=chunks, dtype=labels.dtype.name
    )
    array[:] = labels
    return array


def ring_of(points: Points) -> list[tuple[float, float]]:
    return [(x, y) for x, y in [*points.tolist(), points[0].tolist()]]


def check(labels: Labels, regions: list[Region]) -> None:
    """Compare regions with a flood fill; look at each ring."""
    found = []
    for region in regions:
        rings = polygon(region.rings)
        assert [twice_area(ring) > 0 for ring in rings] == [True] + [False] * (len(rings) - 1)
        for ring in rings:
            assert len(set(map(tuple, ring.tolist()))) == len(ring), "a ring that touches itself"
            upright = (np.roll(ring, -1, axis=0) - ring)[:, 0] == 0
            assert (upright != np.roll(upright, 1)).all(), "a corner on a straight line"
        shape = labels.shape[0], labels.shape[1]
        pixels = filled([ring_of(ring) for ring in rings], shape)
        assert (labels[pixels] == region.label).all()
        assert sum(map(twice_area, rings)) == 2 * pixels.sum(), "a ring wound the other way"
        found.append(pixels.tobytes())
    assert sorted(found) == sorted(region.tobytes() for region in flooded(labels))


@pytest.mark.parametrize("chunks", [(1, 1), (2, 3), (3, 2), (9, 9)])
@pytest.mark.parametrize("name", PICTURES)
def test_outlines_cross_chunk_borders(name: str, chunks: tuple[int, int]) -> None:
    labels = np.array([[pixel == "#" for pixel in row] for row in PICTURES[name]], np.uint8)
    for picture in (labels, labels.T, labels[::-1], labels[:, ::-1], 1 + labels):
        check(picture, list(trace(stored(picture, chunks), (0, 255))))


@settings(deadline=None)
@given(
    LABELS,
    st.tuples(st.integers(1, 15), st.integers(1, 15)),
    st.tuples(st.integers(1, 100), st.integers(1, 100), st.integers(1, 100)),
)
def test_any_labels_in_any_chunks_and_bands(
    labels: NDArray[np.uint8], chunks: tuple[int, int], sizes: tuple[int, int, int]
) -> None:
    strip_px, piece_px, band_corners = sizes
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outlines, "PIECE_PX", piece_px)
        patch.setattr(outlines, "BAND_CORNERS", band_corners)
        check(labels, list(trace(stored(labels, chunks), (0, 255), strip_px)))


def test_a_wrong_outline_is_noticed() -> None:
    labels = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]], np.uint8)
    (region,) = trace(stored(labels, (3, 3)), (0, 255))
    without_hole = Region(1, [ring for ring in region.rings if twice_area(ring) > 0])
    with pytest.raises(AssertionError):
        check(labels, [without_hole])
    with pytest.raises(AssertionError):
        check(labels, [Region(1, [ring[::-1] for ring in region.rings])])


def test_an_outline_that_passes_a_point_twice_is_cut_there() -> None:
    labels = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 0]], np.uint8)
    (region,) = trace(stored(labels, (3, 3)), (0,))
    (outline,) = region.rings
    assert outline.tolist().count([2, 2]) == 2
    assert sorted(twice_area(ring) for ring in simple_rings(outline)) == [-2, 16]


def test_a_region_is_given_when_its_last_row_is_passed() -> None:
    labels = np.zeros((60, 8), np.uint8)
    labels[2::10, :4] = 1
    labels[:, 6] = 2
    array = stored(labels, (5, 8))
    assert [region.label for region in trace(array, (0,))] == [1] * 6 + [2]


def test_no_more_than_a_chunk_row_is_read_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.zeros((400, 8), np.uint8)
    labels[::2] = 1
    bands: list[int] = []
    given_back: list[int] = []
    advance = outlines._advance

    def counted(open_regions: Any, corners: Any, height: int) -> list[Region]:
        bands.append(len(corners.x))
        regions = advance(open_regions, corners, height)
        given_back.append(sum(not region.chains for region in regions))
        return regions

    monkeypatch.setattr(outlines, "_advance", counted)
    assert len(list(trace(stored(labels, (20, 4)), (0,)))) == 200
    assert len(bands) == 20
    assert max(bands) == 40, "four corners for each of ten regions"
    assert min(given_back) >= 9
    bands.clear()
    assert len(list(trace(stored(labels, (20, 4)), (0,), strip_px=40))) == 200
    assert len(bands) == 80
    assert max(bands) <= 12


def test_a_band_has_no_more_corners_than_allowed_unless_one_row_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bands: list[tuple[int, int]] = []
    advance = outlines._advance

    def counted(open_regions: Any, corners: Any, height: int) -> list[Region]:
        bands.append((len(corners.x), len(set(corners.y.tolist()))))
        return advance(open_regions, corners, height)

    labels = np.random.default_rng(0).integers(0, 3, (90, 40)).astype(np.uint8)
    array = stored(labels, (90, 40))
    monkeypatch.setattr(outlines, "_advance", counted)
    whole = list(trace(array, (0,)))
    ((corners, rows),) = bands
    assert rows == 91
    monkeypatch.setattr(outlines, "BAND_CORNERS", 500)
    bands.clear()
    assert len(list(trace(array, (0,)))) == len(whole)
    assert sum(count for count, _ in bands) == corners
    assert max(count for count, _ in bands) <= 500
    assert len(bands) <= 2 * corners / 500
    monkeypatch.setattr(outlines, "BAND_CORNERS", 50)
    bands.clear()
    assert len(list(trace(array, (0,)))) == len(whole)
    assert {rows for _, rows in bands} == {1}
