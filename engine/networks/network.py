"""What training, pruning and export ask of every network here."""

from torch import Tensor, nn

from ...tiler.errors import SettingError


class SegmentationNetwork(nn.Module):
    """A network from images ``(batch, channel, y, x)`` to logits ``(batch, class, y, x)``.

    :meth:`forward` always returns one tensor of logits, in training as in use; a network with deep
    supervision returns those of all its heads from :meth:`heads`, for the loss.
    """

    def __init__(self, in_channels: int, classes: int) -> None:
        """Check what every network has.

        Args:
            in_channels: Channels of the image.
            classes: Channels of the logits.

        Raises:
            SettingError: One of them is below 1.
        """
        super().__init__()
        if min(in_channels, classes) < 1:
            raise SettingError(
                f"a network needs in_channels and classes >= 1; got {in_channels} and {classes}"
            )
        self.in_channels = in_channels
        self.classes = classes

    @property
    def period(self) -> int:
        """Smallest shift in pixels under which the network is equivariant."""
        raise NotImplementedError

    @property
    def margin(self) -> int:
        """Pixels lost per side; 0 for zero-padded convolutions."""
        raise NotImplementedError

    @property
    def smallest(self) -> int:
        """Smallest valid input in pixels; all others are whole periods larger."""
        raise NotImplementedError

    def takes(self, size: int) -> bool:
        """Say whether every pooling meets an even size and something is left at the end."""
        return size >= self.smallest and (size - self.smallest) % self.period == 0

    def heads(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return the logits of every head, the deepest last; one without deep supervision."""
        return (self(image),)

    def pruned(self, level: int) -> "SegmentationNetwork":
        """Return the smaller network of one of several heads.

        Raises:
            SettingError: There is no such head.
        """
        raise SettingError(
            f"prune=L{level} is not possible: {type(self).__name__} has one head; "
            "use unetpp, unetp or unete"
        )
