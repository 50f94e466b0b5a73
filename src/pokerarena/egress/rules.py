"""The operators' lists, kept in the database: what is added, what is taken away, what holds now.

Owns the relation of rules and its revision, which rises with every change, under one lock: workers
ask for the revision alone, and read the lists when it has risen.
"""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from pokerarena.auth import audit
from pokerarena.auth.audit import Event
from pokerarena.egress.lists import Effect, Rule, RuleKind, lists_of
from pokerarena.egress.models import EgressRevision, EgressRule
from pokerarena.egress.policy import EgressPolicy
from pokerarena.errors import NotFound, QuotaExceeded
from pokerarena.ids import IdKind, id_text, new_id
from pokerarena.settings import Settings


def frame(settings: Settings) -> EgressPolicy:
    """What the deployment's settings allow at most; the lists narrow it."""
    policy = EgressPolicy(
        allow_private=settings.callback_allow_private,
        schemes=frozenset(settings.callback_schemes),
        allowed_domains=_with_all_below(settings.callback_domains_allowed),
        denied_domains=_with_all_below(settings.callback_domains_denied),
    )
    if settings.callback_ports:
        ports = tuple((port, port) for port in settings.callback_ports)
        policy = replace(policy, port_ranges=ports)
    return policy


async def current_policy(session: AsyncSession, settings: Settings) -> EgressPolicy:
    """The policy as it stands in the database at this moment."""
    rows = await session.scalars(select(EgressRule))
    return frame(settings).narrowed(
        lists_of(Rule(Effect(row.effect), RuleKind(row.kind), row.value) for row in rows)
    )


async def current_revision(session: AsyncSession) -> int:
    """A number that has risen whenever a rule or an approval has changed."""
    return await session.scalar(select(EgressRevision.revision)) or 0


async def raise_revision(session: AsyncSession) -> None:
    """Say that something changed. Holds the lock of all changes until the transaction ends."""
    await session.execute(update(EgressRevision).values(revision=EgressRevision.revision + 1))


async def list_rules(session: AsyncSession, *, before: UUID | None, limit: int) -> list[EgressRule]:
    """The rules, newest first."""
    query = select(EgressRule).order_by(EgressRule.id.desc()).limit(limit)
    if before is not None:
        query = query.where(EgressRule.id < before)
    return list(await session.scalars(query))


async def add_rule(
    session: AsyncSession, rule: Rule, *, note: str, by: UUID | None, settings: Settings
) -> EgressRule:
    """Add a rule; one that is there already stays as it is."""
    await raise_revision(session)
    present = await session.scalar(
        select(EgressRule).where(
            EgressRule.effect == rule.effect.value,
            EgressRule.kind == rule.kind.value,
            EgressRule.value == rule.value,
        )
    )
    if present is not None:
        return present
    count = await session.scalar(select(func.count()).select_from(EgressRule)) or 0
    if count >= settings.egress_rules_max:
        raise QuotaExceeded(
            "too_many_egress_rules", f"There are {count} rules, the most allowed; remove some."
        )
    row = EgressRule(
        id=new_id(),
        effect=rule.effect.value,
        kind=rule.kind.value,
        value=rule.value,
        note=note,
        created_by=by,
    )
    session.add(row)
    audit.record(
        session,
        Event.EGRESS_RULE_ADDED,
        subject=id_text(IdKind.EGRESS_RULE, row.id),
        effect=rule.effect.value,
        kind=rule.kind.value,
        value=rule.value,
    )
    await session.flush()
    await session.refresh(row)
    return row


async def remove_rule(session: AsyncSession, rule_id: UUID) -> None:
    """Take a rule away. Raises `NotFound` when there is none."""
    await raise_revision(session)
    row = await session.get(EgressRule, rule_id)
    if row is None:
        raise NotFound("egress rule")
    await session.delete(row)
    audit.record(
        session,
        Event.EGRESS_RULE_REMOVED,
        subject=id_text(IdKind.EGRESS_RULE, rule_id),
        effect=row.effect,
        kind=row.kind,
        value=row.value,
    )
    await session.flush()


def _with_all_below(names: tuple[str, ...]) -> frozenset[str]:
    """A name in a setting has always stood for itself and everything below it."""
    return frozenset(f".{name.removeprefix('.')}" for name in names)
