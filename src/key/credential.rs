/// Returns the token of `Bearer` credentials (RFC 6750, section 2.1; the scheme is
/// case-insensitive), or `None` for another scheme.
pub(crate) fn bearer(authorization: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = authorization.trim_ascii().split_at_checked("bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}
