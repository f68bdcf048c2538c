//! Which call a path and method name.

use http::Method;

use super::{query::decode, refusal::Refusal};
use crate::store::KeyRef;

/// A call of the admin API.
#[derive(Debug)]
pub(super) enum Route {
    Page(Asset),
    CreateKeys,
    ListKeys,
    GetKey(KeyRef),
    UpdateKey(KeyRef),
    DeleteKey(KeyRef),
    RotateKey(KeyRef),
    Usage,
    ResetUsage,
    Audit,
}

/// A file of the page. They hold no data and need no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asset {
    Html,
    Css,
    Js,
    Texts,
}

impl Asset {
    /// The file at this path below the prefix.
    pub(super) fn at(path: &str) -> Option<Self> {
        match path {
            "" | "/" => Some(Self::Html),
            "/page.css" => Some(Self::Css),
            "/page.js" => Some(Self::Js),
            "/texts.js" => Some(Self::Texts),
            _ => None,
        }
    }
}

impl Route {
    /// The call of this method at this path below the prefix.
    pub(super) fn find(method: &Method, path: &str) -> Result<Self, Refusal> {
        if let Some(asset) = Asset::at(path) {
            return read(method, || Self::Page(asset));
        }
        let mut parts = path.strip_prefix('/').unwrap_or_default().split('/');
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some("keys"), None, ..) => match *method {
                Method::POST => Ok(Self::CreateKeys),
                Method::GET | Method::HEAD => Ok(Self::ListKeys),
                _ => Err(Refusal::wrong_method("GET, HEAD, POST")),
            },
            (Some("keys"), Some(key), None, _) => match *method {
                Method::GET | Method::HEAD => Ok(Self::GetKey(key_ref(key)?)),
                Method::PATCH => Ok(Self::UpdateKey(key_ref(key)?)),
                Method::DELETE => Ok(Self::DeleteKey(key_ref(key)?)),
                _ => Err(Refusal::wrong_method("GET, HEAD, PATCH, DELETE")),
            },
            (Some("keys"), Some(key), Some("rotate"), None) => match *method {
                Method::POST => Ok(Self::RotateKey(key_ref(key)?)),
                _ => Err(Refusal::wrong_method("POST")),
            },
            (Some("usage"), None, ..) => read(method, || Self::Usage),
            (Some("reset-usage"), None, ..) => match *method {
                Method::POST => Ok(Self::ResetUsage),
                _ => Err(Refusal::wrong_method("POST")),
            },
            (Some("audit"), None, ..) => read(method, || Self::Audit),
            _ => Err(Refusal::not_found()),
        }
    }

    /// Whether the call reads a body.
    pub(super) fn takes_body(&self) -> bool {
        matches!(
            self,
            Self::CreateKeys | Self::UpdateKey(_) | Self::RotateKey(_) | Self::ResetUsage
        )
    }
}

fn read(method: &Method, route: impl FnOnce() -> Route) -> Result<Route, Refusal> {
    match *method {
        Method::GET | Method::HEAD => Ok(route()),
        _ => Err(Refusal::wrong_method("GET, HEAD")),
    }
}

fn key_ref(text: &str) -> Result<KeyRef, Refusal> {
    let text = decode(text, false).filter(|text| !text.is_empty());
    text.map(KeyRef::new).ok_or_else(Refusal::unknown_key)
}
