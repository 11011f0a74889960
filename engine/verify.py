"""Verify a mask that was made before, from what it says of itself."""

import os
from collections.abc import Iterable
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from zarr.abc.store import Store
from zarr.storage import LocalStore

from ..tiler.errors import OutputError, SettingError, failing_as
from .backends import open_network
from .certificate import Certificate, certify
from .conduct import Conduct
from .differences import differences
from .plan import Plan
from .sources import open_source
from .stitcher.lock import one_writer
from .stitcher.mask import Mask
from .stitcher.store import open_store, place, stored_plan
from .url import Url

_MODELS = (".onnx", ".pt", ".pth", ".pt2", ".ts", ".torchscript", ".zip")


def verify(
    mask: str | os.PathLike[str] | Url,
    image: Any = None,
    model: Any = None,
    *,
    share: float,
    seed: int | None = None,
    trust_model: bool = False,
) -> tuple[Plan, Certificate | None]:
    """Compute parts of a finished mask again in other tiles; keep what comes of it in the mask.

    Args:
        mask: Folder or URL of the mask.
        image: The image it was made of; by default the file of its name beside the mask, of one in
            a folder. A mask holds names and hashes, and no path.
        model: The network, likewise.
        share: How much of the mask, 0 to 1; one tile at least.
        seed: What places are drawn by; by default those of the run itself.
        trust_model: Whether a file may be opened that can run code.

    Returns:
        How the mask was made, and what came of it; ``None`` where the network takes no other tiles.

    Raises:
        OutputError: There is no finished mask, or it was made of another image or by another
            network.
        SettingError: Image or network are not beside the mask.
        TileInferError: One of them fails.
    """
    store = open_store(mask)
    stored = stored_plan(store)
    if stored is None:
        raise OutputError(f"{place(store)} holds no mask; check the path")
    plan = Plan.from_dict(stored)
    if image is None:
        image = _beside(store, "image", [plan.image.name])
    if model is None:
        model = _beside(store, "model", [plan.network.name + suffix for suffix in _MODELS])
    settings = replace(plan.settings, trust_model=trust_model or None)
    with ExitStack() as opened:
        source = opened.enter_context(closing(open_source(image, **settings.of_image())))
        network = opened.enter_context(closing(open_network(model, **settings.of_network())))
        opened.enter_context(one_writer(store))
        different = differences(plan, source, network, settings)
        if different:
            raise OutputError(f"{place(store)} was made of something else: {'; '.join(different)}")
        with failing_as(OutputError, "opening", place(store)):
            made = Mask(store, plan)
            finished = made.finished
        if not finished:
            raise OutputError(
                f"{place(store)} is unfinished; the command that began it continues it"
            )
        conduct = Conduct(verify=share, on_read_error="fill", on_nan="report")
        certificate = certify(plan, source, network, made, conduct, seed)
        with failing_as(OutputError, "writing the certificate to", place(store)):
            made.certify(certificate.to_dict() if certificate else None)
    return plan, certificate


def _beside(store: Store, what: str, names: Iterable[str]) -> Path:
    """Return the one file of these names beside a mask: names are what it says, and no paths."""
    if not isinstance(store, LocalStore):
        raise SettingError(f"{place(store)} is in no folder; say of what it is with {what}=PLACE")
    folder = Path(store.root).absolute().parent
    paths = [folder / name for name in names if Path(name).name == name]
    found = [path for path in paths if path.exists()]
    if len(found) != 1:
        raise SettingError(
            f"{len(found) or 'no'} files beside the mask have the name of its {what}; say which it "
            f"is with {what}=PATH"
        )
    return found[0]
