"""A real object storage for tests: SeaweedFS' S3 gateway on this machine, and a wire to cut.

It is the program that people run in production, as one process with one volume server: signatures,
multipart uploads, conditional requests and TLS are its own. It is neither Amazon's nor replicated.
It sends no statistics: only loopback is spoken to.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import obstore
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from obstore.exceptions import BaseError
from obstore.store import S3Store

KEY_ID = "backup-of-tests"
SECRET = "a-secret-of-tests-only"
BUCKET = "arena"
DEADLINE_S = 60


class ObjectServer:
    """One SeaweedFS with one bucket."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir()
        ports = _free_ports(10)
        self.port, self.tls_port = ports[:2]
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.authority = directory / "authority.pem"
        _make_certificates(directory)
        identity = {
            "name": "backup",
            "credentials": [{"accessKey": KEY_ID, "secretKey": SECRET}],
            "actions": ["Admin", "Read", "Write", "List"],
        }
        (directory / "s3.json").write_text(json.dumps({"identities": [identity]}))
        (directory / "data").mkdir()
        names = ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc",
                 "filer.port", "filer.port.grpc", "s3.port.grpc")  # fmt: skip
        with (directory / "server.log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    Path(sys.executable).with_name("weed"),
                    *("-logtostderr=true", "server", f"-dir={directory / 'data'}"),
                    *("-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.telemetry=false"),
                    *("-master.volumeSizeLimitMB=64", "-volume.max=50", "-iam=false"),
                    *("-s3", "-s3.iam=false", f"-s3.config={directory / 's3.json'}"),
                    *("-s3.port.iceberg=0", "-s3.port.lance=0"),
                    *(f"-s3.port={self.port}", f"-s3.port.https={self.tls_port}"),
                    f"-s3.cert.file={directory / 'certificate.pem'}",
                    f"-s3.key.file={directory / 'key.pem'}",
                    *(f"-{name}={port}" for name, port in zip(names, ports[2:], strict=False)),
                    *(f"-{part}.localSocket={directory / part}.sock" for part in ("filer", "s3")),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.store = S3Store(
            BUCKET, endpoint=self.endpoint, region="us-east-1", access_key_id=KEY_ID,
            secret_access_key=SECRET, client_options={"allow_http": True},
            retry_config={"max_retries": 0},
        )  # fmt: skip

    def wait(self) -> None:
        """Until a bucket is there."""
        give_up_s = time.monotonic() + DEADLINE_S
        while True:
            try:
                # The first object of an administrator makes the bucket.
                obstore.put(self.store, "made", b"")
                obstore.delete(self.store, "made")
            except BaseError as error:
                said = (self.directory / "server.log").read_text()[-2000:]
                assert self._process.poll() is None, said
                assert time.monotonic() < give_up_s, f"{error}\n{said}"
                time.sleep(0.1)
            else:
                return

    def objects(self) -> dict[str, int]:
        """Names and sizes of all that is stored."""
        return {entry["path"]: entry["size"] for page in obstore.list(self.store) for entry in page}

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


@contextmanager
def object_server(directory: Path) -> Iterator[ObjectServer]:
    server = ObjectServer(directory)
    try:
        server.wait()
        yield server
    finally:
        server.stop()


class Wire:
    """Passes bytes on to a port until so many have gone through; then it is cut, for good."""

    def __init__(self, port: int, cut_after_bytes: int) -> None:
        self._port = port
        self._left = cut_after_bytes
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def cut(self) -> bool:
        return self._left <= 0

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.cut:
                client.close()
                continue
            server = socket.create_connection(("127.0.0.1", self._port))
            self._open += [client, server]
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._pass_on, args=(source, sink), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                self._left -= len(data)
                if self.cut:
                    break
                sink.sendall(data)
        except OSError:
            pass
        for one in [source, sink] if not self.cut else list(self._open):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._left = 0
        self._listener.close()
        for one in self._open:
            one.close()


def _free_ports(count: int) -> list[int]:
    """Distinct ones: each is held until all are known."""
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def _make_certificates(directory: Path) -> None:
    """An authority, and what it signs for 127.0.0.1."""
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    now = datetime.now(UTC)
    # By its address for our client, by its name for pgBackRest, which looks at names only.
    local = x509.SubjectAlternativeName(
        [x509.IPAddress(ip_address("127.0.0.1")), x509.DNSName("localhost")]
    )
    for name, key, is_authority in (("authority", keys[0], True), ("certificate", keys[1], False)):
        signed = (
            x509.CertificateBuilder()
            .subject_name(_named(name))
            .issuer_name(_named("authority"))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(local, critical=False)
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .sign(keys[0], hashes.SHA256())
        )
        (directory / f"{name}.pem").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    (directory / "key.pem").write_bytes(
        keys[1].private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"{name} of tests")])
