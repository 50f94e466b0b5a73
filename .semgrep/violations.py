# ruff: noqa
"""Breaks every rule of invariants.yml once; `make scan` fails when one of them is not found."""

import os

import requests  # only-the-dialler-connects


async def all_that_is_forbidden(session, hand, log, mac, settings, player, database, given, name):
    await session.commit()  # services-never-commit
    shown = hand.holes  # cards-leave-through-the-view
    await session.execute(f"SELECT * FROM {name}")  # sql-is-made-of-constants
    log.info("logged_in", token=given)  # secrets-stay-out-of-the-log
    right = mac.digest() == given  # secrets-are-compared-in-constant-time
    text = f"key {settings.master_key.get_secret_value()}"  # secrets-are-revealed-by-name
    async with database.unit_of_work() as held:
        await player.decide(shown)  # sessions-are-not-held-while-agents-think
    return right, text, held, os.environ["HOME"], requests  # routes-do-not-read-the-environment
