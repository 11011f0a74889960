"""Places beyond this machine's files: objects of a store and files of a server, by their URL."""

import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TypeAlias

from ..tiler.errors import SettingError

_STORES, _SERVERS = ("s3", "gs"), ("http", "https")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
_URL = re.compile(
    _SCHEME.pattern + r"(?:([^/?#]*)@)?([^?#]*)(?:\?([^#]*))?(#.*)?",  # login, place, query
    re.DOTALL,
)
_SWALLOWED = re.compile(rf"({'|'.join(_STORES + _SERVERS)}):[/\\]", re.IGNORECASE)
"""How a path shows a URL that it was made of."""


@dataclass(frozen=True, slots=True)
class Url:
    """A URL, with what is asked of a path and needs no request.

    Its secrets are in no text that is made of it.

    >>> url = Url.of("https://me:word@host/slides/a.ome.tif?signature=12")
    >>> url.name, url.stem, str(url.with_name("b.zarr"))
    ('a.ome.tif', 'a.ome', 'https://host/slides/b.zarr')
    """

    scheme: str
    """What comes before the colon."""
    place: str
    """Host or bucket, and what is inside; no slash at the end."""
    login: str = field(default="", repr=False, compare=False)
    """``user:password`` for a server."""
    query: str = field(default="", repr=False, compare=False)
    """What comes after the question mark, such as a signature; likewise."""

    @classmethod
    def of(cls, text: str) -> "Url":
        """Take a URL apart.

        Raises:
            SettingError: It is none, of another kind, or one of a store with more than a place.
        """
        found = _URL.fullmatch(text)
        assert found is not None, "whoever asks has seen a scheme"
        scheme, login, place, query, fragment = (each or "" for each in found.groups())
        url = cls(scheme.lower(), place.rstrip("/"), login, query)
        if url.scheme not in _STORES + _SERVERS or not url.place:
            raise SettingError(
                f"{url} is of no known kind; use s3://BUCKET/…, gs://, http(s):// or a path"
            )
        if fragment or (url.scheme in _STORES and (login or query)):
            raise SettingError(
                f"{url} was given with more than a place; give it without @, ? and #, and keys in "
                "the environment"
            )
        if url.scheme in _STORES and {"", ".", ".."} & {*url.place.split("/")}:
            raise SettingError(f"{url} has a part that is empty, . or ..; give it without")
        return url

    def __str__(self) -> str:
        return f"{self.scheme}://{self.place}"

    def __truediv__(self, name: str) -> "Url":
        return replace(self, place=f"{self.place}/{name}")

    @property
    def is_read_only(self) -> bool:
        """Whether nothing can be written there."""
        return self.scheme in _SERVERS

    @property
    def name(self) -> str:
        """The last part; empty for a bucket or host."""
        return self.place.partition("/")[2].rpartition("/")[2]

    @property
    def stem(self) -> str:
        """The name without its ending."""
        return PurePosixPath(self.name).stem

    @property
    def suffix(self) -> str:
        """The ending of the name, with its dot."""
        return PurePosixPath(self.name).suffix

    @property
    def parent(self) -> "Url":
        """What it lies in."""
        return replace(self, place=self.place.rpartition("/")[0]) if self.name else self

    def with_name(self, name: str) -> "Url":
        """Return another place beside this one."""
        return self.parent / name

    def holds(self, other: "Url") -> bool:
        """Say whether another URL is this one or lies inside it."""
        return f"{other}/".startswith(f"{self}/")


Location: TypeAlias = Path | Url


def located(place: str | os.PathLike[str] | Url) -> Location:
    """Return a place as a URL where it is one, and as a path otherwise.

    Raises:
        SettingError: It is a URL that cannot be used, or one that became a path and lost a slash.

    >>> located("s3://bucket/a.zarr"), located("a.zarr").name
    (Url(scheme='s3', place='bucket/a.zarr'), 'a.zarr')
    """
    if isinstance(place, Url):
        return place
    if isinstance(place, str) and _SCHEME.match(place):
        return Url.of(place)
    path = Path(place)
    swallowed = _SWALLOWED.match(str(path))
    if swallowed:  # it may hold a password
        raise SettingError(f"a URL ({swallowed[1]}://…) became a path; give it as text")
    return path


def is_url(place: str | os.PathLike[str]) -> bool:
    """Say whether a place is a URL, or a path that was made of one.

    >>> is_url("s3://bucket/net.onnx"), is_url(Path("https://host/net.onnx")), is_url("net.onnx")
    (True, True, False)
    """
    return any(kind.match(str(place)) for kind in (_SCHEME, _SWALLOWED))
