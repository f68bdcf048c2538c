use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, Request};
use ipnet::IpNet;
use tower_quota::{request::RequestContext, server::PeerAddr};

/// Sets the client's address, and that of a trusted proxy, in the request's context. Returns the client's.
pub(crate) fn set_client_addr<B>(request: &mut Request<B>, trusted: &[IpNet]) -> Option<IpAddr> {
    let peer = request.extensions().get().copied().map(PeerAddr::ip)?;
    let client = client_addr(peer, request.headers(), trusted);
    let context = RequestContext::of(request.extensions_mut());
    if let Some(client) = client {
        context.set_client_addr(client);
    }
    if trusted.iter().any(|network| network.contains(&peer)) {
        context.set_trusted_peer(peer);
    }
    client
}

/// Returns the address of the client: the peer's, or, if the peer is a trusted proxy, the rightmost
/// address of `X-Forwarded-For` that is not a trusted proxy's. Returns `None` if there is no valid
/// address: such a client must not be taken for the proxy.
fn client_addr(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> Option<IpAddr> {
    let is_trusted = |ip: &IpAddr| trusted.iter().any(|network| network.contains(ip));
    if !is_trusted(&peer) {
        return Some(peer);
    }
    let mut client = peer;
    let lines = headers.get_all("x-forwarded-for").iter();
    for hop in lines.rev().flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b',')) {
        if !is_trusted(&client) {
            break;
        }
        client = hop_addr(hop)?;
    }
    Some(client)
}

/// Parses an address, which some load balancers write with the client's port.
fn hop_addr(hop: &[u8]) -> Option<IpAddr> {
    let hop = std::str::from_utf8(hop).ok()?.trim();
    let with_port = || hop.parse().map(|address: SocketAddr| address.ip());
    hop.parse().or_else(|_| with_port()).ok().map(|ip: IpAddr| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(peer: &str, forwarded: &[&str]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for line in forwarded {
            headers.append("x-forwarded-for", line.parse().unwrap());
        }
        let trusted = ["10.0.0.0/8".parse().unwrap()];
        client_addr(peer.parse().unwrap(), &headers, &trusted).map(|ip| ip.to_string())
    }

    #[test]
    fn only_a_trusted_proxy_names_the_client() {
        for (peer, forwarded, expected) in [
            ("192.0.2.1", vec!["198.51.100.7"], "192.0.2.1"),
            ("192.0.2.1", vec!["nonsense"], "192.0.2.1"),
            ("10.0.0.1", vec!["198.51.100.7"], "198.51.100.7"),
            ("10.0.0.1", vec!["127.0.0.1, 198.51.100.7", "10.0.0.2"], "198.51.100.7"),
            ("10.0.0.1", vec!["nonsense, 198.51.100.7"], "198.51.100.7"),
            ("10.0.0.1", vec!["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            ("10.0.0.1", vec![], "10.0.0.1"),
        ] {
            assert_eq!(client(peer, &forwarded).as_deref(), Some(expected), "{peer} {forwarded:?}");
        }
    }

    #[test]
    fn an_address_may_have_a_port() {
        for (hop, expected) in [
            ("198.51.100.7:4711", "198.51.100.7"),
            ("[2001:db8::1]:443", "2001:db8::1"),
            ("2001:db8::1", "2001:db8::1"),
            ("::ffff:198.51.100.7", "198.51.100.7"),
            ("[::ffff:198.51.100.7]:80", "198.51.100.7"),
        ] {
            assert_eq!(client("10.0.0.1", &[hop]).as_deref(), Some(expected));
        }
    }

    #[test]
    fn an_invalid_address_is_an_unknown_client() {
        for hop in [
            "",
            "unknown",
            "_hidden",
            "198.51.100.007",
            "198.51.100.7:",
            "198.51.100.7:70000",
            "[2001:db8::1]",
            "2001:db8::1:443:",
            "198.51.100.7 10.0.0.1",
            "198.51.100.7,",
            "nonsense, 10.0.0.2",
            "\"198.51.100.7\"",
            "198.51.100.7;proto=https",
        ] {
            assert_eq!(client("10.0.0.1", &[hop]), None, "{hop}");
        }
    }
}
