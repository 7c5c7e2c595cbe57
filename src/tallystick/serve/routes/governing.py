"""Routes that govern: keys of a tenant, and for the operators its tenants. Each act is an event, and in the trail."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, StrictInt

from tallystick.errors import NotFoundError
from tallystick.govern.access import ROLES, Key, Scope
from tallystick.govern.plans import Plan
from tallystick.serve.calls import Administering, Call, ManagingTenants, MeasuringAll, Reading
from tallystick.serve.problems import PermissionDeniedError
from tallystick.serve.quotas import usage
from tallystick.serve.routes.rendered import Rendered

router: Final = APIRouter(prefix="/api/v1", route_class=Rendered)

Text = Annotated[str, Field(max_length=512)]
Texts = Annotated[list[Text], Field(max_length=64)]


class NewKey(BaseModel):
    """What a new key may do."""

    model_config = ConfigDict(extra="forbid")

    name: Text
    role: Text
    event_types: Texts = []
    entity_prefixes: Texts = []
    networks: Texts = []
    expires_at: Text | None = None
    operator: bool = False
    tenant: Text | None = None
    """For operators: another tenant than their own."""


class NewTenant(BaseModel):
    """A tenant to be made."""

    model_config = ConfigDict(extra="forbid")

    name: Text


class NewPlan(BaseModel):
    """What tenants of a plan may use; a bound that is null is none."""

    model_config = ConfigDict(extra="forbid")

    events_per_month: StrictInt | None = None
    events_per_second: StrictInt | None = None
    retention: Text | None = None


class GivenPlan(BaseModel):
    """The plan that a tenant is to have; null for none."""

    model_config = ConfigDict(extra="forbid")

    plan: Text | None


@router.get("/whoami")
def whoami(call: Reading) -> dict[str, Any]:
    """Whose key or token is sent, and what its role may."""
    principal = call.caller.principal
    return {**principal.to_json(), "permissions": sorted(ROLES[principal.role])}


@router.get("/keys")
def list_keys(call: Administering, tenant: str | None = None) -> dict[str, Any]:
    """The keys in force of the caller's tenant; of another one for operators."""
    keys = call.service.deployment.keys(_tenant(call, tenant))
    return {"keys": [key.to_json() for key in keys]}


@router.post("/keys", status_code=201)
def create_key(call: Administering, new: NewKey) -> dict[str, Any]:
    """Make a key. Its text is in this answer, and nowhere else."""
    if new.operator and not call.caller.principal.operator:
        raise _denied(call, "ManageTenants", "only an operators' key makes another one")
    scope = Scope.of(event_types=new.event_types, entity_prefixes=new.entity_prefixes, networks=new.networks)
    maker = call.caller.principal
    if isinstance(maker, Key):
        scope, new.expires_at = maker.bound(scope, new.expires_at)
    key, text = call.service.deployment.create_key(
        _tenant(call, new.tenant),
        role=new.role,
        name=new.name,
        actor=call.caller.principal.actor,
        scope=scope,
        expires_at=new.expires_at,
        operator=new.operator,
        # A key that the trail does not know of must not be in force: first the trail, then the key.
        before=lambda key: call.service.record(
            call.caller, "key_created", {"key": key.id, "tenant": key.tenant}, on=key.tenant
        ),
    )
    return {**key.to_json(), "key": text}


@router.post("/keys/{key_id}/rotate", status_code=201)
def rotate_key(call: Administering, key_id: str) -> dict[str, Any]:
    """Make a key that may do the same; the old one ends at once.

    Whoever asks gets its text. So a key that is bound in time or to networks rotates itself, and others that are bound
    as closely.
    """
    old, maker = _own_key(call, key_id), call.caller.principal
    if isinstance(maker, Key) and maker.id != old.id and not maker.bounds(old):
        raise _denied(call, "Admin", "that key is for longer or for other networks than this one")
    key, text = call.service.deployment.rotate_key(
        old.id,
        actor=call.caller.principal.actor,
        before=lambda key: call.service.record(
            call.caller, "key_rotated", {"key": old.id, "new_key": key.id, "tenant": key.tenant}, on=key.tenant
        ),
    )
    return {**key.to_json(), "key": text}


@router.delete("/keys/{key_id}", status_code=204)
def revoke_key(call: Administering, key_id: str) -> None:
    """End a key at once."""
    key = _own_key(call, key_id)
    call.service.deployment.revoke_key(key.id, actor=call.caller.principal.actor)
    call.service.record(call.caller, "key_revoked", {"key": key.id, "tenant": key.tenant}, on=key.tenant)


@router.get("/tenants")
def list_tenants(call: ManagingTenants) -> dict[str, Any]:
    """All tenants, by name."""
    return {"tenants": [tenant.to_json() for tenant in call.service.deployment.tenants()]}


@router.post("/tenants", status_code=201)
def create_tenant(call: ManagingTenants, new: NewTenant) -> dict[str, Any]:
    """Make a tenant. Its first key is made with `POST /api/v1/keys` and its name."""
    tenant = call.service.deployment.create_tenant(new.name, actor=call.caller.principal.actor)
    call.service.record(call.caller, "tenant_created", {"tenant": tenant.name})
    return tenant.to_json()


@router.post("/tenants/{name}/suspend")
def suspend_tenant(call: ManagingTenants, name: str) -> dict[str, Any]:
    """Have the keys of a tenant not work any more; its records stay."""
    return _suspend(call, name, suspended=True)


@router.post("/tenants/{name}/resume")
def resume_tenant(call: ManagingTenants, name: str) -> dict[str, Any]:
    """Have the keys of a tenant work again."""
    return _suspend(call, name, suspended=False)


@router.get("/usage")
def own_usage(call: MeasuringAll) -> dict[str, Any]:
    """What the caller's tenant has used this month, and what its plan says."""
    return usage(call.service.deployment, call.caller.tenant)


@router.get("/tenants/{name}/usage")
def tenant_usage(call: ManagingTenants, name: str) -> dict[str, Any]:
    """What a tenant has used this month, and what its plan says."""
    return usage(call.service.deployment, name)


@router.put("/tenants/{name}/plan")
def give_plan(call: ManagingTenants, name: str, given: GivenPlan) -> dict[str, Any]:
    """Give a tenant a plan. One with a retention has its records kept no longer than that."""
    tenant = call.service.deployment.give_plan(name, given.plan, actor=call.caller.principal.actor)
    call.service.record(call.caller, "plan_given", {"tenant": tenant.name, "plan": tenant.plan}, on=tenant.name)
    return tenant.to_json()


@router.get("/plans")
def list_plans(call: ManagingTenants) -> dict[str, Any]:
    """All plans, by name."""
    return {"plans": [plan.to_json() for plan in call.service.deployment.plans()]}


@router.put("/plans/{name}")
def define_plan(call: ManagingTenants, name: str, new: NewPlan) -> dict[str, Any]:
    """Define a plan, or define it anew for all who have it."""
    plan = Plan(name=name, **new.model_dump())
    call.service.deployment.define_plan(plan, actor=call.caller.principal.actor)
    call.service.record(call.caller, "plan_defined", plan.to_json())
    return plan.to_json()


def _suspend(call: Call, name: str, *, suspended: bool) -> dict[str, Any]:
    if suspended and name == call.caller.tenant:
        raise _denied(call, "ManageTenants", "nobody suspends the tenant of their own key")
    tenant = call.service.deployment.suspend_tenant(name, actor=call.caller.principal.actor, suspended=suspended)
    what = "tenant_suspended" if suspended else "tenant_resumed"
    call.service.record(call.caller, what, {"tenant": tenant.name}, on=tenant.name)
    return tenant.to_json()


def _tenant(call: Call, named: str | None) -> str:
    """The tenant that is meant. Whoever is no operator learns of no other, not even that there is none."""
    if named is None or named == call.caller.tenant:
        return call.caller.tenant
    if not call.caller.principal.may("ManageTenants"):
        raise _denied(call, "ManageTenants", "this key is for the tenant that it is of")
    return named


def _own_key(call: Call, key_id: str) -> Key:
    """A key of the caller's tenant; of any for operators. The same error for one of others as for none."""
    problem = f"there is no key {key_id[:60]!r}"
    try:
        key = call.service.deployment.key(key_id)
    except NotFoundError:
        raise NotFoundError(problem) from None
    if key.tenant != call.caller.tenant and not call.caller.principal.may("ManageTenants"):
        raise NotFoundError(problem)
    if key.operator and not call.caller.principal.operator:
        raise _denied(call, "ManageTenants", "it is an operators' key, and only they change one")
    return key


def _denied(call: Call, permission: str, why: str) -> PermissionDeniedError:
    return PermissionDeniedError(permission, call.caller, why)
