//! Addresses that mean "here", or what trusts whoever asks from here.
//!
//! A connector's wildcard must not lead to them: whoever runs a name's DNS zone
//! chooses where it points. A gateway that many share must not send to its own.
//! Private networks are not on the list: they are what tunnels are for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Instance metadata that is not link-local already: Alibaba Cloud
/// (100.100.100.200), Azure's wire server (168.63.129.16) and Amazon's over
/// IPv6 (fd00:ec2::254). All hand credentials to whoever asks from inside.
const METADATA_V4: [Ipv4Addr; 2] = [
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(168, 63, 129, 16),
];
const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

/// Whether an address is this machine, a link-local one, metadata, or none
/// that a connection can be made to.
pub fn is_local(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => is_local_v4(ip),
        IpAddr::V6(ip) => is_local_v6(ip),
    }
}

/// 0/8 is "this host" (RFC 1122 3.2.1.3): Linux connects 0.0.0.0 to loopback.
/// 240/4 holds the broadcast address and nothing that can be reached.
fn is_local_v4(ip: Ipv4Addr) -> bool {
    ip.octets()[0] == 0
        || ip.is_loopback()
        || ip.is_link_local()
        || ip.is_multicast()
        || ip.octets()[0] >= 240
        || METADATA_V4.contains(&ip)
}

fn is_local_v6(ip: Ipv6Addr) -> bool {
    if ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || ip == METADATA_V6 {
        return true;
    }
    let segments = ip.segments();
    if segments[0] & 0xffc0 == 0xfe80 {
        return true;
    }
    // An IPv4 address in other clothes: IPv4-compatible (RFC 4291 2.5.5.1),
    // NAT64 (RFC 6052) and 6to4 (RFC 3056).
    let embedded = match segments {
        [0, 0, 0, 0, 0, 0, hi, lo] | [0x64, 0xff9b, 0, 0, 0, 0, hi, lo] => Some((hi, lo)),
        [0x2002, hi, lo, ..] => Some((hi, lo)),
        _ => None,
    };
    embedded.is_some_and(|(hi, lo)| {
        let [a, b] = hi.to_be_bytes();
        let [c, d] = lo.to_be_bytes();
        is_local_v4(Ipv4Addr::new(a, b, c, d))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(text: &str) -> bool {
        is_local(text.parse().expect("an address"))
    }

    #[test]
    fn this_machine_and_its_neighbourhood_are_local() {
        for ip in [
            "127.0.0.1",
            "127.255.255.254",
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "168.63.129.16",
            "100.100.100.200",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "febf::1",
            "ff02::1",
            "fd00:ec2::254",
        ] {
            assert!(local(ip), "{ip}");
        }
    }

    #[test]
    fn an_ipv4_address_is_known_in_any_clothes() {
        for ip in [
            "::ffff:127.0.0.1",
            "::127.0.0.1",
            "64:ff9b::169.254.169.254",
            "2002:7f00:1::",
        ] {
            assert!(local(ip), "{ip}");
        }
        assert!(!local("64:ff9b::192.0.2.1"));
    }

    #[test]
    fn private_and_public_networks_are_not_local() {
        for ip in [
            "10.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "100.64.0.1",
            "192.0.2.1",
            "fd12::1",
            "2001:db8::1",
        ] {
            assert!(!local(ip), "{ip}");
        }
    }
}
