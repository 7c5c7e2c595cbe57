"""Who calls a route, and whether they may: the dependencies that routes name in their signatures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Final, TypeAlias

from fastapi import Depends, Request, Security
from fastapi.security import HTTPBearer

from tallystick.core.record import Record
from tallystick.errors import NotFoundError
from tallystick.govern.access import Permission
from tallystick.ledger import Ledger
from tallystick.read.query import Query
from tallystick.serve.answering import ANSWERING
from tallystick.serve.budget import Hold
from tallystick.serve.caller import Caller
from tallystick.serve.protocol import is_left
from tallystick.serve.service import Service

_documented: Final = HTTPBearer(auto_error=False, scheme_name="key", description="An API key, ts_..., or a token")


@dataclass(frozen=True, slots=True)
class Call:
    """A request by someone who may make it."""

    service: Service
    caller: Caller
    answer: Hold
    """What of the answer is counted, as it is made."""
    is_left: Callable[[], bool]
    """Whether the caller has gone, and waits for no answer."""

    @contextmanager
    def ledger(self) -> Iterator[Ledger]:
        """The ledger of the caller's tenant."""
        with self.service.ledger_of(self.caller) as ledger:
            yield ledger

    def within_scope(self, query: Query) -> Query:
        """The query, for no more than the caller's key is for."""
        return replace(query, within=self.caller.within)

    def get(self, key: int | str) -> tuple[Record, bytes]:
        """A record, by position or event id, and its proof. For what is out of scope the error is that for nothing."""
        scope = self.caller.principal.scope
        missing = NotFoundError(f"there is no event {str(key)[:60]!r} that this key may see")
        with self.ledger() as ledger:
            try:
                record, proof = ledger.get_proven(key)
            except NotFoundError:
                if scope.is_whole:
                    raise
                raise missing from None
            if not scope.takes(record.event_type, record.entity_id):
                raise missing
            return record, proof.render()


class Needs:
    """The dependency of a route that needs a permission, and if `whole` a key without a scope."""

    def __init__(self, permission: Permission, *, whole: bool = False) -> None:
        self.permission: Final[Permission] = permission
        self.whole: Final = whole

    def __call__(self, request: Request, _: Annotated[object, Security(_documented)]) -> Call:
        service: Service = request.app.state.service
        caller = service.caller_of(request.scope)
        service.permit(caller, self.permission, whole=self.whole)
        if request.method != "GET":
            service.check_trail(caller)
        elif service.settings.record_reads:
            service.record(caller, "read", {"query": request.url.query[:2_048]})
        return Call(service, caller, request.scope["state"][ANSWERING].hold, partial(is_left, request.scope))


Reading: TypeAlias = Annotated[Call, Depends(Needs("Read"))]
ReadingAll: TypeAlias = Annotated[Call, Depends(Needs("Read", whole=True))]
Writing: TypeAlias = Annotated[Call, Depends(Needs("Write"))]
Scraping: TypeAlias = Annotated[Call, Depends(Needs("Scrape", whole=True))]
MeasuringAll: TypeAlias = Annotated[Call, Depends(Needs("Metrics", whole=True))]
Exporting: TypeAlias = Annotated[Call, Depends(Needs("Export", whole=True))]
ExportingSome: TypeAlias = Annotated[Call, Depends(Needs("Export"))]
"""Also by a key with a scope, which gets what is in it."""

Administering: TypeAlias = Annotated[Call, Depends(Needs("Admin", whole=True))]
ManagingSchemas: TypeAlias = Annotated[Call, Depends(Needs("ManageSchemas", whole=True))]
ManagingPipelines: TypeAlias = Annotated[Call, Depends(Needs("ManagePipelines", whole=True))]
Pruning: TypeAlias = Annotated[Call, Depends(Needs("Erase", whole=True))]
ManagingTenants: TypeAlias = Annotated[Call, Depends(Needs("ManageTenants"))]
