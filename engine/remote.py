"""Requests to object stores and servers: how long one may take, and what is told where it fails."""

import base64
import errno
import os
import re
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from typing import Any
from urllib.parse import unquote_to_bytes

from ..tiler.errors import MissingExtraError, SettingError, TileInferError, first_line
from .url import Url

REQUEST_SECONDS = 60.0
"""For one request, its answer included."""

CONNECT_SECONDS = 10.0

RETRIES = 8
"""How often a request is made again that fails for reasons of the server or the network."""

RETRY_SECONDS = 180.0
"""From the first of these on; then the run ends, and continues where it stopped."""

FIRST_PAUSE_SECONDS = 0.2
"""Before a request is made again; it doubles, up to ten seconds."""

_SECRETS = re.compile(r"(?<=://)[^/\s]*@|\?[^\s)\"']*")
"""User, password and query in what a library says of a URL."""

_NO_KEYS = re.compile(r"/latest/(api|meta-data)|computeMetadata")
"""Asked of the machine's own provider, where the environment holds no keys."""

_RETRIED = re.compile(r"after (\d+) retries")

_REFUSED = re.compile(r"status code: (4(?!08|09|25|29)\d\d [\w ]+)|(Received redirect[\w ]*)")
"""Answers that another request would have again; of the others, 409 and 429 ask for one."""


class RequestError(TileInferError, OSError):
    """A request that failed, which tells nothing of what was asked for.

    Its ``errno`` is ``EACCES`` where the server refuses for want of keys, ``EINVAL`` where it does
    for another reason, ``ENOTSUP`` where it sends no parts of files, ``EAGAIN`` where it did not
    answer once, and ``EIO`` where it did not again and again.
    """

    def __str__(self) -> str:
        return self.strerror or super().__str__()


def open_remote(url: Url) -> Any:
    """Return obstore's store of what lies below a URL; no request is made.

    Keys and the address of the service come from the environment: ``AWS_ACCESS_KEY_ID``,
    ``AWS_ENDPOINT_URL``, ``GOOGLE_APPLICATION_CREDENTIALS`` and others that obstore names.

    Raises:
        MissingExtraError: obstore is not installed.
        SettingError: It does not take the URL, or what the environment says.
    """
    try:
        from obstore.store import GCSStore, HTTPStore, S3Store
    except ImportError as error:
        raise MissingExtraError(
            f"{url} needs obstore: pip install 'tile-infer[cloud]' or pip install obstore"
        ) from error
    stores: dict[str, Any] = {"s3": S3Store, "gs": GCSStore}
    client: Any = {
        "timeout": timedelta(seconds=REQUEST_SECONDS),
        "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
    }
    service = os.environ.get("AWS_ENDPOINT_URL", "") if url.scheme == "s3" else str(url)
    if service.startswith("http://"):
        client["allow_http"] = True
    if url.login:
        login = base64.b64encode(unquote_to_bytes(url.login)).decode()
        client["default_headers"] = {"authorization": f"Basic {login}"}
    again: Any = {
        "max_retries": RETRIES,
        "retry_timeout": timedelta(seconds=RETRY_SECONDS),
        "backoff": {
            "base": 2,
            "init_backoff": timedelta(seconds=FIRST_PAUSE_SECONDS),
            "max_backoff": timedelta(seconds=10),
        },
    }
    try:
        if url.scheme in stores:  # names of objects are taken as they are, percent signs too
            bucket, _, inside = url.place.partition("/")
            store = stores[url.scheme]
            return store(bucket, prefix=inside or None, client_options=client, retry_config=again)
        asked = f"{url}?{url.query}" if url.query else str(url)
        return HTTPStore.from_url(asked, client_options=client, retry_config=again)
    except Exception as error:  # whatever obstore says of settings
        why = _SECRETS.sub("", first_line(error))
        raise SettingError(f"{url} cannot be opened: {why}") from None


@contextmanager
def told(url: Url, key: str = "") -> Iterator[None]:
    """Let requests inside fail as the system's errors do, without secrets.

    Raises:
        FileNotFoundError: There is no such object.
        RequestError: Any other failure of a request; its ``strerror`` says why.
    """
    try:
        yield
    except RequestError:
        raise
    except Exception as error:
        from obstore import exceptions

        where = f"{url}/{key}" if key else str(url)
        if isinstance(error, FileNotFoundError):
            raise FileNotFoundError(errno.ENOENT, f"{where} does not exist") from None
        answers = (exceptions.AlreadyExistsError, exceptions.PreconditionError)
        if not isinstance(error, exceptions.BaseError) or isinstance(error, answers):
            raise
        raise RequestError(*_failure(where, error)) from None


def attempts() -> Iterator[AbstractContextManager[bool | None]]:
    """Yield attempts at a request, to be left as soon as one is answered.

    obstore makes most requests again itself, but no conditional put, and none whose answer breaks
    off on the way.

    Raises:
        RequestError: The last attempt failed, or one after three minutes.
    """
    until = time.monotonic() + RETRY_SECONDS
    for left in reversed(range(RETRIES + 1)):
        yield _attempt(left, until)


@contextmanager
def _attempt(left: int, until: float) -> Iterator[None]:
    try:
        yield
    except RequestError as error:
        if error.errno != errno.EAGAIN or not left or time.monotonic() > until:
            raise


def _failure(where: str, error: Exception) -> tuple[int, str]:
    """Return error number and text of a failure, without secrets."""
    from obstore import exceptions

    said = _SECRETS.sub("", str(error).partition("\n")[0])
    refused = (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError)
    if isinstance(error, refused) or "403 Forbidden" in said:
        return errno.EACCES, f"{where} is not allowed by the server; check the keys for it"
    if isinstance(error, exceptions.NotSupportedError):
        return errno.ENOTSUP, f"the server sends no parts of {where}; download it"
    if _NO_KEYS.search(said):
        return errno.EACCES, (
            f"{where} needs keys in the environment, such as AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or AWS_SKIP_SIGNATURE=true"
        )
    refusal = _REFUSED.search(said)
    if refusal:
        answer = refusal[1] or refusal[2]
        return errno.EINVAL, f"the server refuses {where} ({answer}); check address and region"
    again = _RETRIED.search(said)
    why = said.rpartition(" - ")[2].partition(": <")[0].rpartition("Generic ")[2][:200]
    tried = f" after {again[1]} retries" if again else ""
    why = f"{where} does not answer{tried}: {why}; the same command continues when it does"
    return errno.EIO if again and int(again[1]) >= RETRIES else errno.EAGAIN, why
