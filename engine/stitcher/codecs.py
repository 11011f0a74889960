"""How chunks are compressed: measured by ``benchmarks/mask_codecs.py``."""

from zarr.abc.codec import BytesBytesCodec
from zarr.codecs import BloscCodec, ZstdCodec


def label_codec(classes: int) -> BytesBytesCodec:
    """Return the codec of a mask.

    Two labels are one bit, whose chunks LZ4 makes as small as Zstandard does, in half of the time,
    where bits are shuffled; more labels it leaves almost three times as large.
    """
    if classes > 2:
        return ZstdCodec(level=1)
    return BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle")


def score_codec() -> BytesBytesCodec:
    """Return the codec of probabilities and logits: bits that change seldom side by side."""
    return BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle")
