"""AWS CloudTrail: from one of its records to the fields of one event; pure.

The members are those of "CloudTrail record contents", AWS CloudTrail User Guide:
https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-event-reference-record-contents.html
The payload is the whole record, unchanged; all other fields are a reading of it. The id is CloudTrail's
own, so that a file may be imported twice (I8). Opening and unpacking files is the caller's business.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Iterator
from typing import Any, Final

from tallystick.core.timestamp import parse_rfc3339
from tallystick.errors import RejectedError
from tallystick.limits import ENTITY_ID_CHARACTERS_MAX, EVENT_ID_CHARACTERS_MAX, EVENT_TYPE_CHARACTERS_MAX

_THINGS: Final[dict[str, dict[str, str | None]]] = {
    "cloudformation": {"stackName": "stack/"},
    "cloudtrail": {
        "name": "trail/",
        "trailName": "trail/",
        "trailNameList": "trail/",
        "resourceIdList": None,
    },
    "dynamodb": {"tableName": "table/"},
    "ec2": {
        "instanceId": None,
        "volumeId": None,
        "snapshotId": None,
        "networkInterfaceId": None,
        "routeTableId": None,
        "natGatewayId": None,
        "internetGatewayId": None,
        "networkAclId": None,
        "groupId": None,
        "subnetId": None,
        "allocationId": None,
        "vpcId": None,
        "imageId": None,
        "associationId": None,
        "resourceId": None,
    },
    "iam": {
        "instanceProfileName": "instance-profile/",
        "roleName": "role/",
        "userName": "user/",
        "groupName": "group/",
        "policyArn": None,
    },
    "kms": {"aliasName": "", "keyId": "key/"},
    "lambda": {"functionName": "function:"},
    "logs": {"logGroupName": "log-group:"},
    "rds": {
        "dBSnapshotIdentifier": "snapshot:",
        "dBInstanceIdentifier": "db:",
        "dBClusterIdentifier": "cluster:",
        "dBSubnetGroupName": "subgrp:",
        "resourceName": None,
    },
    "s3": {"bucketName": "", "bucket": ""},
    "secretsmanager": {"secretId": "secret:", "name": "secret:"},
    "sns": {"topicArn": None},
    "sqs": {"queueUrl": None},
    "ssm": {"parameter": "parameter/", "instanceId": None},
    "sts": {"roleArn": None},
}
"""Service → request parameter that names the thing acted on → how its ARN goes on after the account.

None: the value is unique by itself. Where a call names several, one that the call's own name mentions
(`CreateSnapshot`, `snapshotId`) goes before the others, and these go in the order written. An IAM name is
unique in its account whatever its path, so the path is left out.
"""

_WITHOUT_REGION: Final = frozenset(("iam", "s3"))
_WITHOUT_ACCOUNT: Final = frozenset(("s3",))

_MAKING: Final = ("allocate", "copy", "create", "register", "run")
"""Calls that make a thing: only the answer names it."""

_DENIED: Final = re.compile(r"AccessDenied|Unauthorized|NotAuthorized|Forbidden|AuthFailure", re.IGNORECASE)
_UNFIT_FOR_TYPE: Final = re.compile(r"[^A-Za-z0-9_.-]")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


def records(document: Any) -> Iterator[dict[str, Any]]:
    """The records of a parsed log file, `{"Records": [...]}`, or the one record that `document` is.

    Raises `RejectedError` for anything else, with the place as a JSON pointer.
    """
    if not isinstance(document, dict):
        raise _not_an_object("")
    if "Records" not in document:
        yield document
        return
    if not isinstance(document["Records"], list):
        raise RejectedError("not an array", place="/Records", cure="send a CloudTrail log file as AWS delivers it")
    for index, record in enumerate(document["Records"]):
        if not isinstance(record, dict):
            raise _not_an_object(f"/Records/{index}")
        yield record


def event_fields(record: dict[str, Any]) -> dict[str, Any]:
    """The fields of the event that keeps `record`, as `Event` and JSON input take them.

    Raises `RejectedError` when `record` is no CloudTrail record, with the place as a JSON pointer.
    """
    if not isinstance(record, dict):
        raise _not_an_object("")
    event_id = _required(record, "eventID")
    name = _required(record, "eventName")
    service = _required(record, "eventSource").removesuffix(".amazonaws.com")
    occurred_at = _required(record, "eventTime")
    parse_rfc3339(occurred_at, place="/eventTime")
    actor = _actor(_object(record, "userIdentity"))
    fields: dict[str, Any] = {
        "id": _fitted(f"cloudtrail:{event_id}", EVENT_ID_CHARACTERS_MAX),
        "event_type": _event_type(service, name),
        "entity_id": _fitted(_entity_id(record, service=service, actor=actor), ENTITY_ID_CHARACTERS_MAX),
        "occurred_at": occurred_at,
        "context": _context(record),
        "labels": _labels(record),
        "payload": record,
    }
    if actor:
        fields["actor"] = actor
    return fields


def _event_type(service: str, name: str) -> str:
    """`aws.<service>.<call>`: what an event type may not hold becomes `_`."""
    words = _UNFIT_FOR_TYPE.sub("_", f"aws.{service}.{name}").split(".")
    return ".".join(word for word in words if word)[:EVENT_TYPE_CHARACTERS_MAX].rstrip(".")


def _actor(identity: dict[str, Any]) -> dict[str, str]:
    """Who called. A role's session is named after the role, whose user name AWS puts in the issuer."""
    session = _object(identity, "sessionContext")
    account = _text(identity, "accountId")
    found = {
        "id": _first_text(identity, "arn", "principalId", "invokedBy", "accountId"),
        "type": _text(identity, "type"),
        "name": _text(identity, "userName") or _text(_object(session, "sessionIssuer"), "userName"),
        "identity_provider": _text(identity, "identityProvider")
        or _text(_object(session, "webIdFederationData"), "federatedProvider")
        or (f"aws:{account}" if account else ""),
    }
    if not found["id"]:
        return {}
    return {member: _fitted(value, ENTITY_ID_CHARACTERS_MAX) for member, value in found.items() if value}


def _context(record: dict[str, Any]) -> dict[str, Any]:
    """Where the call came from and under what. A service that calls for someone is the principal."""
    identity = _object(record, "userIdentity")
    session = _object(identity, "sessionContext")
    attributes = _object(session, "attributes")
    tls = _object(record, "tlsDetails")
    source = _text(record, "sourceIPAddress")
    from_address = _is_address(source)
    grant = _text(_object(session, "sessionIssuer"), "arn")
    context: dict[str, Any] = {
        "ip": source if from_address else "",
        "hostname": _text(tls, "clientProvidedHostHeader"),
        "protocol": _text(tls, "tlsVersion"),
        "user_agent": _text(record, "userAgent"),
        # A long-lived key is not a session; the key id of temporary credentials is one session's alone.
        "session_id": _text(identity, "accessKeyId") if session else "",
        "session_started_at": _text(attributes, "creationDate"),
        "mfa_authenticated": {"true": True, "false": False}.get(_text(attributes, "mfaAuthenticated"), ""),
        "request_id": _text(record, "requestID"),
        "correlation_id": _text(record, "sharedEventID"),
        "principal": _text(identity, "invokedBy") or ("" if from_address else source),
        "grants": [grant] if grant else "",
        "account": _text(record, "recipientAccountId") or _text(identity, "accountId"),
        "region": _text(record, "awsRegion"),
        "error_code": _text(record, "errorCode"),
    }
    return {member: value for member, value in context.items() if value != ""}


def _labels(record: dict[str, Any]) -> list[str]:
    labels: list[str] = []
    error = _text(record, "errorCode")
    refused_sign_in = _text(_object(record, "responseElements"), "ConsoleLogin") == "Failure"
    if refused_sign_in or _DENIED.search(error):
        labels.append("denied")
    elif error:
        labels.append("error")
    if isinstance(record.get("readOnly"), bool):
        labels.append("read" if record["readOnly"] else "write")
    return labels


def _entity_id(record: dict[str, Any], *, service: str, actor: dict[str, str]) -> str:
    """The thing acted on: as AWS names it, else by the table, else the service in the account.

    A call on many things at once is filed under the first.
    """
    resources = record.get("resources")
    for resource in resources if isinstance(resources, list) else ():
        if isinstance(resource, dict) and (arn := _first_text(resource, "ARN", "arn")):
            return arn
    names = _names(record)
    if arn := _first_text(names, "arn", "aRN", "resourceArn", "resourceARN"):
        return arn
    call = _text(record, "eventName").lower()
    if call.startswith(_MAKING):
        for name, value in names.items():
            if name.endswith(("Arn", "ARN")) and _stem(name) in call:
                return value
    account = _text(record, "recipientAccountId") or _text(_object(record, "userIdentity"), "accountId")
    things = [parameter for parameter in _THINGS.get(service, ()) if parameter in names]
    if things:
        thing = next((parameter for parameter in things if _stem(parameter) in call), things[0])
        region = _text(record, "awsRegion")
        return _arn(names[thing], _THINGS[service][thing], service=service, region=region, account=account)
    if service == "signin" and actor:
        return actor["id"]
    return f"aws:{account or 'unknown'}:{service}"


def _arn(value: str, kind: str | None, *, service: str, region: str, account: str) -> str:
    if kind is None or value.startswith("arn:"):
        return value
    partition = "aws-cn" if region.startswith("cn-") else "aws-us-gov" if region.startswith("us-gov-") else "aws"
    region = "" if service in _WITHOUT_REGION else region
    account = "" if service in _WITHOUT_ACCOUNT else account
    return f"arn:{partition}:{service}:{region}:{account}:{kind}{value}"


def _stem(parameter: str) -> str:
    """What a parameter names: `routetable` of `routeTableId`."""
    return re.sub(r"(Id|Name|Identifier|Arn|ARN|List)+$", "", parameter).lower()


def _names(record: dict[str, Any]) -> dict[str, str]:
    """The names in a record that may say what was acted on; of a list, the first."""
    names: dict[str, str] = {}
    if _text(record, "eventName").lower().startswith(_MAKING):
        _gather(_object(record, "responseElements"), names, depth=2)
    request = _object(record, "requestParameters")
    _gather(request, names, depth=0)
    _gather(_object(record, "serviceEventDetails"), names, depth=0)
    _gather(_object(record, "additionalEventData"), names, depth=0)
    if "bucketName" in names and (key := _text(request, "key")):
        names["bucketName"] += f"/{key}"
    if (kind := _text(request, "resourceType")) and (value := _text(request, "resourceId").removeprefix("/")):
        names.setdefault(kind[0].lower() + kind[1:], value)
    return names


def _gather(value: dict[str, Any], names: dict[str, str], *, depth: int) -> None:
    """Adds the strings of an object, of the sets in it, and of `depth` levels of objects in it."""
    for key, member in value.items():
        if isinstance(member, list):
            member = member[0] if member else None  # noqa: PLW2901 - a list stands for its first
        if isinstance(member, str) and member and key:
            names.setdefault(key[0].lower() + key[1:], member)
        if not isinstance(member, dict):
            continue
        items = member.get("items")
        if isinstance(items, list) and items and isinstance(items[0], dict) and key != "filterSet":
            _gather(items[0], names, depth=0)
        elif isinstance(content := member.get("content"), str):
            names.setdefault(key[0].lower() + key[1:], content)
        elif depth or key.endswith("Request"):
            _gather(member, names, depth=max(depth - 1, 0))


def _required(record: dict[str, Any], member: str) -> str:
    value = record.get(member)
    if not isinstance(value, str) or not value:
        raise RejectedError(
            "missing, or not a string",
            place=f"/{member}",
            cure="send the record as CloudTrail wrote it, with eventID, eventName, eventSource and eventTime",
        )
    return value


def _not_an_object(place: str) -> RejectedError:
    return RejectedError("not an object", place=place, cure="send a CloudTrail record as one JSON object")


def _fitted(text: str, characters_max: int) -> str:
    """`text` as an identifier: control characters escaped, an overlong one cut and told apart by a hash."""
    text = _CONTROL.sub(lambda match: f"%{ord(match[0]):02X}", text)
    if len(text) <= characters_max:
        return text
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{text[: characters_max - len(digest) - 1]}#{digest}"


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _object(value: dict[str, Any], member: str) -> dict[str, Any]:
    found = value.get(member)
    return found if isinstance(found, dict) else {}


def _text(value: dict[str, Any], member: str) -> str:
    found = value.get(member)
    return found if isinstance(found, str) else ""


def _first_text(value: dict[str, Any], *members: str) -> str:
    return next((text for member in members if (text := _text(value, member))), "")
