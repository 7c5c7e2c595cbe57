"""The settings of a service: one table of them, and where each was set: command line, environment, file, or not at all.

What is given first in that order counts. Every name that is not in the table is an error that says which one is near:
a misspelt setting would otherwise be the same as none.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, get_args

from tallystick.errors import RejectedError
from tallystick.limits import SETTINGS_BYTES_MAX
from tallystick.serve.oidc import OidcSettings

Kind: TypeAlias = Literal["text", "file", "integer", "number", "flag", "texts"]
Format: TypeAlias = Literal["auto", "json", "text"]
"""`auto` is text on a terminal, and JSON elsewhere."""

Level: TypeAlias = Literal["debug", "info", "warning", "error"]
_OIDC: Final = "oidc_"
_RESERVE_TIMES: Final = 2
VARIABLES: Final = "TALLYSTICK_"
"""With what the names of all variables begin."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a service behaves. Valid once built by `Given.settings`."""

    data: str = "./tallystick-data"
    keys: str | None = None
    keys_group_readable: bool = False
    marks: str | None = None
    deployment: str | None = None
    host: str = "127.0.0.1"
    port: int = 8080
    workers: int = 1
    trust_proxy: str = ""
    tls_cert: str | None = None
    tls_key: str | None = None
    record_reads: bool = False
    verify_hours: float = 24.0
    witness_trust: str | None = None
    witness_seconds: float = 3_600.0
    disk_free_megabytes: int = 256
    disk_reserve_megabytes: int | None = None
    log_format: Format = "auto"
    log_level: Level = "info"
    log_requests: bool = False
    oidc: OidcSettings | None = None
    """The issuer whose tokens are believed beside our own keys."""

    @property
    def reserve_megabytes(self) -> int:
        """What has to be left of the disk for events to be taken."""
        given = self.disk_reserve_megabytes
        return _RESERVE_TIMES * self.disk_free_megabytes if given is None else given


@dataclass(frozen=True, slots=True)
class Option:
    """One setting: its name in a file, and what is said of it."""

    name: str
    """Such as `tls.cert`; also `--tls-cert`, and `TALLYSTICK_TLS_CERT`."""
    field: str
    kind: Kind
    about: str
    metavar: str = ""
    least: float = 0
    most: float = float("inf")
    choices: tuple[str, ...] = ()

    @property
    def flag(self) -> str:
        """On the command line."""
        return f"--{self.field.replace('_', '-')}"

    @property
    def variable(self) -> str:
        """In the environment."""
        return f"{VARIABLES}{self.field.upper()}"

    @property
    def default(self) -> Any:
        """What counts when nobody says anything."""
        return next((one.default for one in fields(Settings) if one.name == self.field), None)

    def read(self, value: Any, place: str) -> Any:
        """A value as a file, the environment or the command line has it. Raises `RejectedError`."""
        try:
            found = _READERS[self.kind](value)
        except (KeyError, TypeError, ValueError):
            raise RejectedError(f"{str(value)[:60]!r} is no {_NAMES[self.kind]}", place=place) from None
        if self.choices and found not in self.choices:
            raise RejectedError(f"{str(found)[:60]!r} is not known", place=place, cure=f"use {', '.join(self.choices)}")
        if self.kind in ("integer", "number") and not self.least <= found <= self.most:
            cure = f"give {self.least:g} or more" if self.most == float("inf") else f"{self.least:g} to {self.most:g}"
            raise RejectedError(f"{found} is out of bounds", place=place, cure=cure)
        if self.kind == "file" and not Path(found).is_file():
            raise RejectedError(f"there is no file {found}", place=place, cure="name a file that can be read")
        return found


OPTIONS: Final = (
    Option("data", "data", "text", "Where everything is kept.", "DIR"),
    Option("keys", "keys", "text", "The folder of the signing keys; by default `keys` in the data folder.", "DIR"),
    Option("keys_group_readable", "keys_group_readable", "flag", "Accept key files that their group may read."),
    Option("marks", "marks", "text", "The folder of the head marks; by default `heads` in the keys.", "DIR"),
    Option("deployment", "deployment", "text", "The first part of the origins of new ledgers.", "NAME"),
    Option("listen.host", "host", "text", "Where to listen; 0.0.0.0 for everywhere.", "ADDRESS"),
    Option("listen.port", "port", "integer", "The port; 0 for any that is free.", "PORT", most=65_535),
    Option("listen.workers", "workers", "integer", "Processes that answer.", "N", least=1, most=64),
    Option("listen.trust_proxy", "trust_proxy", "text", "Believe these proxies for whom they ask.", "ADDRESSES"),
    Option("tls.cert", "tls_cert", "file", "Answer over TLS, with this certificate.", "PEM"),
    Option("tls.key", "tls_key", "file", "Its private key.", "PEM"),
    Option("access.record_reads", "record_reads", "flag", "Put reads into the access trails, too."),
    Option("oidc.issuer", "oidc_issuer", "text", "Believe the tokens of this OpenID Connect issuer, too.", "URL"),
    Option("oidc.audience", "oidc_audience", "text", "For whom its tokens must be; with an issuer.", "NAME"),
    Option(
        *("oidc.algorithm", "oidc_algorithm", "texts"),
        *("One they may be signed with; by default RS256, ES256, PS256, EdDSA.", "NAME"),
    ),
    Option(
        *("oidc.role_claim", "oidc_role_claim", "text"),
        *("Their claim of the role; by default tallystick_role.", "PATH"),
    ),
    Option(
        *("oidc.role", "oidc_role", "texts"),
        *("What a value of it stands for: a role, or `operator`.", "VALUE=ROLE"),
    ),
    Option(
        *("oidc.tenant_claim", "oidc_tenant_claim", "text"),
        *("Their claim of the tenant; by default tallystick_tenant.", "PATH"),
    ),
    Option("oidc.tenant", "oidc_tenant", "text", "One tenant for all of them instead.", "NAME"),
    Option(
        *("verification.hours", "verify_hours", "number", "Verify every ledger at least so often; 0 for never."),
        "HOURS",
    ),
    Option(
        *("witness.trust", "witness_trust", "file", "Ask the witnesses of this trust file, at the start and then."),
        "FILE",
    ),
    Option(
        *("witness.seconds", "witness_seconds", "number", "How often to ask them."),
        "SECONDS",
        least=1,
    ),
    Option(
        *("disk.free_megabytes", "disk_free_megabytes", "integer", "Begin no export when the disk has less left."),
        "MB",
    ),
    Option(
        *("disk.reserve_megabytes", "disk_reserve_megabytes", "integer"),
        *("Take no events when the disk has less left; by default twice the above, and always more.", "MB"),
    ),
    Option(
        "log.format",
        "log_format",
        "text",
        "Diagnostics as json or text; auto: as text on a terminal.",
        "FORMAT",
        choices=get_args(Format),
    ),
    Option(
        *("log.level", "log_level", "text", "From which level on: debug, info, warning or error.", "LEVEL"),
        choices=get_args(Level),
    ),
    Option("log.requests", "log_requests", "flag", "A line of the diagnostics for each request."),
)
"""All of them, in the order in which they are told of."""


@dataclass(frozen=True, slots=True)
class Given:
    """What was given, and where."""

    values: Mapping[str, tuple[Any, str]]
    """Field → value, and where it is from."""

    @classmethod
    def of(cls, *, command: Mapping[str, Any], environment: Mapping[str, str], file: str | None) -> Given:
        """What all three say. `command` has None for what was not given. Raises `RejectedError` for a wrong one."""
        values = dict(_of_file(Path(file))) if file is not None else {}
        known = {option.variable: option for option in OPTIONS}
        for name, text in environment.items():
            if name in known and text:
                option = known[name]
                values[option.field] = option.read(text, name), name
        for option in OPTIONS:
            value = command.get(option.field)
            if value is not None and value != ():
                values[option.field] = option.read(value, option.flag), option.flag
        return cls(values)

    def settings(self) -> Settings:
        """The settings, those that depend on each other held together. Raises `RejectedError`."""
        values = {name: value for name, (value, _) in self.values.items()}
        oidc = {name.removeprefix(_OIDC): values.pop(name) for name in [*values] if name.startswith(_OIDC)}
        if oidc and "issuer" not in oidc:
            origin = self.values[f"{_OIDC}{next(iter(oidc))}"][1]
            raise RejectedError(f"{origin} goes with --oidc-issuer", cure="give it, or oidc.issuer in a file, too")
        settings = Settings(**values, oidc=_oidc(oidc))
        if (settings.tls_cert is None) != (settings.tls_key is None):
            missing = "tls.key" if settings.tls_key is None else "tls.cert"
            raise RejectedError("a certificate and its key go together", place=missing, cure="give both")
        free, reserve = settings.disk_free_megabytes, settings.reserve_megabytes
        if reserve <= free and (free or reserve):
            origin = self.values["disk_reserve_megabytes"][1]
            problem = (
                f"disk.reserve_megabytes is {reserve}, and disk.free_megabytes {free}: the reserve has to be larger"
            )
            cure = "events stop at the reserve, so that room is left for exports and administration"
            raise RejectedError(problem, place=origin, cure=cure)
        return settings

    def table(self) -> Iterator[tuple[str, Any, str]]:
        """Every setting: its name in a file, its value, and where that is from."""
        for option in OPTIONS:
            value, origin = self.values.get(option.field, (option.default, "default"))
            yield option.name, value, origin


def unknown_variables(environment: Iterable[str], *, others: Iterable[str]) -> list[str]:
    """Variables that look as if they were settings, and are none."""
    known = {option.variable for option in OPTIONS} | set(others)
    return sorted(name for name in environment if name.startswith(VARIABLES) and name not in known)


def _of_file(path: Path) -> Iterator[tuple[str, tuple[Any, str]]]:
    try:
        with path.open("rb") as stream:
            data = stream.read(SETTINGS_BYTES_MAX + 1)
    except OSError as error:
        raise RejectedError(f"cannot be read: {error.strerror or error}", place=str(path)) from error
    if len(data) > SETTINGS_BYTES_MAX:
        raise RejectedError(f"more than {SETTINGS_BYTES_MAX:,} bytes", place=str(path), cure="is it the right file?")
    try:
        document = tomllib.loads(data.decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise RejectedError(f"it is no TOML: {error}", place=str(path)) from error
    known = {option.name: option for option in OPTIONS}
    for name, value in _flat(document):
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            cure = f"did you mean {near[0]}?" if near else f"use {', '.join(known)}"
            raise RejectedError(f"there is no setting {name[:80]!r}", place=str(path), cure=cure)
        option = known[name]
        if type(value) is not _TYPES[option.kind] and not (option.kind == "number" and type(value) is int):
            raise RejectedError(f"{str(value)[:60]!r} is no {_NAMES[option.kind]}", place=f"{path}, {name}")
        yield option.field, (option.read(value, f"{path}, {name}"), str(path))


def _oidc(given: Mapping[str, Any]) -> OidcSettings | None:
    if not given:
        return None
    return OidcSettings.of(
        issuer=given["issuer"],
        audience=given.get("audience"),
        algorithms=given.get("algorithm", ()),
        role_claim=given.get("role_claim"),
        roles=given.get("role", ()),
        tenant_claim=given.get("tenant_claim"),
        tenant=given.get("tenant"),
    )


def _flat(document: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in document.items():
        if isinstance(value, dict):
            yield from ((f"{name}.{below}", one) for below, one in value.items())
        else:
            yield name, value


def _flag(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[str(value).lower()]


def _text(value: Any) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise ValueError(value)
    return value


def _texts(value: Any) -> tuple[str, ...]:
    found = value.split(",") if isinstance(value, str) else value
    return tuple(_text(one).strip() for one in found)


_READERS: Final[Mapping[str, Any]] = {
    "text": _text,
    "file": _text,
    "integer": lambda value: int(value) if not isinstance(value, float) else _text(None),
    "number": float,
    "flag": lambda value: _flag(value) if value in (True, False) or isinstance(value, str) else _text(None),
    "texts": _texts,
}
_TYPES: Final[Mapping[str, type]] = {
    **{"text": str, "file": str, "integer": int, "number": float, "flag": bool, "texts": list}
}
_NAMES: Final[Mapping[str, str]] = {
    **{"text": "text", "file": "file name", "integer": "whole number", "number": "number"},
    **{"flag": "true or false", "texts": "list of texts"},
}
