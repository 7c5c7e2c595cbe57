"""Makes `events.jsonl`: six weeks of the audit log of Northwind Clinic, a small clinic that we made up.

The same events come out each time, byte for byte. Among the daily sign-ins, record views and deploys is
one story: user-456 gets more rights than a receptionist needs, somebody guesses the password at night
and takes out patient data with them, and the clinic finds out, takes the rights back and cleans up.

    python examples/make_events.py > examples/events.jsonl
"""

from __future__ import annotations

import hashlib
import json
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

FIRST_DAY: Final = datetime(2026, 2, 23, tzinfo=UTC)
DAYS: Final = 42
ATTACKER_IP: Final = "198.51.100.23"


@dataclass(frozen=True, slots=True)
class Person:
    id: str
    name: str
    job: str
    role: str
    ip: str


STAFF: Final = (
    Person("admin-jane", "Jane Okafor", "IT lead", "admin", "10.0.1.11"),
    Person("admin-raj", "Raj Mehta", "system administrator", "admin", "10.0.1.12"),
    Person("dr-lindqvist", "Elsa Lindqvist", "physician", "clinician", "10.0.2.21"),
    Person("dr-moreau", "Paul Moreau", "physician", "clinician", "10.0.2.22"),
    Person("nurse-adeyemi", "Tola Adeyemi", "nurse", "clinician", "10.0.2.31"),
    Person("nurse-kowalska", "Ania Kowalska", "nurse", "clinician", "10.0.2.32"),
    Person("user-454", "Grace Lim", "billing", "editor", "10.0.3.54"),
    Person("user-455", "Henrik Dahl", "compliance lead", "auditor", "10.0.3.55"),
    Person("user-456", "Sam Ortega", "front desk", "viewer", "10.0.3.56"),
)
BY_ID: Final = {person.id: person for person in STAFF}
CLINICIANS: Final = tuple(person for person in STAFF if person.role == "clinician")
PATIENTS: Final = tuple(f"patient-{number}" for number in range(1001, 1041))
DOCUMENTS: Final = ("lab results", "medication list", "referral letter", "visit notes", "imaging report")
SERVICES: Final = ("appointments", "billing", "patient-portal", "records")
SETTINGS: Final = (
    ("session_minutes", 60, 30),
    ("password_length_min", 12, 14),
    ("appointment_reminders", "off", "on"),
    ("language_default", "en", "sv"),
    ("invoice_footer", "2025", "2026"),
    ("session_minutes", 30, 20),
)
"""One a week: member, old value, new value."""

KEY_ROTATIONS: Final = {5: ("database", 5), 19: ("patient-portal", 5), 33: ("backup", 6)}
"""Day → key and its new version; the incident turns all three as well."""

BROWSER: Final = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) Firefox/136.0"

Event = dict[str, Any]


def moment(day: int, hour: int, minute: int = 0, second: int = 0) -> datetime:
    """A time on the given day, counted from the first, 0-based."""
    return FIRST_DAY + timedelta(days=day, hours=hour, minutes=minute, seconds=second)


def event(
    at: datetime, event_type: str, entity_id: str, actor: Person | str, payload: dict[str, Any], **more: Any
) -> Event:
    """One event; `more` are members of its context, but for `labels`."""
    labels = more.pop("labels", [])
    if isinstance(actor, Person):
        who = {"id": actor.id, "type": "user", "name": actor.name, "identity_provider": "northwind-sso"}
        context = {"ip": actor.ip, "user_agent": BROWSER, "protocol": "https", **more}
    else:
        who = {"id": actor, "type": "service"}
        context = {"hostname": "ops-1.northwind.example", **more}
    found = {
        "event_type": event_type,
        "entity_id": entity_id,
        "actor": who,
        "occurred_at": at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "context": context,
        "payload": payload,
    }
    return {**found, "labels": labels} if labels else found


# ------------------------------------------------------------------------------------------- every day


def working_day(day: int, chance: random.Random) -> Iterator[Event]:
    """Sign-ins and record views of one day; at weekends only whoever is on call."""
    weekend = moment(day, 0).weekday() >= 5
    present = CLINICIANS if weekend else [person for person in STAFF if not is_suspended(person, day)]
    for person in chance.sample(present, 1 if weekend else 3):
        at = moment(day, 7, chance.randrange(60), chance.randrange(60))
        session = f"session-{day:02d}-{person.id}"
        if chance.random() < 0.12:
            yield sign_in(at - timedelta(seconds=25), person, outcome="wrong_password")
        yield sign_in(at, person, outcome="success", session_id=session)
        if person.role == "clinician":
            for _ in range(chance.randrange(1, 5)):
                at += timedelta(minutes=chance.randrange(4, 95), seconds=chance.randrange(60))
                yield record_view(at, person, chance, session)
    if not weekend and chance.random() < 0.25:
        yield record_change(moment(day, 15, chance.randrange(60)), chance)


def is_suspended(person: Person, day: int) -> bool:
    return person.id == "user-456" and 22 <= day < 28


def sign_in(at: datetime, person: Person, *, outcome: str, **context: Any) -> Event:
    payload = {"user": person.id, "outcome": outcome, "method": "password+totp"}
    kind = "auth.signed_in" if outcome == "success" else "auth.sign_in_failed"
    labels = [] if outcome == "success" else ["denied"]
    return event(at, kind, f"sign-in/{person.id}", person, payload, labels=labels, **context)


def record_view(at: datetime, person: Person, chance: random.Random, session: str) -> Event:
    return event(
        at,
        "patient_record.viewed",
        chance.choice(PATIENTS),
        person,
        {"document": chance.choice(DOCUMENTS), "reason": "treatment"},
        session_id=session,
        grants=["role:clinician"],
        policy={"name": "patient-access", "version": "7"},
        labels=["phi"],
    )


def record_change(at: datetime, chance: random.Random) -> Event:
    field, old, new = chance.choice(
        (
            ("allergies", "none known", "penicillin"),
            ("contact_preference", "letter", "text message"),
            ("primary_physician", "dr-moreau", "dr-lindqvist"),
        )
    )
    return event(
        at,
        "patient_record.changed",
        chance.choice(PATIENTS),
        chance.choice(CLINICIANS),
        {"field": field, "old_value": old, "new_value": new},
        grants=["role:clinician"],
        labels=["phi"],
    )


def operations(day: int, chance: random.Random) -> Iterator[Event]:
    """Backups, deploys, settings and key rotations."""
    if day % 2 == 0:
        payload = {"outcome": "complete", "bytes": chance.randrange(8, 13) * 10**9 + chance.randrange(10**6)}
        yield event(moment(day, 1, 30), "backup.completed", "backup/records", "backup-service", payload)
    if day % 7 in (1, 3):
        service = chance.choice(SERVICES)
        commit = hashlib.sha256(f"{service} {day}".encode()).hexdigest()[:12]
        at = moment(day, 13, chance.randrange(60))
        version = f"2026.{day // 7 + 9}.{day % 7}"
        payload = {"version": version, "commit": commit, "approved_by": "admin-raj"}
        yield event(at, "deploy.started", f"service/{service}", "deploy-bot", payload, correlation_id=commit)
        finished = {"version": version, "outcome": "healthy"}
        at += timedelta(minutes=chance.randrange(2, 9))
        yield event(at, "deploy.finished", f"service/{service}", "deploy-bot", finished, correlation_id=commit)
    if day in KEY_ROTATIONS:
        key, number = KEY_ROTATIONS[day]
        payload = {"version": number, "algorithm": "AES-256-GCM", "reason": "scheduled"}
        yield event(moment(day, 3), "key.rotated", f"key/{key}", "key-service", payload)
    if day % 7 == 4:
        name, old, new = SETTINGS[day // 7]
        payload = {"field": name, "old_value": old, "new_value": new}
        yield event(moment(day, 16, 20), "config.changed", "config/patient-portal", BY_ID["admin-raj"], payload)
        yield export(moment(day, 17, 5), BY_ID["user-454"], f"invoices-week-{day // 7 + 9}.csv", rows=180 + day)


def export(at: datetime, person: Person, name: str, *, rows: int, **context: Any) -> Event:
    digest = hashlib.sha256(name.encode()).hexdigest()
    file = {"name": name, "version": "1", "size": rows * 212, "sha256": digest}
    return event(at, "data.exported", f"export/{name}", person, {"rows": rows, "format": "csv"}, file=file, **context)


# ------------------------------------------------------------------------------------------- the story


def story(chance: random.Random) -> Iterator[Event]:
    yield from people_arrive()
    yield from rights_grow()
    yield from night_of_the_theft(chance)
    yield from clean_up()


def people_arrive() -> Iterator[Event]:
    for number, person in enumerate(STAFF):
        payload = {"name": person.name, "job": person.job, "role": person.role, "status": "active"}
        yield event(moment(0, 6, number), "user.created", person.id, BY_ID["admin-jane"], payload)


def role_change(at: datetime, by: str, user: str, old: str, new: str, **more: Any) -> Event:
    payload = {"field": "role", "old_value": old, "new_value": new, "reason": more.pop("reason")}
    return event(at, "user.permission_changed", user, BY_ID[by], payload, **more)


def rights_grow() -> Iterator[Event]:
    """user-456 becomes an editor for a good reason, and an admin for a poor one."""
    yield role_change(
        moment(8, 9, 14),
        "admin-jane",
        "user-456",
        "viewer",
        "editor",
        reason="edits the appointment book during the vacancy at the front desk",
        request_id="ticket-2207",
    )
    yield role_change(
        moment(10, 11, 2),
        "admin-raj",
        "user-454",
        "editor",
        "viewer",
        reason="invoices are exported by the billing service from now on",
        request_id="ticket-2215",
    )
    yield role_change(
        moment(11, 8, 47),
        "admin-raj",
        "user-454",
        "viewer",
        "editor",
        reason="the billing service cannot export yet",
        request_id="ticket-2216",
    )
    yield role_change(
        moment(17, 17, 51),
        "admin-jane",
        "user-456",
        "editor",
        "admin",
        reason="unblocks the printer set-up; to be taken back tomorrow",
    )


def night_of_the_theft(chance: random.Random) -> Iterator[Event]:
    """Somebody guesses the password of user-456, who has no second factor, and exports what an admin may."""
    sam = BY_ID["user-456"]
    thief = Person(sam.id, sam.name, sam.job, sam.role, ATTACKER_IP)
    at = moment(22, 2, 11)
    for _ in range(38):
        at += timedelta(seconds=chance.randrange(4, 17))
        payload = {"user": sam.id, "outcome": "wrong_password", "method": "password"}
        yield event(at, "auth.sign_in_failed", f"sign-in/{sam.id}", thief, payload, labels=["denied"])
    at += timedelta(seconds=9)
    session = "session-22-night"
    payload = {"user": sam.id, "outcome": "success", "method": "password"}
    yield event(at, "auth.signed_in", f"sign-in/{sam.id}", thief, payload, session_id=session)
    for patient in PATIENTS[:14]:
        at += timedelta(seconds=chance.randrange(6, 20))
        payload = {"document": "visit notes", "reason": "not stated"}
        yield event(
            at,
            "patient_record.viewed",
            patient,
            thief,
            payload,
            session_id=session,
            grants=["role:admin"],
            policy={"name": "patient-access", "version": "7"},
            labels=["phi"],
        )
    more = {"session_id": session, "grants": ["role:admin"], "labels": ["phi"]}
    yield export(at + timedelta(minutes=2), thief, "patients-all.csv", rows=3912, **more)
    payload = {"field": "export_alerts", "old_value": "on", "new_value": "off"}
    yield event(at + timedelta(minutes=4), "config.changed", "config/alerts", thief, payload, session_id=session)


def clean_up() -> Iterator[Event]:
    """The clinic sees the export in the morning, takes the rights back, and tells whom it must."""
    jane, raj, henrik = BY_ID["admin-jane"], BY_ID["admin-raj"], BY_ID["user-455"]
    incident = "incident-2026-03"
    case: dict[str, Any] = {"correlation_id": incident}
    opened = {"severity": "high", "summary": "export of all patients at night by user-456", "status": "open"}
    yield event(moment(22, 7, 38), "incident.opened", incident, henrik, opened, **case)
    yield role_change(moment(22, 7, 52), "admin-jane", "user-456", "admin", "none", reason="suspected misuse", **case)
    suspended = {"field": "status", "old_value": "active", "new_value": "suspended"}
    yield event(moment(22, 7, 53), "user.suspended", "user-456", jane, suspended, **case)
    ended = {"user": "user-456", "outcome": "ended", "session": "session-22-night"}
    yield event(moment(22, 7, 54), "auth.session_ended", "sign-in/user-456", jane, ended, **case)
    alerts = {"field": "export_alerts", "old_value": "off", "new_value": "on"}
    yield event(moment(22, 8, 5), "config.changed", "config/alerts", raj, alerts, **case)
    for minute, (key, number) in enumerate((("database", 6), ("patient-portal", 6), ("backup", 5))):
        rotated = {"version": number, "algorithm": "AES-256-GCM", "reason": incident}
        yield event(moment(22, 8, 20 + minute), "key.rotated", f"key/{key}", raj, rotated, **case)
    blocked = {"field": "blocked_networks", "old_value": [], "new_value": [ATTACKER_IP]}
    yield event(moment(22, 8, 31), "config.changed", "config/firewall", raj, blocked, **case)
    second = {"field": "second_factor", "old_value": "optional", "new_value": "required"}
    yield event(moment(23, 10, 0), "config.changed", "config/sign-in", jane, second, **case)
    notice = {"recipient": "data protection authority", "people_affected": 3912, "status": "notified"}
    yield event(moment(24, 12, 15), "incident.authority_notified", incident, henrik, notice, **case)
    active = {"field": "status", "old_value": "suspended", "new_value": "active"}
    yield event(moment(28, 9, 0), "user.reinstated", "user-456", jane, active, **case)
    yield role_change(
        moment(28, 9, 1), "admin-jane", "user-456", "none", "viewer", reason="cleared by the inquiry", **case
    )
    review = {"scope": "all roles", "findings": 1, "outcome": "time limits on every admin role"}
    yield event(moment(35, 14, 0), "access_review.completed", "access-review-2026-q1", henrik, review, **case)
    closed = {"status": "closed", "cause": "guessed password, role wider than the job, no second factor"}
    yield event(moment(36, 16, 30), "incident.closed", incident, henrik, closed, **case)


def events() -> list[Event]:
    """All events in order of `occurred_at`, with their ids."""
    chance = random.Random(456)
    found = [*story(chance)]
    for day in range(DAYS):
        found += [*working_day(day, chance), *operations(day, chance)]
    found.sort(key=lambda one: str(one["occurred_at"]))
    return [{"id": f"northwind-{number:05d}", **one} for number, one in enumerate(found, start=1)]


def main() -> None:
    for one in events():
        sys.stdout.write(json.dumps(one, ensure_ascii=False, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
