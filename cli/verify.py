"""`tile-infer verify`: compute parts of a mask again."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ..engine.certificate import doubt
from ..engine.url import located
from ..engine.verify import verify as verify_mask
from ..tiler.errors import SettingError
from .failure import FAILED
from .summary import certificate_text, columns
from .terminal import Terminal


def verify(
    mask: str,
    /,
    *,
    image: Annotated[str | None, Parameter(metavar="FILE")] = None,
    model: Annotated[Path | None, Parameter(metavar="FILE")] = None,
    fraction: Annotated[float, Parameter(metavar="X")] = 0.01,
    seed: Annotated[int | None, Parameter(metavar="N")] = None,
    trust_model: bool = False,
    json: bool = False,
    terminal: Annotated[Terminal, Parameter(parse=False)],
) -> int:
    """Compute parts of a mask again in other tiles, drawn at random, and compare them.

    What comes of it is kept in the mask's attributes. The exit code is 1 where labels differ that
    should not.

    Args:
        mask: The mask, a Zarr that this program wrote, in a folder or at s3:// or gs://.
        image: What it was made of [default: the file of that name beside the mask].
        model: The network [default: the file of that name beside the mask].
        fraction: How much of the mask, up to 1; one tile at least [default: 0.01].
        seed: Another number draws other places [default: those of the run].
        trust_model: Open a network file that can run code: TorchScript and torch.export.
        json: Print JSON.
        terminal: Where to print.
    """
    if not 0 < fraction <= 1:
        raise SettingError(f"fraction={fraction:g} is not a share; use more than 0, up to 1")
    plan, certificate = verify_mask(
        mask, image, model, share=fraction, seed=seed, trust_model=trust_model
    )
    if certificate is None:
        terminal.warning(f"{plan.network.name} allows no other tiles: there is nothing to compare")
        return FAILED
    found = certificate.to_dict()
    if json:
        terminal.json(found)
    else:
        terminal.print(str(located(mask)))
        for line in columns([("verified", certificate_text(found))]):
            terminal.print(line)
    wrong = doubt(certificate, plan)
    if wrong:
        terminal.warning(wrong)
    return FAILED if wrong else 0
