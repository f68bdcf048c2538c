//! Routing by path and method, to the page or to a call.

use http::Method;

use crate::{
    admin::http::{call::Call, error::AdminError},
    error::catalog,
};

/// Returns whether the page is at this path below the prefix. It holds no data and needs no token.
pub(crate) fn is_page(method: &Method, path: &str) -> Result<bool, AdminError> {
    match *method {
        _ if !matches!(path, "" | "/") => Ok(false),
        Method::GET | Method::HEAD => Ok(true),
        _ => Err(AdminError::method_not_allowed("GET, HEAD")),
    }
}

/// Finds the call with this method at this path below the prefix, and the segment for its parameter.
pub(crate) fn find<'a, 'p, T>(
    calls: &'a [Call<T>],
    method: &Method,
    path: &'p str,
) -> Result<(&'a Call<T>, Option<&'p str>), AdminError> {
    // A literal path goes before one with a parameter.
    let matching = calls.iter().filter_map(|call| Some((call, segment_in(path, call.path)?)));
    let (first, segment) =
        matching.min_by_key(|(_, segment)| segment.is_some()).ok_or(catalog::NOT_FOUND)?;
    let method = if method == Method::HEAD { "GET" } else { method.as_str() };
    let mut siblings = calls.iter().filter(|call| call.path == first.path);
    let call = siblings.clone().find(|call| call.method == method);
    let call = call.ok_or_else(|| AdminError::method_not_allowed(&allowed(&mut siblings)))?;
    Ok((call, segment))
}

/// Matches the path against the template, and returns the segment for its parameter, if it has one.
fn segment_in<'p>(path: &'p str, template: &str) -> Option<Option<&'p str>> {
    let mut segment = None;
    let mut parts = path.split('/');
    for expected in template.split('/') {
        match parts.next()? {
            "" if expected.starts_with('{') => return None,
            part if expected.starts_with('{') => segment = Some(part),
            part if part == expected => {}
            _ => return None,
        }
    }
    parts.next().is_none().then_some(segment)
}

/// The methods of these calls, as listed in `Allow`.
fn allowed<'a, T: 'a>(calls: &mut dyn Iterator<Item = &'a Call<T>>) -> String {
    let methods = calls.flat_map(|call| match call.method {
        "GET" => vec!["GET", "HEAD"],
        method => vec![method],
    });
    methods.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_takes_one_segment_for_its_parameter() {
        for (path, template, found) in [
            ("/keys", "/keys", Some(None)),
            ("/keys/a", "/keys/{ref}", Some(Some("a"))),
            ("/keys/a%2Fb/rotate", "/keys/{ref}/rotate", Some(Some("a%2Fb"))),
            ("/nodes/3/release", "/nodes/{number}/release", Some(Some("3"))),
            ("/keys/", "/keys/{ref}", None),
            ("/keys/a/b", "/keys/{ref}", None),
            ("/keys/a", "/keys", None),
            ("keys", "/keys", None),
        ] {
            assert_eq!(segment_in(path, template), found, "{path} {template}");
        }
    }
}
