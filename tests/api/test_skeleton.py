from tests.api.conftest import Arena, ok, new_agent, new_table, sit

async def test_skeleton(arena: Arena) -> None:
    c = arena.anonymous
    print(await c.get("/healthz"))
    print(await c.get("/readyz"))
    print(await c.get("/nope"))
    print(await c.get("/openapi.json"))
    print(len((await c.get("/docs")).body))
    print(await c.post("/v1/auth/register", {"username":"alice","password":"abcabcabcabcabcabc", "x":"y"}))
    print(await c.post("/v1/auth/register", {"username":"alice","password":"abcabcabcabcabcabc"}))
    alice = await arena.user("alice")
    print(await alice.get("/v1/me"))
    print(await new_agent(alice))
    t = await new_table(alice)
    print(await sit(alice, t, 1))
    print(await alice.get("/v1/tables/%s" % t))
    print(await alice.get("/v1/tables/%s/seats" % t))
    print(await alice.get("/v1/tables/table_x"))
    print(await alice.get("/v1/tokens"))
    print(await alice.post("/v1/tokens", {"name":"x","scopes":["agents:read"],"expires_in_s":100}))
    assert 0
