"""Which URLs the settings allow, and what is left of one that is."""

from pathlib import Path

import pytest

from consumer.check import http_hosts
from consumer.images.sources.hosts import HostRules, NotAllowedError
from imagelane.exits import ExitCode, FatalError
from tests.hostile_http import http_settings, http_source

RULES = HostRules.parse(
    ("images.example.com", ".example.org", "Bücher.example", "api.test:8443", "[2001:4860::1]:81"),
    public=False,
    networks=(),
)


@pytest.mark.parametrize(
    ("uri", "asked"),
    [
        ("http://images.example.com", "http://images.example.com/"),
        ("HTTPS://Images.Example.COM:443/A?b#c", "https://images.example.com/A?b"),
        ("https://example.org/", "https://example.org/"),
        ("https://a.b.example.org/%2e%2e/x", "https://a.b.example.org/%2e%2e/x"),
        ("https://a_b.example.org?x", "https://a_b.example.org/?x"),
        ("https://bücher.example/", "https://xn--bcher-kva.example/"),
        ("https://xn--bcher-kva.example/", "https://xn--bcher-kva.example/"),
        ("https://BÜCHER。example/", "https://xn--bcher-kva.example/"),
        ("http://api.test:8443/", "http://api.test:8443/"),
        ("https://api.test:8443/", "https://api.test:8443/"),
        ("http://[2001:4860:0:0::1]:81/", "http://[2001:4860::1]:81/"),
    ],
)
def test_allowed_url_is_asked_as_it_was_written(uri: str, asked: str) -> None:
    """The host is normalised, a fragment and a default port go, path and query stay."""
    assert str(RULES.target(uri)) == asked


@pytest.mark.parametrize(
    "uri",
    [
        "http://example.com/",
        "http://a.images.example.com/",
        "http://images.example.com.evil.test/",
        "http://evil-images.example.com/",
        "http://notexample.org/",
        "http://example.org.evil.test/",
        "http://images.example.com:8080/",
        "https://images.example.com:80/",
        "http://images.example.com:443/",
        "http://api.test/",
        "https://api.test/",
        "http://[2001:4860::1]/",
        "http://8.8.8.8/",
        "http://images.example.com./",
        "http://user@images.example.com/",
        "http:/images.example.com/",
        "http:///images.example.com/",
        "http:images.example.com/",
        "http://images.example.com\\@evil.test/",
        "http://images.example.com /",
        "http://images.example.com/a b",
        "http://images.example.com/\u00e4",
        "http://images.example.com/\r\nHost: evil.test",
        "http://images.example.com/?a\tb",
        "http://images.example.com/#a\nb",
        "\thttp://images.example.com/",
        "http://images.example.com/" + "a" * 8192,
        "file://images.example.com/",
    ],
)
def test_anything_else_is_refused(uri: str) -> None:
    """A name that only looks like an allowed one, another port, another way to write it."""
    with pytest.raises(NotAllowedError):
        RULES.target(uri)


def test_public_hosts_are_asked_at_default_ports_only() -> None:
    """A service of somebody else at another port is no image host."""
    rules = HostRules.parse((), public=True, networks=())
    assert rules.target("https://anything.test/").host == "anything.test"
    for uri in ("http://anything.test:22/", "http://anything.test:443/", "https://8.8.8.8:80/"):
        with pytest.raises(NotAllowedError):
            rules.target(uri)


@pytest.mark.parametrize(
    "entry",
    [
        *("*", "*.example.org", "https://a.test", "a.test/", "a.test:0", "a:b", ".", "..a"),
        *(".127.0.0.1", "127.1", "user@a.test", "a b.test", "[::1", "10.0.0.0/8"),
    ],
)
async def test_bad_entry_stops_the_start(entry: str) -> None:
    """A typing error must not allow more, or less, than was meant."""
    with pytest.raises(FatalError) as caught:
        async with http_source(http_settings(allowed_hosts=(entry,))):
            pass
    assert caught.value.code is ExitCode.SETTINGS
    assert "ALLOWED_HOSTS" in str(caught.value)


async def test_other_bad_settings_stop_the_start(tmp_path: Path) -> None:
    """A network with host bits, a file of authorities that is none."""
    (tmp_path / "ca.pem").write_text("nothing")
    bad: list[tuple[dict[str, object], str]] = [
        ({"allowed_networks": ("10.0.0.1/8",)}, "ALLOWED_NETWORKS"),
        ({"allowed_networks": ("all",)}, "ALLOWED_NETWORKS"),
        ({"http_ca_file": str(tmp_path / "ca.pem")}, "HTTP_CA_FILE"),
        ({"http_ca_file": str(tmp_path / "no.pem")}, "HTTP_CA_FILE"),
    ]
    for changes, name in bad:
        with pytest.raises(FatalError, match=name):
            async with http_source(http_settings(allow_public_hosts=True, **changes)):
                pass


@pytest.mark.parametrize("proxy", ["http://user:secret@proxy:3128", "socks5://proxy", "proxy:3128"])
def test_proxy_is_a_plain_address(proxy: str) -> None:
    """No credentials: they would show wherever the address does."""
    with pytest.raises(ValueError, match="egress_proxy"):
        http_settings(egress_proxy=proxy)


def test_check_says_what_is_allowed() -> None:
    """An operator sees at a glance how far references reach."""
    settings = http_settings(
        allowed_hosts=("a.test", ".b.test"),
        allow_public_hosts=True,
        allowed_networks=("10.0.0.0/8",),
        egress_proxy="http://proxy:3128",
    )
    said = "a.test, .b.test, all public ones, also at 10.0.0.0/8, through http://proxy:3128"
    assert http_hosts(settings) == said
    assert http_hosts(http_settings()) == "none, so http: and https: are forbidden"
