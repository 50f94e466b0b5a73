"""Alembic's environment: runs revisions on the connection that `ops.migrate` hands over."""

from __future__ import annotations

from alembic import context

from pokerarena.agents import models as agents_models
from pokerarena.api import models as api_models
from pokerarena.auth import models as auth_models
from pokerarena.db import Base
from pokerarena.egress import models as egress_models
from pokerarena.history import models as history_models
from pokerarena.migrations import include_name
from pokerarena.runs import models as runs_models
from pokerarena.tables import models as tables_models

MAPPED = (
    auth_models,
    agents_models,
    tables_models,
    runs_models,
    history_models,
    api_models,
    egress_models,
)


def run() -> None:
    """Run the revisions, each in its own transaction."""
    connection = context.config.attributes["connection"]
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        include_name=include_name,
        transaction_per_migration=True,
        compare_type=True,
        on_version_apply=context.config.attributes.get("on_version_apply", ()),
    )
    with context.begin_transaction():
        context.run_migrations()


run()
