"""Which addresses are on the public internet. Pure.

By exclusion from IANA's special-purpose registries (RFC 6890 and its updates). `ipaddress`'s
`is_global` does not do: it holds multicast, `fec0::/10` and most IPv6 forms of private IPv4
addresses for global. What carries an IPv4 address in an IPv6 one (mapped, compatible, 6to4, NAT64,
Teredo, ISATAP) is never public, whatever it carries: where such an address ends is decided by a
relay that we do not know.
"""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final

_NOT_PUBLIC_4: Final = tuple(
    IPv4Network(text)
    for text in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # carrier-grade NAT; a cloud's metadata at 100.100.100.200
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # a public number, but inside Azure it is the machine's own host
        "169.254.0.0/16",  # link-local; the metadata of most clouds
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # IETF assignments; a cloud's metadata at 192.0.0.192
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relays, withdrawn
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
    )
)
# All of IPv6 that is given out for global unicast. Outside: unspecified, loopback, the mapped and
# compatible forms, NAT64, discard, local, link-local, site-local and multicast addresses.
_UNICAST_6: Final = IPv6Network("2000::/3")
_NOT_PUBLIC_6: Final = tuple(
    IPv6Network(text)
    for text in (
        "2001::/23",  # IETF assignments, with Teredo, benchmarks and ORCHID
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4
        "3fff::/20",  # documentation
    )
)
# RFC 5214, section 6.1: the upper half of the interface identifier, local or global.
_ISATAP: Final = (0x00005EFE, 0x02005EFE)


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether `address` itself is that of one host on the public internet."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _NOT_PUBLIC_4)
    return (
        address in _UNICAST_6
        and address.scope_id is None
        and (int(address) >> 32) & 0xFFFFFFFF not in _ISATAP
        and not any(address in network for network in _NOT_PUBLIC_6)
    )
