"""`pokerarena admin egress`: the allow and deny lists, and the hosts of hosted versions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sqlalchemy.ext.asyncio import AsyncSession

    from pokerarena.egress.models import EgressRule, VersionEgress
    from pokerarena.settings import Settings

commands = typer.Typer(
    help="Where callbacks and hosted agents may go: lists and approvals.", no_args_is_help=True
)
LISTED_MAX = 10_000

Kind = Annotated[str, typer.Argument(help="domain, scheme, port or network.")]
Value = Annotated[
    str,
    typer.Argument(help="api.example.org, .example.org (with all below), https, 443, 8000-8999 …"),
]
Note = Annotated[str, typer.Option(help="Why, for whoever reads the list later.")]
Version = Annotated[str, typer.Argument(help="The version's id, ver_….")]
Destination = Annotated[str, typer.Argument(help="host:port, as its manifest declares it.")]


@commands.command("list")
def list_rules() -> None:
    """The lists, an entry a line."""
    from pokerarena.egress import rules

    async def read(session: AsyncSession, _: Settings) -> list[EgressRule]:
        return await rules.list_rules(session, before=None, limit=LISTED_MAX)

    for rule in _with_session(read):
        typer.echo(_rule_line(rule))


@commands.command("allow")
def allow(kind: Kind, value: Value, note: Note = "") -> None:
    """Add to what is allowed: from then on nothing else of this kind is."""
    _add("allow", kind, value, note)


@commands.command("deny")
def deny(kind: Kind, value: Value, note: Note = "") -> None:
    """Add to what is denied, whatever is allowed."""
    _add("deny", kind, value, note)


@commands.command("remove")
def remove(
    rule_id: Annotated[str, typer.Argument(help="The entry's id, as the list shows it.")],
) -> None:
    """Take an entry away."""
    from pokerarena.egress import rules
    from pokerarena.ids import IdKind, parse_id

    found = parse_id(IdKind.EGRESS_RULE, rule_id)
    _with_session(lambda session, _: rules.remove_rule(session, found))
    typer.echo(f"{rule_id} removed")


@commands.command("requests")
def requests(
    everything: Annotated[
        bool, typer.Option("--all", help="Decided ones too, not only those that wait.")
    ] = False,
) -> None:
    """The hosts that hosted versions declare, a line each."""
    from pokerarena.egress import approvals
    from pokerarena.egress.models import EgressState

    async def read(session: AsyncSession, _: Settings) -> Any:
        state = None if everything else EgressState.PENDING
        return await approvals.list_requests(session, state=state, before=None, limit=LISTED_MAX)

    for _version, hosts in _with_session(read):
        _show_hosts(hosts)


@commands.command("approve")
def approve(version_id: Version, destination: Destination) -> None:
    """Let a version reach a host that it declares, through the egress proxy."""
    _decide(version_id, destination, approve=True)


@commands.command("refuse")
def refuse(version_id: Version, destination: Destination) -> None:
    """Let a version reach a host no more, or not at all."""
    _decide(version_id, destination, approve=False)


def _add(effect: str, kind: str, value: str, note: str) -> None:
    from pokerarena.egress import rules
    from pokerarena.egress.lists import Effect, RuleKind, parse_rule

    try:
        rule = parse_rule(Effect(effect), RuleKind(kind), value)
    except ValueError:
        raise typer.BadParameter(
            f"{kind!r} is none of {', '.join(RuleKind)}", param_hint="KIND"
        ) from None

    async def work(session: AsyncSession, settings: Settings) -> EgressRule:
        return await rules.add_rule(session, rule, note=note[:200], by=None, settings=settings)

    typer.echo(_rule_line(_with_session(work)))


def _decide(version_id: str, destination: str, *, approve: bool) -> None:
    from pokerarena.egress import approvals, rules
    from pokerarena.ids import IdKind, parse_id

    found = parse_id(IdKind.VERSION, version_id)

    async def work(session: AsyncSession, settings: Settings) -> list[VersionEgress]:
        policy = await rules.current_policy(session, settings)
        return await approvals.decide(
            session, found, destination, approve=approve, policy=policy, by=None
        )

    _show_hosts(_with_session(work))


def _with_session(work: Callable[[AsyncSession, Settings], Awaitable[Any]]) -> Any:
    from pokerarena.ops.accounts import in_database
    from pokerarena.settings import load_settings

    settings = load_settings()
    return in_database(settings, lambda session: work(session, settings))


def _rule_line(rule: EgressRule) -> str:
    from pokerarena.ids import IdKind, id_text

    note = f"  # {rule.note}" if rule.note else ""
    return (
        f"{id_text(IdKind.EGRESS_RULE, rule.id)}  {rule.effect:5}  {rule.kind} {rule.value}{note}"
    )


def _show_hosts(hosts: list[VersionEgress]) -> None:
    from pokerarena.ids import IdKind, id_text

    for host in hosts:
        version = id_text(IdKind.VERSION, host.version_id)
        typer.echo(f"{version}  {host.host}:{host.port}  {host.state}")
