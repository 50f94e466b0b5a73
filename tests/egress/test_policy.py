"""Callbacks go to public addresses only, unless the operator says otherwise."""

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pokerarena.egress.policy import EgressDenied, EgressPolicy

STRICT = EgressPolicy()
LOCAL = EgressPolicy(allow_private=True)

PUBLIC = ["1.1.1.1", "93.184.216.34", "192.0.1.1", "2606:4700::1111", "2a00:1450:4001::1"]
PRIVATE = [
    "127.0.0.1",
    "127.255.255.254",
    "10.0.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "100.64.0.1",
    "100.127.255.255",
    "::1",
    "fc00::1",
    "fd12:3456::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
]
NEVER = [
    "0.0.0.0",
    "0.1.2.3",
    "169.254.1.1",
    "169.254.169.254",
    "::ffff:169.254.169.254",
    "168.63.129.16",
    "100.100.100.200",
    "192.0.0.192",
    "fd00:ec2::254",
    "192.0.0.8",
    "192.0.2.1",
    "192.88.99.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::7f00:1",
    "::ffff:0:127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002::1",
    "3fff::1",
    "5f00::1",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
    "4000::1",
    "8000::1",
]


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_allowed(address):
    STRICT.check_address(ip_address(address))


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_are_denied_unless_the_operator_allows_them(address):
    with pytest.raises(EgressDenied):
        STRICT.check_address(ip_address(address))
    LOCAL.check_address(ip_address(address))


@pytest.mark.parametrize("address", NEVER)
def test_reserved_and_metadata_addresses_are_denied_whatever_the_operator_says(address):
    for policy in (STRICT, LOCAL):
        with pytest.raises(EgressDenied):
            policy.check_address(ip_address(address))


@given(st.ip_addresses())
def test_every_address_that_is_not_global_is_denied(address):
    try:
        STRICT.check_address(address)
    except EgressDenied:
        return
    assert address.is_global
    assert not address.is_multicast


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_inside_an_ipv6_one_is_judged_as_itself(address):
    def denied(candidate):
        try:
            STRICT.check_address(candidate)
        except EgressDenied:
            return True
        return False

    assert denied(ip_address(f"::ffff:{address}")) == denied(address)


def test_one_bad_address_condemns_a_name_and_so_does_none():
    good, bad = ip_address("1.1.1.1"), ip_address("10.0.0.1")
    STRICT.check_addresses([good])
    for addresses in ([good, bad], [bad, good], []):
        with pytest.raises(EgressDenied):
            STRICT.check_addresses(addresses)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/",
        "http://127.0.0.1./",
        "http://127.1/",
        "http://2130706433/",
        "http://0x7f000001/",
        "http://0x7f.1/",
        "http://017700000001/",
        "http://0177.0.0.01/",
        "http://0/",
        "http://127.0.0.1:8080/agent",
        "http://①②⑦.⓪.⓪.①/",
        "http://127。0。0。1/",
        "http://%31%32%37.0.0.1/",
        "http://[::1]/",
        "http://[::]/",
        "http://[0:0:0:0:0:ffff:7f00:1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://[::127.0.0.1]/",
        "http://[64:ff9b::127.0.0.1]/",
        "http://[fe80::1%25eth0]/",
        "http://[fe80::1%eth0]/",
        "http://169.254.169.254/latest/meta-data/",
        "http://localhost/",
        "http://LOCALHOST:9000/",
        "http://agent.localhost/",
        "http://10.1.2.3/",
        "http:127.0.0.1/",
        "http:///127.0.0.1/",
    ],
)
def test_an_address_is_recognised_in_whatever_form_it_is_written(url):
    assert STRICT.check_url(url), url


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("ftp://agent.example.com/", "scheme 'ftp' is not allowed; use http or https"),
        ("file:///etc/passwd", "scheme 'file'"),
        ("gopher://agent.example.com:70/", "scheme 'gopher'"),
        ("agent.example.com", "not a URL"),
        ("", "not a URL"),
        ("http://", "not a URL"),
        ("https://a:b@agent.example.com/", "user name or password"),  # pragma: allowlist secret
        ("https://user@agent.example.com/", "user name or password"),
        ("https://@agent.example.com/", "user name or password"),
        ("https://1.1.1.1@agent.example.com/", "user name or password"),
        ("https://agent.example.com\\@10.0.0.1/", "backslash"),
        ("https://agent.example.com/ x", "spaces"),
        (" https://agent.example.com/", "spaces"),
        ("https://agent.exa\tmple.com/", "spaces"),
        ("https://agent.example.com/\x00", "spaces"),
        ("https://agent.example.com/#top", "fragment"),
        ("https://agent.example.com./", "ends in a dot"),
        ("https://agent..example.com/", "empty or too long part"),
        ("https://agent!.example.com/", "characters other than"),
        ("https://*.example.com/", "characters other than"),
        ("https://" + "a" * 64 + ".com/", "empty or too long part"),
        ("https://" + "a." * 130 + "com/", "too long"),
        ("https://agent.example.com/" + "a" * 2048, "longer than 2048"),
        ("https://agent.example.com:22/", "port 22 is not allowed"),
        ("https://agent.example.com:25/", "port 25"),
        ("https://agent.example.com:0/", "port 0"),
        ("https://agent.example.com:65536/", "not a URL"),
    ],
)
def test_a_url_that_cannot_be_a_callback_is_refused_with_the_reason(url, says):
    (problem,) = STRICT.check_url(url)
    assert says in problem


@pytest.mark.parametrize(
    "url",
    [
        "https://agent.example.com",
        "https://agent.example.com/play?key=1",
        "http://agent.example.com:8080/",
        "https://bücher.example.com/",
        "https://1.1.1.1/",
        "https://[2606:4700::1111]/",
        "HTTPS://AGENT.EXAMPLE.COM/@me",
    ],
)
def test_an_ordinary_url_is_accepted(url):
    assert STRICT.check_url(url) == []


def test_the_operator_narrows_schemes_ports_and_domains():
    policy = EgressPolicy(
        schemes=frozenset({"https"}),
        port_ranges=((443, 443),),
        allowed_domains=frozenset({".example.com"}),
        denied_domains=frozenset({".bad.example.com"}),
    )
    assert policy.check_url("https://example.com/") == []
    assert policy.check_url("https://a.example.com/") == []
    for url in (
        "http://example.com/",
        "https://example.com:8443/",
        "https://bad.example.com/",
        "https://very.bad.example.com/",
        "https://example.com.evil.net/",
        "https://notexample.com/",
        "https://1.1.1.1/",
    ):
        assert policy.check_url(url), url


def test_the_operator_denies_networks_of_their_own():
    policy = EgressPolicy(denied_networks=(ip_network("1.1.1.0/24"),))
    with pytest.raises(EgressDenied):
        policy.check_address(ip_address("1.1.1.1"))
    policy.check_address(ip_address("1.1.2.1"))


def test_a_refusal_does_not_tell_what_is_behind_a_name():
    for address in (*PRIVATE, *NEVER):
        with pytest.raises(EgressDenied) as refused:
            STRICT.check_address(ip_address(address))
        assert address not in str(refused.value)
