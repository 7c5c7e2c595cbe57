"""Where a service is, and on which terms it is spoken to: the rules of URL, key and TLS, before anything is sent.

The key goes to one host and to no other, never in the clear beyond this machine, and into no text that is shown. What
the environment says of proxies, certificates and passwords is not read: whoever wants one of them says so.
"""

from __future__ import annotations

import os
import re
import ssl
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Final
from urllib.parse import SplitResult, urlsplit

from tallystick.errors import RejectedError

_KEY: Final = re.compile(r"[\x21-\x7e]{1,512}", re.ASCII)
_KEY_CURE: Final = "give it as it was shown, without spaces or line ends around it"
_URL_CURE: Final = "give the service's address, such as https://audit.example.com"
_CLEAR_CURE: Final = "use https, or say insecure=True where the network itself is protected"


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """A service, and how it is reached."""

    url: str
    """Without a slash at the end."""
    key: str = field(repr=False)
    tls: ssl.SSLContext | None = field(repr=False)
    """How servers are known; None is by the authorities that this machine trusts."""
    proxy: str | None = field(repr=False)
    """It may have a password in it."""

    @classmethod
    def of(
        cls,
        url: str,
        key: str,
        *,
        insecure: bool = False,
        ca_file: str | os.PathLike[str] | None = None,
        tls: ssl.SSLContext | None = None,
        proxy: str | None = None,
    ) -> Address:
        """Raises `RejectedError` for what cannot be used, or should not be."""
        parts = _split(url, "url")
        if parts.path.strip("/") and not re.fullmatch(r"[\x21-\x7e]+", parts.path):
            raise RejectedError("its path has characters that no URL has", place="url", cure=_URL_CURE)
        _check_key(key)
        proxy_parts = None if proxy is None else _split(proxy, "proxy")
        if not insecure and parts.scheme == "http":
            if not _is_loopback(parts.hostname or ""):
                problem = f"http to {_shown(parts.hostname)} would send the key in the clear"
                raise RejectedError(problem, place="url", cure=_CLEAR_CURE)
            if proxy_parts is not None:
                raise RejectedError("http through a proxy would show it the key", place="proxy", cure=_CLEAR_CURE)
        whole = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
        return cls(url=whole, key=key, tls=_context(ca_file, tls), proxy=proxy)


def _split(url: str, place: str) -> SplitResult:
    """The parts of a URL that names a host and no more. What it has is not shown: it may be a secret."""
    if not isinstance(url, str):
        raise RejectedError(f"a {type(url).__name__} is no URL", place=place, cure=_URL_CURE)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise RejectedError("it is no URL", place=place, cure=_URL_CURE) from error
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0 or parts.query or parts.fragment:
        raise RejectedError("it is not the http or https URL of a host", place=place, cure=_URL_CURE)
    if not re.fullmatch(r"[\x21-\x7e]+", parts.netloc):
        raise RejectedError("its host has characters that no URL has", place=place, cure=_URL_CURE)
    if parts.username is not None and place == "url":
        raise RejectedError("it has a user name or a password in it", place=place, cure="leave them out: the key does")
    return parts


def _check_key(key: object) -> None:
    if not isinstance(key, str) or not _KEY.fullmatch(key):
        raise RejectedError("it is not the text of an API key", place="key", cure=_KEY_CURE)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _context(ca_file: str | os.PathLike[str] | None, tls: ssl.SSLContext | None) -> ssl.SSLContext | None:
    if ca_file is not None and tls is not None:
        raise RejectedError("ca_file and tls were both given", place="TLS", cure="give one of them")
    if tls is not None and not (tls.check_hostname and tls.verify_mode == ssl.CERT_REQUIRED):
        cure = "have it check names and certificates; for an authority of your own give ca_file"
        raise RejectedError("the TLS context takes any server for the right one", place="TLS", cure=cure)
    if ca_file is None:
        return tls
    try:
        return ssl.create_default_context(cafile=os.fspath(ca_file))
    except (OSError, ValueError) as error:  # ssl.SSLError is one
        cure = "give a file of certificates in PEM"
        problem = f"{os.fspath(ca_file)} cannot be used: {getattr(error, 'strerror', None) or error}"
        raise RejectedError(problem, place="ca_file", cure=cure) from error


def _shown(host: str | None) -> str:
    return ascii((host or "")[:60])
