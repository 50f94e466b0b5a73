"""Responses are read strictly and within bounds, however they arrive."""

import http.client
import io
import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pokerarena.agents.wire import MalformedResponse, OversizedResponse, ResponseReader

LIMIT = 1_000
OK = b"HTTP/1.1 200 OK\r\n"


def read(data, pieces=(), limit=LIMIT):
    """The reader after `data` and the end of the connection; cut where `pieces` says."""
    reader = ResponseReader(limit)
    cuts = [0, *sorted(cut % (len(data) + 1) for cut in pieces), len(data)]
    complete = False
    for start, end in itertools.pairwise(cuts):
        if complete:
            break
        if start < end:
            complete = reader.feed(data[start:end])
    complete = complete or reader.end()
    return reader, complete


GOOD = {
    "length": OK + b"Content-Length: 5\r\n\r\nhello",
    "length in other letters": OK + b"CONTENT-length:5\r\n\r\nhello",
    "the same length twice": OK + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "no reason": b"HTTP/1.1 200\r\nContent-Length: 5\r\n\r\nhello",
    "chunks": OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\n\r\n",
    "trailers": OK + b"Transfer-Encoding: Chunked\r\n\r\n5\r\nhello\r\n0\r\nA: b\r\nC: d\r\n\r\n",
    "until close": OK + b"Connection: close\r\n\r\nhello",
    "old version": b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    "interim": b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"Content-Length: 5\r\n\r\nhello",
    "identity": OK + b"Content-Encoding: identity\r\nContent-Length: 5\r\n\r\nhello",
}


@pytest.mark.parametrize("name", GOOD)
@given(pieces=st.lists(st.integers(0, 300), max_size=12))
def test_a_good_response_is_read_the_same_in_whatever_pieces_it_comes(name, pieces):
    reader, complete = read(GOOD[name], pieces)
    assert (complete, reader.status, reader.body) == (True, 200, b"hello")


@pytest.mark.parametrize("name", [name for name in GOOD if name not in ("until close", "interim")])
def test_the_standard_library_reads_the_same(name):
    class Socket:
        def makefile(self, mode):
            return io.BytesIO(GOOD[name])

    oracle = http.client.HTTPResponse(Socket())
    oracle.begin()
    reader, _ = read(GOOD[name])
    assert (oracle.status, oracle.read()) == (reader.status, reader.body)


@pytest.mark.parametrize(
    ("name", "reusable"),
    [("length", True), ("chunks", True), ("old version", False), ("identity", True)],
)
def test_a_connection_is_used_again_only_after_a_response_that_allows_it(name, reusable):
    reader = ResponseReader(LIMIT)
    assert reader.feed(GOOD[name])
    assert reader.reusable == reusable


def test_bytes_after_the_response_spoil_the_connection():
    reader = ResponseReader(LIMIT)
    assert reader.feed(GOOD["length"] + OK)
    assert reader.body == b"hello"
    assert not reader.reusable


@pytest.mark.parametrize("status", [201, 204, 301, 304, 307, 404, 500, 503])
def test_another_status_is_complete_with_its_head_and_ends_the_connection(status):
    reader = ResponseReader(LIMIT)
    assert reader.feed(b"HTTP/1.1 %d Whatever\r\nContent-Length: 99999999\r\n\r\nx" % status)
    assert (reader.status, reader.body, reader.reusable) == (status, b"", False)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"hello", "not HTTP"),
        (b"\x16\x03\x01", "not HTTP"),
        (b"HTTP/2 200 OK\r\n\r\n", "not HTTP"),
        (b"HTTP/1.2 200 OK\r\n\r\n", "status line"),
        (b"HTTP/1.1 0200 OK\r\n\r\n", "status line"),
        (b"HTTP/1.1  200 OK\r\n\r\n", "status line"),
        (b"HTTP/1.1 600 No\r\n\r\n", "status line"),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "status 101"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 5 + OK + b"\r\n", "status 100"),
        (OK + b"no colon\r\n\r\n", "header line"),
        (OK + b": no name\r\n\r\n", "header line"),
        (OK + b"Spaced : x\r\n\r\n", "header line"),
        (OK + b"Folded: a\r\n b\r\n\r\n", "header line"),
        (OK + b"Bare: a\nContent-Length: 5\r\n\r\nhello", "header line"),
        (OK + b"Nul: \0\r\n\r\n", "header line"),
        (OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", "one number"),
        (OK + b"Content-Length: 5, 6\r\n\r\nhello", "one number"),
        (OK + b"Content-Length: +5\r\n\r\nhello", "one number"),
        (OK + b"Content-Length: -5\r\n\r\nhello", "one number"),
        (OK + b"Content-Length: 0x5\r\n\r\nhello", "one number"),
        (OK + b"Content-Length: \r\n\r\nhello", "one number"),
        (OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", "ambiguous"),
        (OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n", "ambiguous"),
        (OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", "ambiguous"),
        (OK + b"Transfer-Encoding: xchunked\r\n\r\n", "ambiguous"),
        (OK + b"Content-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello", "compressed"),
        (OK + b"Content-Encoding: identity, br\r\n\r\n", "compressed"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", "no size"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n", "no size"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"1" * 300, "no size"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhello\r\n", "longer than it said"),
    ],
)
def test_what_could_be_read_in_two_ways_is_malformed(data, says):
    with pytest.raises(MalformedResponse, match=says):
        read(data)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (OK + b"Content-Length: 1001\r\n\r\n", "larger than 1000"),
        (OK + b"Content-Length: 999999999999\r\n\r\n", "larger than 1000"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n3e9\r\n", "larger than 1000"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 1_001, "larger than 1000"),
        (OK + b"\r\n" + b"x" * 1_001, "larger than 1000"),
        (OK + b"A: b\r\n" * 4_000, "headers"),
        (b"HTTP/1.1 200 " + b"x" * 20_000, "headers"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"A: b\r\n" * 1_000, "trailers"),
    ],
)
def test_what_is_too_large_is_refused_as_soon_as_that_is_known(data, says):
    with pytest.raises(OversizedResponse, match=says):
        read(data, pieces=range(0, len(data), 97))


@pytest.mark.parametrize(
    "data",
    [b"", OK, GOOD["length"][:-1], GOOD["chunks"][:-1], GOOD["trailers"][:-3], GOOD["chunks"][:-7]],
)
def test_a_response_that_stops_half_way_is_not_complete(data):
    _, complete = read(data)
    assert not complete


@given(st.binary(max_size=400), st.lists(st.integers(0, 400), max_size=6))
def test_arbitrary_bytes_end_in_a_response_or_in_one_of_two_errors(data, pieces):
    for prefix in (b"", OK, OK + b"Transfer-Encoding: chunked\r\n\r\n"):
        try:
            reader, _ = read(prefix + data, pieces)
        except (MalformedResponse, OversizedResponse):
            continue
        assert len(reader.body) <= LIMIT


def test_good_responses_with_a_few_changed_bytes_never_do_worse():
    source = random.Random(3)
    for _ in range(20_000):
        data = bytearray(source.choice(list(GOOD.values())))
        for _ in range(source.randint(1, 3)):
            data[source.randrange(len(data))] = source.randrange(256)
        try:
            reader, _ = read(bytes(data), [source.randrange(200)])
        except (MalformedResponse, OversizedResponse):
            continue
        assert len(reader.body) <= LIMIT
