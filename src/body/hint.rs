use http_body::SizeHint;

/// The hint of a body whose rest has the hint `rest`, and of which so many bytes more were read
/// already and are still to be handed on.
pub(crate) fn with_read(rest: &SizeHint, bytes: usize) -> SizeHint {
    let bytes = bytes as u64;
    let mut hint = SizeHint::new();
    hint.set_lower(rest.lower().saturating_add(bytes));
    if let Some(upper) = rest.upper() {
        hint.set_upper(upper.saturating_add(bytes));
    }
    hint
}
