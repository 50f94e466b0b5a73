"""`pokerarena admin service-key`: the keys with which processes of the arena know each other."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pokerarena.service_identity.keys import ServiceName

commands = typer.Typer(
    help="The keys of services: make, use, retire, rotate.", no_args_is_help=True
)

Service = Annotated[ServiceName, typer.Argument(help="Whose key it is.")]
KeySetFile = Annotated[
    Path, typer.Option("--public-keys", help="The file with the public keys of all services.")
]
KeyFile = Annotated[Path, typer.Option("--key", help="The file of the service's private key.")]


@commands.command("new")
def new(service: Service, key: KeyFile, public_keys: KeySetFile) -> None:
    """Make a key: the private one in a new file, the public one added to the set.

    For a rotation over several machines, name a new file, bring the set to every process, and only
    then the key to its service.
    """
    from pokerarena.ops.service_key_record import note
    from pokerarena.service_identity.rotation import publish

    made = publish(service, key, public_keys)
    typer.echo(f"{made.kid} of {service} is in {key}, and published in {public_keys}")
    note("published", service=service, kid=made.kid)


@commands.command("list")
def show(public_keys: KeySetFile) -> None:
    """The public keys of the set, in the order in which they were published."""
    from pokerarena.service_identity.rotation import read_key_set

    for key in read_key_set(public_keys).values():
        typer.echo(f"{key.kid}  {key.service}")


@commands.command("retire")
def retire(
    kid: Annotated[str, typer.Argument(help="The key's id, as `list` shows it.")],
    public_keys: KeySetFile,
) -> None:
    """Take a key out of the set: nothing that it signs is believed any more."""
    from pokerarena.ops.service_key_record import note
    from pokerarena.service_identity import rotation

    service = rotation.retire(kid, public_keys)
    typer.echo(f"{kid} is retired")
    note("retired", service=service, kid=kid)


@commands.command("rotate")
def rotate(service: Service, key: KeyFile, public_keys: KeySetFile) -> None:
    """Publish, use and retire in one go, where all processes read these very files.

    It takes a minute and a half: until every process knows the new key, and until every token of
    the old one has lapsed.
    """
    from pokerarena.ops.service_key_record import note
    from pokerarena.service_identity import rotation

    old = rotation.read_private_key(key).kid
    made = rotation.rotate(
        service,
        key,
        public_keys,
        noticed_after_s=rotation.NOTICED_AFTER_S,
        lapses_after_s=rotation.LAPSES_AFTER_S,
        say=typer.echo,
    )
    note("rotated", service=service, kid=made.kid, retired=old)
