"""A network that several images use, also at the same time."""

from threading import Lock
from weakref import WeakValueDictionary

from .base import Execution, Network, Recipe, Runner
from .wrapped import WrappedNetwork


class SharedNetwork(WrappedNetwork):
    """A network of which what is ready for one image is handed to the next that wants the same.

    That one takes no time and no memory of its own. Nothing is kept for longer than an image
    keeps it.
    """

    def __init__(self, network: Network) -> None:
        """Take a network; to close this one is to close it."""
        super().__init__(network)
        self._ready = WeakValueDictionary[tuple[Recipe, Execution], Runner]()
        self._lock = Lock()

    def prepare(self, recipe: Recipe, execution: Execution) -> Runner:
        """Return a runner, the one that is there if it is for the same; see ``Network``."""
        with self._lock:
            if execution.backend == "torch":  # to prepare it sets what all of Torch shares
                return self._network.prepare(recipe, execution)
            run = self._ready.get((recipe, execution))
            if run is None:
                run = self._network.prepare(recipe, execution)
                self._ready[recipe, execution] = run
            return run
