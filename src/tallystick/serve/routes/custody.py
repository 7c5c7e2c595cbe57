"""Routes of custody: for how long records are kept, who holds them, and the end of those that expired."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from tallystick.core.custody import RetentionPolicy
from tallystick.errors import ConflictError
from tallystick.limits import LABEL_CHARACTERS_MAX, POLICY_LABELS_MAX, REASON_CHARACTERS_MAX
from tallystick.read.shapes import policy_json
from tallystick.serve.calls import Administering, Pruning, ReadingAll
from tallystick.serve.jobs import Job
from tallystick.serve.routes.jobs import Position, accepted
from tallystick.serve.routes.rendered import Rendered, rendered

router: Final = APIRouter(prefix="/api/v1", route_class=Rendered)

Text = Annotated[str, Field(max_length=512)]
Label = Annotated[str, Field(max_length=LABEL_CHARACTERS_MAX)]
Reason = Annotated[str, Field(max_length=REASON_CHARACTERS_MAX)]


class NewPolicy(BaseModel):
    """For how long records are to be kept."""

    model_config = ConfigDict(extra="forbid")

    period: Text
    """90d, 26w, 6y (of 366 days each), or forever."""
    labels: Annotated[dict[Label, Text], Field(max_length=POLICY_LABELS_MAX)] = {}
    """Another period for records with a label; the longest wins."""
    reason: Reason | None = None


class NewHold(BaseModel):
    """What is to be held: one entity, one label, or the positions from `first` up to, not including, `end`."""

    model_config = ConfigDict(extra="forbid")

    name: Text
    reason: Reason
    entity: Text | None = None
    label: Label | None = None
    first: Position | None = None
    end: Position | None = None


class Release(BaseModel):
    """Why a hold is released."""

    model_config = ConfigDict(extra="forbid")

    reason: Reason


class Order(BaseModel):
    """What the plan said, so that nothing else is removed than what somebody looked at."""

    model_config = ConfigDict(extra="forbid")

    end: Position
    count: Position
    clock_is_right: bool = False
    """Whether somebody looked at the clock, where the newest record is more than 31 days from it."""


@router.get("/retention")
def retention(call: ReadingAll) -> dict[str, Any]:
    """For how long records are kept, and who said so."""
    with call.ledger() as ledger:
        policy, position = ledger.retention.policy()
        return policy_json(policy, None if position is None else ledger.get(position))


@router.put("/retention")
def set_retention(call: Administering, new: NewPolicy) -> dict[str, Any]:
    """Say for how long records are kept from now on. Nothing is removed before a prune."""
    policy = RetentionPolicy.of(new.period, new.labels)
    plan = call.service.deployment.plan_of(call.caller.tenant)
    for place, days in (("period", policy.period_days), *policy.labels.items()):
        plan.check_period(days, place=place)
    with call.ledger() as ledger:
        position = ledger.retention.set(policy, actor=call.caller.principal.actor, reason=new.reason).position
    call.service.record(call.caller, "retention_set", {"text": policy.text})
    return {"text": policy.text, "position": position}


@router.get("/holds")
def list_holds(call: ReadingAll) -> dict[str, Any]:
    """The legal holds in force, in the order of their placing."""
    with call.ledger() as ledger:
        return {"holds": [hold.to_json() for hold in ledger.retention.holds()]}


@router.post("/holds", status_code=201)
def place_hold(call: Administering, new: NewHold) -> dict[str, Any]:
    """Hold records: whatever the policy says, they are not pruned until the hold is released."""
    with call.ledger() as ledger:
        receipt = ledger.retention.hold(
            new.name,
            reason=new.reason,
            entity=new.entity,
            label=new.label,
            first=new.first,
            end=new.end,
            actor=call.caller.principal.actor,
        )
    call.service.record(call.caller, "hold_placed", {"hold": new.name})
    return {"name": new.name, "position": receipt.position}


@router.post("/holds/{name:path}/release")
def release_hold(call: Administering, name: str, why: Release) -> dict[str, Any]:
    """Release a hold. What it kept goes with the next prune, if it has expired."""
    with call.ledger() as ledger:
        receipt = ledger.retention.release(name, reason=why.reason, actor=call.caller.principal.actor)
    call.service.record(call.caller, "hold_released", {"hold": name})
    return {"name": name, "position": receipt.position}


@router.get("/retention/plan")
def plan(call: ReadingAll) -> dict[str, Any]:
    """What a prune would remove now. Nothing is removed."""
    with call.ledger() as ledger:
        return ledger.retention.plan().to_json()


@router.post("/retention/prune", status_code=202)
def prune(call: Pruning, order: Order) -> Response:
    """Remove what has expired and nobody holds, if it is what the plan said. A job; the ledger verifies as before."""
    service, caller = call.service, call.caller

    def work(job: Job) -> dict[str, Any]:
        with service.ledger_of(caller) as ledger:
            planned = ledger.retention.plan(progress=job.progress)
            if (planned.end, planned.count) != (order.end, order.count):
                told = f"{planned.count} records below {planned.end}"
                raise ConflictError(f"the plan is another one now, {told}: look at it, then order that")
            by, sure = caller.principal.actor, order.clock_is_right
            return ledger.retention.prune(planned, actor=by, clock_is_right=sure).to_json()

    job = service.jobs.begin(caller.tenant, "prune", order.model_dump(), work)
    service.record(caller, "prune_ordered", {"job": job.id, **job.asked})
    return rendered(*accepted(job))
