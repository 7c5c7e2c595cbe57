"""CloudTrail records become events: what happened, to what, by whom, and the record itself unchanged."""

from __future__ import annotations

import copy
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.core.content import check_content
from tallystick.errors import RejectedError
from tallystick.integrations.cloudtrail import event_fields, records

ACCOUNT: Final = "111122223333"

ROLE_SESSION: Final[dict[str, Any]] = {
    "type": "AssumedRole",
    "principalId": "AROAEXAMPLEROLE:night-job",
    "arn": f"arn:aws:sts::{ACCOUNT}:assumed-role/backup/night-job",
    "accountId": ACCOUNT,
    "accessKeyId": "ASIAEXAMPLESESSION",
    "sessionContext": {
        "sessionIssuer": {"type": "Role", "arn": f"arn:aws:iam::{ACCOUNT}:role/backup", "userName": "backup"},
        "attributes": {"creationDate": "2026-03-02T01:00:00Z", "mfaAuthenticated": "false"},
    },
}


def record(**members: Any) -> dict[str, Any]:
    """A short record of a user who stopped an instance, with the members given put in."""
    return {
        "eventVersion": "1.11",
        "userIdentity": {
            "type": "IAMUser",
            "principalId": "AIDAEXAMPLEUSER",
            "arn": f"arn:aws:iam::{ACCOUNT}:user/paula",
            "accountId": ACCOUNT,
            "accessKeyId": "AKIAEXAMPLEKEY",
            "userName": "paula",
        },
        "eventTime": "2026-03-02T09:15:00Z",
        "eventSource": "ec2.amazonaws.com",
        "eventName": "StopInstances",
        "awsRegion": "eu-central-1",
        "sourceIPAddress": "203.0.113.7",
        "userAgent": "aws-cli/2.20.0",
        "requestParameters": {
            "instancesSet": {"items": [{"instanceId": "i-0aaaabbbbccccdddd"}]},
            "force": False,
        },
        "responseElements": None,
        "requestID": "11111111-2222-3333-4444-555555555555",
        "eventID": "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee",
        "readOnly": False,
        "recipientAccountId": ACCOUNT,
        "tlsDetails": {
            "tlsVersion": "TLSv1.3",
            "clientProvidedHostHeader": "ec2.eu-central-1.amazonaws.com",
        },
        **members,
    }


def accept(fields: dict[str, Any]) -> None:
    check_content({"actor": None, "event_version": 1, **fields})


# --------------------------------------------------------------------------------- the record as a whole


def test_a_record_becomes_an_event_that_says_what_happened_to_what() -> None:
    fields = event_fields(record())

    accept(fields)
    assert fields["event_type"] == "aws.ec2.StopInstances"
    assert fields["entity_id"] == "i-0aaaabbbbccccdddd"
    assert fields["occurred_at"] == "2026-03-02T09:15:00Z"
    assert fields["labels"] == ["write"]


def test_the_payload_is_the_whole_record_unchanged() -> None:
    original = record(aMemberOfTomorrow={"deep": [1, None, True]})
    kept = copy.deepcopy(original)

    fields = event_fields(original)

    assert fields["payload"] == original == kept


def test_the_id_is_that_of_cloudtrail_so_that_a_second_import_adds_nothing() -> None:
    fields = event_fields(record())

    assert fields["id"] == "cloudtrail:aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"
    assert fields == event_fields(record())


def test_what_an_event_type_may_not_hold_becomes_an_underscore() -> None:
    fields = event_fields(record(eventSource="my source/ä", eventName="Get..Thing v2"))

    assert fields["event_type"] == "aws.my_source__.Get.Thing_v2"
    accept(fields)


@pytest.mark.parametrize("member", ["eventID", "eventName", "eventSource", "eventTime"])
@pytest.mark.parametrize("value", [None, "", 7])
def test_a_record_without_its_name_time_or_id_is_refused_at_that_place(member: str, value: object) -> None:
    with pytest.raises(RejectedError) as refused:
        event_fields(record(**{member: value}))

    assert refused.value.place == f"/{member}"
    assert refused.value.cure


def test_a_time_that_is_none_is_refused_at_its_place() -> None:
    with pytest.raises(RejectedError) as refused:
        event_fields(record(eventTime="yesterday"))

    assert refused.value.place == "/eventTime"


@pytest.mark.parametrize("value", [None, [], "record", 3])
def test_what_is_no_object_is_refused(value: Any) -> None:
    with pytest.raises(RejectedError, match="not an object"):
        event_fields(value)
    with pytest.raises(RejectedError, match="not an object"):
        list(records(value))


# ------------------------------------------------------------------------------------------- log files


def test_a_log_file_gives_its_records_in_order() -> None:
    first, second = record(eventID="one"), record(eventID="two")

    assert list(records({"Records": [first, second]})) == [first, second]
    assert list(records({"Records": []})) == []


def test_a_record_by_itself_is_a_document_too() -> None:
    assert list(records(record())) == [record()]


def test_a_broken_log_file_is_refused_with_the_place() -> None:
    with pytest.raises(RejectedError) as refused:
        list(records({"Records": [record(), "lost"]}))
    assert refused.value.place == "/Records/1"

    with pytest.raises(RejectedError) as refused:
        list(records({"Records": {}}))
    assert refused.value.place == "/Records"


# ----------------------------------------------------------------------------------------------- actor


def test_a_user_is_known_by_arn_and_name() -> None:
    assert event_fields(record())["actor"] == {
        "id": f"arn:aws:iam::{ACCOUNT}:user/paula",
        "type": "IAMUser",
        "name": "paula",
        "identity_provider": f"aws:{ACCOUNT}",
    }


def test_a_role_session_bears_the_name_of_its_role_and_the_role_is_its_grant() -> None:
    fields = event_fields(record(userIdentity=ROLE_SESSION))

    assert fields["actor"]["name"] == "backup"
    assert fields["actor"]["id"].endswith("assumed-role/backup/night-job")
    assert fields["context"]["grants"] == [f"arn:aws:iam::{ACCOUNT}:role/backup"]


@pytest.mark.parametrize(
    ("identity", "actor"),
    [
        (
            {"type": "AWSService", "invokedBy": "backup.amazonaws.com"},
            {"type": "AWSService", "id": "backup.amazonaws.com"},
        ),
        (
            {"type": "AWSAccount", "accountId": "444455556666"},
            {"type": "AWSAccount", "id": "444455556666", "identity_provider": "aws:444455556666"},
        ),
        (
            {
                "type": "SAMLUser",
                "principalId": "x9:paula",
                "userName": "paula",
                "identityProvider": "idp.example",
            },
            {"type": "SAMLUser", "id": "x9:paula", "name": "paula", "identity_provider": "idp.example"},
        ),
        (
            {
                "type": "AssumedRole",
                "arn": "arn:aws:sts::1:assumed-role/web/u",
                "sessionContext": {"webIdFederationData": {"federatedProvider": "accounts.example"}},
            },
            {
                "type": "AssumedRole",
                "id": "arn:aws:sts::1:assumed-role/web/u",
                "identity_provider": "accounts.example",
            },
        ),
    ],
)
def test_each_kind_of_identity_names_its_actor(identity: dict[str, Any], actor: dict[str, str]) -> None:
    fields = event_fields(record(userIdentity=identity))

    assert fields["actor"] == actor
    accept(fields)


@pytest.mark.parametrize("identity", [None, {}, {"type": "Unknown"}, "paula"])
def test_an_identity_that_names_nobody_leaves_the_actor_out(identity: object) -> None:
    assert "actor" not in event_fields(record(userIdentity=identity))


# --------------------------------------------------------------------------------------------- context


def test_the_context_says_whence_and_how_the_call_came() -> None:
    assert event_fields(record())["context"] == {
        "ip": "203.0.113.7",
        "hostname": "ec2.eu-central-1.amazonaws.com",
        "protocol": "TLSv1.3",
        "user_agent": "aws-cli/2.20.0",
        "request_id": "11111111-2222-3333-4444-555555555555",
        "account": ACCOUNT,
        "region": "eu-central-1",
    }


def test_a_service_that_calls_for_someone_is_the_principal_and_no_address() -> None:
    context = event_fields(record(sourceIPAddress="cloudformation.amazonaws.com"))["context"]

    assert context["principal"] == "cloudformation.amazonaws.com"
    assert "ip" not in context


def test_an_address_of_version_6_is_an_address() -> None:
    assert event_fields(record(sourceIPAddress="2001:db8::7"))["context"]["ip"] == "2001:db8::7"


def test_only_temporary_credentials_are_a_session() -> None:
    assert "session_id" not in event_fields(record())["context"]

    context = event_fields(record(userIdentity=ROLE_SESSION))["context"]

    assert context["session_id"] == "ASIAEXAMPLESESSION"
    assert context["session_started_at"] == "2026-03-02T01:00:00Z"
    assert context["mfa_authenticated"] is False


# ---------------------------------------------------------------------------------------------- labels


@pytest.mark.parametrize(
    ("members", "labels"),
    [
        ({"readOnly": True}, ["read"]),
        ({"readOnly": False}, ["write"]),
        ({"readOnly": None}, []),
        ({"errorCode": "AccessDenied"}, ["denied", "write"]),
        ({"errorCode": "AccessDeniedException"}, ["denied", "write"]),
        ({"errorCode": "Client.UnauthorizedOperation"}, ["denied", "write"]),
        ({"errorCode": "ThrottlingException"}, ["error", "write"]),
        ({"eventName": "ConsoleLogin", "responseElements": {"ConsoleLogin": "Failure"}}, ["denied", "write"]),
        ({"eventName": "ConsoleLogin", "responseElements": {"ConsoleLogin": "Success"}}, ["write"]),
    ],
)
def test_labels_tell_reads_writes_errors_and_refusals(members: dict[str, Any], labels: list[str]) -> None:
    assert event_fields(record(**members))["labels"] == labels


# ---------------------------------------------------------------------------------------------- entity


def called(source: str, name: str, request: Any = None, **members: Any) -> dict[str, Any]:
    return record(eventSource=f"{source}.amazonaws.com", eventName=name, requestParameters=request, **members)


ENTITIES: Final[tuple[tuple[dict[str, Any], str], ...]] = (
    (
        called("kms", "Decrypt", resources=[{"type": "AWS::KMS::Key", "ARN": "arn:aws:kms:r:1:key/k"}]),
        "arn:aws:kms:r:1:key/k",
    ),
    (called("s3", "GetBucketAcl", {"bucketName": "scans"}), "arn:aws:s3:::scans"),
    (
        called("s3", "PutObject", {"bucketName": "scans", "key": "2026/a.dcm"}),
        "arn:aws:s3:::scans/2026/a.dcm",
    ),
    (
        called("iam", "AttachRolePolicy", {"policyArn": "arn:aws:iam::aws:policy/Admin", "roleName": "backup"}),
        f"arn:aws:iam::{ACCOUNT}:role/backup",
    ),
    (
        called("iam", "GetPolicy", {"policyArn": "arn:aws:iam::aws:policy/Admin"}),
        "arn:aws:iam::aws:policy/Admin",
    ),
    (
        called(
            "iam",
            "CreateRole",
            {"roleName": "b"},
            responseElements={"role": {"arn": "arn:aws:iam::1:role/x/b"}},
        ),
        "arn:aws:iam::1:role/x/b",
    ),
    (
        called("lambda", "Invoke", {"functionName": "resize"}),
        f"arn:aws:lambda:eu-central-1:{ACCOUNT}:function:resize",
    ),
    (
        called("lambda", "Invoke", {"functionName": "arn:aws:lambda:r:1:function:resize"}),
        "arn:aws:lambda:r:1:function:resize",
    ),
    (
        called("rds", "CreateDBSnapshot", {"dBInstanceIdentifier": "main", "dBSnapshotIdentifier": "monday"}),
        f"arn:aws:rds:eu-central-1:{ACCOUNT}:snapshot:monday",
    ),
    (
        called("cloudtrail", "StopLogging", {"name": "all"}, awsRegion="cn-north-1"),
        f"arn:aws-cn:cloudtrail:cn-north-1:{ACCOUNT}:trail/all",
    ),
    (
        called("ssm", "ListTagsForResource", {"resourceType": "Parameter", "resourceId": "/db/password"}),
        f"arn:aws:ssm:eu-central-1:{ACCOUNT}:parameter/db/password",
    ),
    (
        called(
            "ec2",
            "CreateSubnet",
            {"vpcId": "vpc-1"},
            responseElements={"subnet": {"subnetId": "subnet-1", "vpcId": "vpc-1"}},
        ),
        "subnet-1",
    ),
    (
        called("ec2", "CreateVolume", {}, responseElements={"volumeId": "vol-1", "snapshotId": "snap-1"}),
        "vol-1",
    ),
    (
        called(
            "ec2",
            "DeleteNatGateway",
            {"DeleteNatGatewayRequest": {"NatGatewayId": {"tag": 1, "content": "nat-1"}}},
        ),
        "nat-1",
    ),
    (
        called("sns", "CreateTopic", {"name": "x"}, responseElements={"topicArn": "arn:aws:sns:r:1:x"}),
        "arn:aws:sns:r:1:x",
    ),
    (called("signin", "ConsoleLogin"), f"arn:aws:iam::{ACCOUNT}:user/paula"),
    (called("ec2", "DescribeRegions", {"filterSet": {"items": [{"name": "opt-in"}]}}), f"aws:{ACCOUNT}:ec2"),
    (called("health", "DescribeEvents"), f"aws:{ACCOUNT}:health"),
    (called("health", "DescribeEvents", recipientAccountId=None, userIdentity=None), "aws:unknown:health"),
)


@pytest.mark.parametrize(
    ("given_record", "entity_id"),
    ENTITIES,
    ids=[case["eventName"] + "-" + entity for case, entity in ENTITIES],
)
def test_the_entity_is_the_thing_acted_on(given_record: dict[str, Any], entity_id: str) -> None:
    fields = event_fields(given_record)

    assert fields["entity_id"] == entity_id
    accept(fields)


def test_overlong_and_unprintable_names_still_make_an_entity_id_of_their_own() -> None:
    long = [event_fields(called("s3", "PutObject", {"bucketName": "b", "key": "k" * 900 + end})) for end in "xy"]
    odd = event_fields(called("s3", "PutObject", {"bucketName": "b", "key": "line\nbreak"}))

    assert long[0]["entity_id"] != long[1]["entity_id"]
    assert odd["entity_id"] == "arn:aws:s3:::b/line%0Abreak"
    for fields in (*long, odd):
        accept(fields)


# --------------------------------------------------------------------------------------------- hostile

ANY_JSON: Final[st.SearchStrategy[Any]] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(sorted(record())), ANY_JSON))
def test_any_object_is_a_valid_event_or_refused_with_the_one_error(members: dict[str, Any]) -> None:
    try:
        fields = event_fields(record(**members))
    except RejectedError:
        return
    accept(fields)
    assert fields["payload"] == record(**members)
