"""A Zarr store at a URL, whose failures are told as those of files are."""

import builtins
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from typing import Any, ParamSpec, Self, TypeVar

from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import ObjectStore

from .remote import attempts, open_remote, told
from .url import Url

P = ParamSpec("P")
Answer = TypeVar("Answer")


class UrlStore(ObjectStore[Any]):
    """Objects below a URL, as zarr reads and writes them."""

    def __init__(self, url: Url, *, read_only: bool = False, store: Any = None) -> None:
        """Open a store; no request is made.

        Args:
            url: What holds its objects.
            read_only: Whether to refuse to write.
            store: obstore's store there, where it is open already.

        Raises:
            MissingExtraError: obstore is not installed.
            SettingError: obstore refuses the URL.
        """
        super().__init__(open_remote(url) if store is None else store, read_only=read_only)
        self.url = url

    def with_read_only(self, read_only: bool = False) -> Self:
        """Return the same store, to be read or written."""
        return type(self)(self.url, read_only=read_only, store=self.store)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, UrlStore) and (self.url, self.read_only) == (
            other.url,
            other.read_only,
        )

    def __str__(self) -> str:
        return str(self.url)

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Return an object or a part of it; ``None`` where there is none."""
        return await self._answer(key, super().get, key, prototype, byte_range)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> builtins.list[Buffer | None]:
        """Return parts of objects."""
        wanted = builtins.list(key_ranges)
        return await self._answer("", super().get_partial_values, prototype, wanted)

    async def exists(self, key: str) -> bool:
        """Say whether there is an object."""
        return await self._answer(key, super().exists, key)

    async def set(self, key: str, value: Buffer) -> None:
        """Write an object."""
        await self._answer(key, super().set, key, value)

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        """Write an object unless one is there.

        Where an answer is lost, the one that is there may be ours: who wants to know, reads it.
        """
        await self._answer(key, super().set_if_not_exists, key, value)

    async def delete(self, key: str) -> None:
        """Delete an object, if it is there."""
        await self._answer(key, super().delete, key)

    async def delete_dir(self, prefix: str) -> None:
        """Delete all objects below a prefix."""
        await self._answer(prefix, super().delete_dir, prefix)

    def list(self) -> AsyncGenerator[str, None]:
        """Yield the keys of all objects."""
        return self.list_prefix("")

    async def list_prefix(self, prefix: str) -> AsyncGenerator[str, None]:
        """Yield the keys of all objects below a prefix; a listing that breaks off is continued."""
        import obstore

        last = None
        for attempt in attempts():
            with attempt, told(self.url, prefix):
                async for some in obstore.list(self.store, prefix or None, offset=last):
                    for each in some:
                        last = each["path"]
                        yield last
                return

    async def list_dir(self, prefix: str) -> AsyncGenerator[str, None]:
        """Yield the names of what lies right below a prefix."""
        listing = super().list_dir

        async def names() -> builtins.list[str]:
            return [name async for name in listing(prefix)]

        for name in await self._answer(prefix, names):
            yield name

    async def _answer(
        self, where: str, ask: Callable[P, Awaitable[Answer]], *args: P.args, **kwargs: P.kwargs
    ) -> Answer:
        """Return what a request gives."""
        for attempt in attempts():
            with attempt, told(self.url, where):
                return await ask(*args, **kwargs)
        raise AssertionError("the last attempt raises")
