"""Over https the certificate counts: a pinned address is no reason to trust whoever is there."""

import asyncio
import datetime as dt
import ssl
from ipaddress import ip_address

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from pokerarena.agents.dial import Dialer
from pokerarena.agents.http import HttpPlayer
from pokerarena.agents.player import FallbackReason
from pokerarena.egress.policy import EgressPolicy
from tests.protocol.hands import a_callback


@pytest.fixture
def certificate(tmp_path):
    """A certificate for agent.test that nobody has signed but itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "agent.test")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("agent.test")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "agent.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return path


async def test_a_certificate_that_nobody_vouches_for_is_connect_failed(certificate):
    names_asked_for, requests = [], []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    context.sni_callback = lambda sock, name, context: names_asked_for.append(name)

    async def serve(reader, writer):
        requests.append(await reader.read(100))
        writer.close()

    async def resolve(host, port):
        return (ip_address("127.0.0.1"),)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    dialer = Dialer(EgressPolicy(allow_private=True), resolve=resolve)
    player = HttpPlayer(f"https://agent.test:{port}/", dialer)
    reply = await player.decide(a_callback(), 5_000)
    await dialer.close()
    server.close()
    await server.wait_closed()
    assert reply.reason is FallbackReason.CONNECT_FAILED
    assert "certificate" in reply.detail
    assert names_asked_for == ["agent.test"]
    assert requests == []


async def test_an_agent_that_does_not_speak_tls_is_connect_failed():
    async def serve(reader, writer):
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    dialer = Dialer(EgressPolicy(allow_private=True))
    player = HttpPlayer(f"https://127.0.0.1:{port}/", dialer)
    reply = await player.decide(a_callback(), 5_000)
    await dialer.close()
    server.close()
    await server.wait_closed()
    assert reply.reason is FallbackReason.CONNECT_FAILED
