use std::net::IpAddr;

use http::HeaderMap;
use ipnet::IpNet;

/// The address that the client is known by: the peer's, or, if the peer is a trusted proxy, the
/// rightmost address of `X-Forwarded-For` that is none.
pub(crate) fn client_addr(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let is_trusted = |ip: &IpAddr| trusted.iter().any(|network| network.contains(ip));
    if !is_trusted(&peer) {
        return peer;
    }
    let lines: Vec<&str> = headers
        .get_all("x-forwarded-for")
        .iter()
        .map(|line| line.to_str().unwrap_or_default())
        .collect();
    let mut known = peer;
    for hop in lines.iter().rev().flat_map(|line| line.rsplit(',')) {
        let Ok(hop) = hop.trim().parse::<IpAddr>() else {
            break;
        };
        known = hop.to_canonical();
        if !is_trusted(&known) {
            break;
        }
    }
    known
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known_by(peer: &str, forwarded: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for line in forwarded {
            headers.append("x-forwarded-for", line.parse().unwrap());
        }
        let trusted = ["10.0.0.0/8".parse().unwrap()];
        client_addr(peer.parse().unwrap(), &headers, &trusted).to_string()
    }

    #[test]
    fn only_a_trusted_proxy_is_believed() {
        assert_eq!(known_by("192.0.2.1", &["198.51.100.7"]), "192.0.2.1");
        assert_eq!(known_by("10.0.0.1", &["198.51.100.7"]), "198.51.100.7");
    }

    #[test]
    fn what_a_client_wrote_itself_is_not_believed() {
        let forwarded = ["127.0.0.1, 198.51.100.7", "10.0.0.2"];
        assert_eq!(known_by("10.0.0.1", &forwarded), "198.51.100.7");
        assert_eq!(known_by("10.0.0.1", &["1.2.3.4, nonsense"]), "10.0.0.1");
        assert_eq!(known_by("10.0.0.1", &[]), "10.0.0.1");
    }
}
