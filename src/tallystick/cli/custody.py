"""`retention`, `hold` and `prune`: how long records are kept, who holds them, and the end of those that expired.

What is in force is read from the ledger's own records, without keys; what is ordered is sealed with them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click

from tallystick.cli import screen
from tallystick.cli.options import Settings, ledger_options, sealing_options
from tallystick.cli.progress import Bar
from tallystick.cli.records import actor_text, time_text
from tallystick.errors import RejectedError

if TYPE_CHECKING:
    from tallystick.govern.pruning import Pruned, PrunePlan


def _actor_option(function: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("--actor", metavar="ID", help="Who orders it.")(function)


# -------------------------------------------------------------------------------------------------- retention


@click.group()
def retention() -> None:
    """For how long records are kept. Nothing is removed before `prune` is told to."""


@retention.command("show")
@ledger_options
def show(settings: Settings) -> None:
    """Print the policy in force, and who set it.

    JSON: {policy, text, position, recorded_at, actor, reason}, all null when none was ever set; policy is
    {period_days, labels}, in days, where null is for ever.
    """
    with settings.open(readonly=False) as ledger:
        policy, position = ledger.retention.policy()
        record = None if position is None else ledger.get(position)
    if settings.json:
        from tallystick.read.shapes import policy_json

        screen.say_json(policy_json(policy, record))
        return
    if policy is None or record is None:
        screen.say("no policy was ever set: everything is kept")
        return
    screen.say("records are kept ", (policy.text, "bold"))
    screen.say_pairs(
        [
            ("set", f"{time_text(record.recorded_at)}, at position {record.position}"),
            ("by", actor_text(record)),
            ("reason", record.payload.get("reason", "-")),
        ]
    )


@retention.command("set")
@click.argument("period", metavar="PERIOD")
@click.option("--label", "labels", multiple=True, metavar="LABEL=PERIOD", help="Another period for records with it.")
@_actor_option
@click.option("--reason", metavar="TEXT", help="Why.")
@sealing_options
def set_(settings: Settings, *, period: str, labels: tuple[str, ...], actor: str | None, reason: str | None) -> None:
    """Keep records for a PERIOD: 90d, 26w, 6y (of 366 days each), or forever. The longest period wins.

    JSON: {text, position}.
    """
    from tallystick.core.custody import RetentionPolicy

    policy = RetentionPolicy.of(period, dict(_periods(labels)))
    with settings.open(readonly=False) as ledger:
        position = ledger.retention.set(policy, actor=actor, reason=reason).position
    if settings.json:
        screen.say_json({"text": policy.text, "position": position})
        return
    screen.say("records are kept ", (policy.text, "bold"), f", as recorded at position {position}")
    screen.say(("nothing was removed; `tallystick prune` says what has expired", "dim"), err=True)


def _periods(labels: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    seen = set()
    for text in labels:
        name, equals, period = text.rpartition("=")
        if not equals:
            raise RejectedError(f"{text[:60]!r} has no period", place="--label", cure="give LABEL=PERIOD, as phi=6y")
        if name in seen:
            raise RejectedError(f"the label {name[:60]!r} is given twice", place="--label", cure="give it once")
        seen.add(name)
        yield name, period


# ------------------------------------------------------------------------------------------------------- hold


@click.group()
def hold() -> None:
    """Legal holds: what they cover is not pruned, whatever the policy says."""


@hold.command("list")
@ledger_options
def list_(settings: Settings) -> None:
    """List the holds in force, in the order of their placing.

    JSON: holds (name, reason, entity, label, first, end, position, since, actor).
    """
    with settings.open(readonly=False) as ledger:
        holds = ledger.retention.holds()
    if settings.json:
        screen.say_json({"holds": [one.to_json() for one in holds]})
        return
    if not holds:
        screen.say("no hold is in force", err=True)
        return
    rows = [
        (one.name, one.placed.scope, time_text(one.since), (one.actor or {}).get("id", "-"), str(one.position),
         one.placed.reason)
        for one in holds
    ]  # fmt: skip
    screen.say_table(("hold", "holds", "since", "by", "position", "reason"), rows)


@hold.command("place")
@click.argument("name")
@click.option("--reason", required=True, metavar="TEXT", help="Why; it is recorded.")
@click.option("--entity", metavar="ID", help="Hold what there is and will be of this entity.")
@click.option("--label", metavar="LABEL", help="Hold what has, or will have, this label.")
@click.option("--positions", metavar="FIRST-END", help="Hold the positions from FIRST up to, not including, END.")
@_actor_option
@sealing_options
def place(
    settings: Settings,
    *,
    name: str,
    reason: str,
    entity: str | None,
    label: str | None,
    positions: str | None,
    actor: str | None,
) -> None:
    """Hold one entity, one label, or a range of positions, until the hold is released.

    JSON: {name, position}.
    """
    if [entity, label, positions].count(None) != 2:
        raise click.UsageError("a hold has one scope: give --entity, or --label, or --positions")
    first, end = (None, None) if positions is None else _range(positions)
    with settings.open(readonly=False) as ledger:
        receipt = ledger.retention.hold(
            name, reason=reason, entity=entity, label=label, first=first, end=end, actor=actor
        )
    _say_order(settings, name, "placed", receipt.position)


@hold.command("release")
@click.argument("name")
@click.option("--reason", required=True, metavar="TEXT", help="Why; it is recorded.")
@_actor_option
@sealing_options
def release(settings: Settings, *, name: str, reason: str, actor: str | None) -> None:
    """Release a hold. What it kept goes with the next prune, if it has expired.

    JSON: {name, position}.
    """
    with settings.open(readonly=False) as ledger:
        receipt = ledger.retention.release(name, reason=reason, actor=actor)
    _say_order(settings, name, "released", receipt.position)


def _say_order(settings: Settings, name: str, done: str, position: int) -> None:
    if settings.json:
        screen.say_json({"name": name, "position": position})
        return
    screen.say("the hold ", (name, "bold"), f" is {done}, as recorded at position {position}")


def _range(text: str) -> tuple[int, int]:
    from tallystick.core.strict import parse_decimal
    from tallystick.limits import SIZE_MAX

    first, dash, end = text.partition("-")
    if not dash:
        raise RejectedError(f"{text[:60]!r} is no range", place="--positions", cure="give FIRST-END, such as 100-200")
    numbers = [parse_decimal(part, maximum=SIZE_MAX, place="--positions") for part in (first, end)]
    return numbers[0], numbers[1]


# ------------------------------------------------------------------------------------------------------ prune


@click.command()
@click.option("--yes", is_flag=True, help="Do it. Without this, nothing is removed.")
@click.option(
    "--clock-is-right", is_flag=True, help="Go by the clock though the newest record is more than 31 days from it."
)
@_actor_option
@sealing_options
def prune(settings: Settings, *, yes: bool, clock_is_right: bool, actor: str | None) -> None:
    """Say which records have expired; with --yes remove them for good. What is held or the ledger's own stays.

    The ledger records what was removed, and verifies as before. Copies and backups are not touched.

    JSON: {plan, pruned}; plan is {end, first, count, bytes, kept, kept_own, kept_by_hold, kept_by_label,
    oldest_kept, policy, policy_position, unfinished, size}; pruned is {position, end, count, bytes, finished}, and
    null without --yes.
    """
    if actor is not None and not yes:
        raise click.UsageError("--actor is recorded with a prune: give --yes too")
    with settings.open(readonly=False) as ledger:
        ordered = ledger.retention
        with Bar("looking at what goes", "positions") as bar:
            plan = ordered.plan(progress=bar.update)
        done = ordered.prune(plan, actor=actor, clock_is_right=clock_is_right) if yes else None
    if settings.json:
        screen.say_json({"plan": plan.to_json(), "pruned": done and done.to_json()})
        return
    _say_plan(plan, done)
    if done is None and (plan.count or plan.unfinished is not None):
        screen.say(("this was a dry run: nothing was removed. Do it with --yes", "dim"), err=True)


def _say_plan(plan: PrunePlan, done: Pruned | None) -> None:
    if done is not None and done.finished is not None:
        screen.say(f"finished the prune recorded at position {done.finished}, which had been cut short")
    elif plan.unfinished is not None:
        screen.say(f"the prune recorded at position {plan.unfinished} was cut short, and would be finished first")
    records = screen.counted(plan.count, "record")
    if not plan.count:
        screen.say("nothing has expired that is not kept" if plan.kept > plan.kept_own else "nothing has expired")
    elif done is None:
        screen.say((records, "bold"), f" would be removed, {plan.bytes:,} bytes, from position {plan.first} on")
    else:
        screen.say(
            "removed ", (records, "bold"), f", {plan.bytes:,} bytes, as recorded at position {done.position}"
        )  # fmt: skip
    screen.say_pairs(_facts(plan))
    scopes = {one.name: one.placed.scope for one in plan.terms.holds}
    for name, count in plan.kept_by_hold.items():
        if count:
            kept = screen.counted(count, "record")
            screen.say(("a hold wins: ", "yellow"), (name, "bold"), f" keeps {kept} ({scopes.get(name, '-')})")


def _facts(plan: PrunePlan) -> Iterator[tuple[str, str]]:
    yield "policy", f"{plan.policy}, set at position {plan.policy_position}"
    if plan.end:
        yield "considered", f"positions below {plan.end:,}, of a ledger of {screen.counted(plan.size, 'record')}"
        yield "kept there", f"{screen.counted(plan.kept, 'record')}, {plan.kept_own:,} of them the ledger's own"
    for name, count in plan.kept_by_label.items():
        if count:
            yield f"label {name}", f"keeps {screen.counted(count, 'record')} longer"
    if plan.oldest_kept is not None:
        yield "oldest kept", time_text(plan.oldest_kept)
