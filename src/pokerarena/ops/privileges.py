"""What each database role may do with each relation and function: the one declaration.

`ops.database_roles` grants exactly this, tests prove it with SQL, and
docs/security/database-roles.md is made from it. A relation that is not declared here belongs to the
owner alone, and a test fails until it is.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final


class DatabaseRole(StrEnum):
    """The roles that serve; `migrate` alone uses the owner."""

    API = "pokerarena_api"
    WORKER = "pokerarena_worker"


@dataclass(frozen=True, slots=True)
class Declared:
    """Privileges as GRANT spells them, per role; ``UPDATE (a, b)`` is for these columns only."""

    api: tuple[str, ...] = ()
    worker: tuple[str, ...] = ()
    why: str = ""

    def of(self, role: DatabaseRole) -> tuple[str, ...]:
        return self.api if role is DatabaseRole.API else self.worker


READ: Final = ("SELECT",)
ADD: Final = ("INSERT",)
ADD_AND_CHANGE: Final = ("SELECT", "INSERT", "UPDATE")
EVERYTHING: Final = ("SELECT", "INSERT", "UPDATE", "DELETE")

RELATIONS: Final[dict[str, Declared]] = {
    "users": Declared(
        api=ADD_AND_CHANGE, why="accounts are closed, never deleted; the worker knows no passwords"
    ),
    "api_tokens": Declared(api=EVERYTHING, why="the worker knows no tokens"),
    "sessions": Declared(api=EVERYTHING, why="the worker knows no sessions"),
    "signing_keys": Declared(
        api=("SELECT", "INSERT"), why="the first key is made when it is needed; `admin` rotates"
    ),
    "second_factors": Declared(api=EVERYTHING),
    "recovery_codes": Declared(api=("SELECT", "INSERT", "DELETE")),
    "identities": Declared(
        api=("SELECT", "INSERT", "UPDATE (last_login_at)", "DELETE"),
        why="an identity never moves to another account; the worker knows no identities",
    ),
    "federated_logins": Declared(api=EVERYTHING, why="found by a MAC, gone within minutes"),
    "login_attempts": Declared(api=EVERYTHING),
    "idempotency_records": Declared(api=EVERYTHING, why="the answers in it are sealed"),
    "audit_records": Declared(api=READ, why="appended by `audit_append` only"),
    "audit_head": Declared(why="changed by `audit_append` only"),
    "agents": Declared(api=ADD_AND_CHANGE, why="archived, never deleted"),
    "agent_versions": Declared(
        api=("SELECT", "INSERT", "UPDATE (retired_at)"),
        worker=("SELECT", "UPDATE (check_status, check_report)"),
        why="immutable but for retirement and the check's verdict, which is the worker's: a hand is "
        "bound to the exact version",
    ),
    "version_standings": Declared(
        api=("SELECT", "INSERT", "UPDATE"),
        worker=("SELECT", "INSERT", "UPDATE"),
        why="the worker suspends what only fails; the API asks for checks, operators suspend and lift",
    ),
    "agent_packages": Declared(
        api=("SELECT (digest)", "INSERT", "UPDATE (size)", "DELETE"),
        worker=READ,
        why="the API can store an upload and never read one again; to change a size to what it is "
        "locks the row",
    ),
    "egress_rules": Declared(
        api=("SELECT", "INSERT", "DELETE"), worker=READ, why="an entry is never changed"
    ),
    "egress_revision": Declared(api=("SELECT", "UPDATE (revision)"), worker=READ),
    "version_egress": Declared(
        api=("SELECT", "INSERT", "UPDATE (state, decided_at, decided_by)"),
        worker=READ,
        why="what a version declares never changes; operators decide on it",
    ),
    "tables": Declared(api=ADD_AND_CHANGE, why="archived, never deleted"),
    "seats": Declared(api=EVERYTHING),
    "viewer_links": Declared(
        api=("SELECT", "INSERT", "UPDATE (mac, pepper_id, last_used_at, revoked_at)", "DELETE"),
        why="a link is made, revoked and, when it is over, swept; never bent to another seat",
    ),
    "live_watches": Declared(api=EVERYTHING, worker=READ),
    "runs": Declared(
        api=(
            "SELECT",
            "INSERT",
            "UPDATE (status, failure_code, failure_detail, stop_requested_at, finished_at,"
            " lease_expires_at, claimed_by, recoveries, job_id)",
        ),
        worker=(
            "SELECT",
            "UPDATE (status, failure_code, failure_detail, hands_done, deals_done, deals_reserved,"
            " position, chain_head, epoch, lease_expires_at, claimed_by, job_id, recoveries, started_at,"
            " finished_at)",
        ),
        why="the API orders, stops and resumes; progress is the worker's; neither changes the "
        "rules, the hash of the seed or the reveal policy",
    ),
    "run_seeds": Declared(
        api=ADD, worker=READ, why="the API can make a seed and never read one again"
    ),
    "revealed_seeds": Declared(
        api=READ, worker=("INSERT",), why="told by the worker that completes a run"
    ),
    "run_seats": Declared(
        api=("SELECT", "INSERT"),
        worker=(
            "SELECT",
            "UPDATE (net, units, unit_sum, unit_sum_squares, hands, decisions, rebuys,"
            " time_bank_ms, fallbacks, sandbox)",
        ),
        why="the lineup is fixed when the run is ordered; the totals are the worker's",
    ),
    "hands": Declared(
        api=READ,
        worker=("SELECT", "INSERT"),
        why="append-only; partitions are reached through the whole alone, here and below",
    ),
    "hand_cards": Declared(api=READ, worker=ADD, why="append-only"),
    "decision_notes": Declared(api=READ, worker=ADD, why="append-only"),
    "void_deals": Declared(api=READ, worker=("SELECT", "INSERT"), why="append-only"),
    "hand_actions": Declared(api=READ, why="a view of `hands`"),
    "history_archives": Declared(api=READ, why="hands are archived by the owner"),
    "dead_letters": Declared(
        api=("SELECT", "UPDATE (state, closed_at, closed_by)"),
        worker=EVERYTHING,
        why="the worker writes and sweeps them; operators close them",
    ),
    "alembic_version": Declared(api=READ, why="`/readyz` compares it"),
    "procrastinate_jobs": Declared(
        api=("SELECT (id)", "INSERT"), worker=EVERYTHING, why="the API can only add jobs"
    ),
    "procrastinate_events": Declared(
        api=ADD, worker=("SELECT", "INSERT", "DELETE"), why="written by triggers of the jobs"
    ),
    "procrastinate_periodic_defers": Declared(
        worker=("SELECT", "UPDATE"), why="a trigger unlinks deleted jobs"
    ),
    "procrastinate_workers": Declared(worker=EVERYTHING),
}

SEQUENCES: Final[dict[str, Declared]] = {
    "procrastinate_jobs_id_seq": Declared(api=("USAGE",), worker=("USAGE",)),
    "procrastinate_events_id_seq": Declared(api=("USAGE",), worker=("USAGE",)),
    "procrastinate_periodic_defers_id_seq": Declared(),
    "procrastinate_workers_id_seq": Declared(worker=("USAGE",)),
}

# By name; every overload of it. Whatever is not named here nobody but the owner may call.
FUNCTIONS: Final[dict[str, frozenset[DatabaseRole]]] = {
    "audit_append": frozenset({DatabaseRole.API}),
    "audit_append_judgement": frozenset({DatabaseRole.WORKER}),
    "history_covered_until": frozenset(DatabaseRole),
    "history_ensure_partitions": frozenset({DatabaseRole.WORKER}),
    "procrastinate_defer_jobs_v1": frozenset(DatabaseRole),
    "procrastinate_fetch_job_v2": frozenset({DatabaseRole.WORKER}),
    "procrastinate_finish_job_v1": frozenset({DatabaseRole.WORKER}),
    "procrastinate_retry_job_v2": frozenset({DatabaseRole.WORKER}),
    "procrastinate_register_worker_v1": frozenset({DatabaseRole.WORKER}),
    "procrastinate_unregister_worker_v1": frozenset({DatabaseRole.WORKER}),
    "procrastinate_update_heartbeat_v1": frozenset({DatabaseRole.WORKER}),
    "procrastinate_prune_stalled_workers_v1": frozenset({DatabaseRole.WORKER}),
}

BEGIN: Final = "<!-- privileges: begin; made by `make docs` -->"
END: Final = "<!-- privileges: end -->"


def reference() -> str:
    """The relations and functions as tables of the manual."""
    lines = [
        "| relation | `pokerarena_api` | `pokerarena_worker` | why |",
        "|---|---|---|---|",
    ]
    for name, declared in sorted({**RELATIONS, **SEQUENCES}.items()):
        cells = [_cell(declared.of(role)) for role in DatabaseRole]
        lines.append(f"| `{name}` | {cells[0]} | {cells[1]} | {declared.why} |")
    lines += ["", "| function | may be called by |", "|---|---|"]
    for name, roles in sorted(FUNCTIONS.items()):
        lines.append(f"| `{name}` | {', '.join(f'`{role}`' for role in sorted(roles))} |")
    return "\n".join(lines)


def _cell(privileges: tuple[str, ...]) -> str:
    return ", ".join(privileges) if privileges else "nothing"


def renewed(document: str) -> str:
    """The document with the reference as it is now."""
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"the document lacks the marks {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{reference()}\n\n{END}{after}"


def main() -> None:
    path = Path("docs/security/database-roles.md")
    if not path.exists():
        sys.exit("privileges: run this where docs/security/database-roles.md is")
    path.write_text(renewed(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
