//! Which call a path and method name, or whether they name the page.

use http::Method;

use super::{call::Call, refusal::Refusal};

/// Whether the page is at this path below the prefix. It holds no data and needs no token.
pub(super) fn is_page(method: &Method, path: &str) -> Result<bool, Refusal> {
    match *method {
        _ if !matches!(path, "" | "/") => Ok(false),
        Method::GET | Method::HEAD => Ok(true),
        _ => Err(Refusal::wrong_method("GET, HEAD")),
    }
}

/// The call of this method at this path below the prefix, and what stands for its `{ref}`.
pub(super) fn find<'a, 'p, T>(
    calls: &'a [Call<T>],
    method: &Method,
    path: &'p str,
) -> Result<(&'a Call<T>, Option<&'p str>), Refusal> {
    // A path that is written out goes before one with a key in it.
    let of_path = calls.iter().filter_map(|call| Some((call, key_in(path, call.path)?)));
    let (nearest, key) =
        of_path.min_by_key(|(_, key)| key.is_some()).ok_or_else(Refusal::not_found)?;
    let method = if method == Method::HEAD { &Method::GET } else { method };
    let mut here = calls.iter().filter(|call| call.path == nearest.path);
    let found = here.clone().find(|call| call.method == *method);
    let found = found.ok_or_else(|| Refusal::wrong_method(&allowed(&mut here)))?;
    Ok((found, key))
}

/// What the path has for the template's `{ref}`, if it fits; nothing if there is none.
fn key_in<'p>(path: &'p str, template: &str) -> Option<Option<&'p str>> {
    let mut key = None;
    let mut parts = path.split('/');
    for wanted in template.split('/') {
        match parts.next()? {
            "" if wanted == "{ref}" => return None,
            part if wanted == "{ref}" => key = Some(part),
            part if part == wanted => {}
            _ => return None,
        }
    }
    parts.next().is_none().then_some(key)
}

/// The methods of these calls as `Allow` lists them.
fn allowed<'a, T: 'a>(calls: &mut dyn Iterator<Item = &'a Call<T>>) -> String {
    let methods = calls.flat_map(|call| match call.method {
        Method::GET => vec!["GET", "HEAD"],
        ref method => vec![method.as_str()],
    });
    methods.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_takes_one_segment_for_its_key() {
        for (path, template, found) in [
            ("/keys", "/keys", Some(None)),
            ("/keys/a", "/keys/{ref}", Some(Some("a"))),
            ("/keys/a%2Fb/rotate", "/keys/{ref}/rotate", Some(Some("a%2Fb"))),
            ("/keys/", "/keys/{ref}", None),
            ("/keys/a/b", "/keys/{ref}", None),
            ("/keys/a", "/keys", None),
            ("keys", "/keys", None),
        ] {
            assert_eq!(key_in(path, template), found, "{path} {template}");
        }
    }
}
