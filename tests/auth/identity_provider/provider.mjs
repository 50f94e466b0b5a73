// A real OpenID provider on loopback, for the tests of federated login. One JSON line of standard
// input configures it, one line of standard output says that it listens, and it ends with its input.
//
// Whoever logs in is who they say, and their address is verified unless their name begins with
// "unverified". Its pages for logging in and consenting are the library's own.
import { createServer } from "node:http";
import { createInterface } from "node:readline";
import Provider from "oidc-provider";

const lines = createInterface({ input: process.stdin });
const asked = await new Promise((resolve) => lines.once("line", resolve));
const { client_id, client_secret, redirect_uris } = JSON.parse(asked);

const server = createServer();
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
const issuer = `http://127.0.0.1:${server.address().port}`;
const provider = new Provider(issuer, {
  clients: [
    {
      client_id,
      client_secret,
      redirect_uris,
      grant_types: ["authorization_code"],
      response_types: ["code"],
    },
  ],
  claims: { openid: ["sub"], email: ["email", "email_verified"], profile: ["preferred_username"] },
  pkce: { required: () => true },
  cookies: { keys: ["only for tests"] },
  async findAccount(_ctx, id) {
    return {
      accountId: id,
      async claims() {
        return {
          sub: id,
          email: `${id}@people.example`,
          email_verified: !id.startsWith("unverified"),
          preferred_username: id,
        };
      },
    };
  },
});
server.on("request", provider.callback());
lines.on("close", () => process.exit(0));
process.stdout.write(`${issuer}\n`);
