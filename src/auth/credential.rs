//! Where a request carries its key.

use std::{borrow::Cow, fmt};

use http::{
    HeaderMap, HeaderValue, Request,
    header::{AUTHORIZATION, AsHeaderName, COOKIE, HeaderName},
};

use super::{AuthRejection, MalformedCredential};
use crate::{
    copies,
    key::{SecretKey, bearer},
};

const X_TRIAL_KEY: HeaderName = HeaderName::from_static("x-trial-key");
const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// Quotes and brackets that people copy along with a key, or that shells leave around it.
const DELIMITERS: [(char, char); 9] = [
    ('"', '"'),
    ('\'', '\''),
    ('`', '`'),
    ('<', '>'),
    ('[', ']'),
    ('{', '}'),
    ('(', ')'),
    ('“', '”'),
    ('‘', '’'),
];

/// Reads the credential of a request.
///
/// [`Bearer`], [`Header`] and [`Cookie`] are sources, and so are several of them, combined with
/// [`or`](Self::or):
///
/// ```
/// use tower_quota::{
///     auth::{Bearer, Cookie, CredentialSource, Header, TrialKeyAuthLayer},
///     store::memory::MemoryStore,
/// };
///
/// let source = Bearer.or(Header("x-api-key")).or(Cookie("key"));
/// let auth = TrialKeyAuthLayer::new(MemoryStore::new()).credential(source);
/// ```
///
/// Your own takes what it reads out of the headers:
///
/// ```
/// use http::{HeaderMap, header::AUTHORIZATION};
/// use tower_quota::auth::{AuthRejection, Credential, CredentialSource};
///
/// /// `Authorization: Key <key>`; other schemes are left to the application.
/// struct KeyScheme;
///
/// impl CredentialSource for KeyScheme {
///     fn take(&self, headers: &mut HeaderMap) -> Result<Option<Credential>, AuthRejection> {
///         let value = headers.get(AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Key "));
///         let Some(credential) = value.map(Credential::new) else { return Ok(None) };
///         headers.remove(AUTHORIZATION);
///         Ok(Some(credential))
///     }
/// }
/// # let mut headers = HeaderMap::new();
/// # headers.insert(AUTHORIZATION, "Basic dXNlcg==".parse().unwrap());
/// # assert!(KeyScheme.take(&mut headers).unwrap().is_none() && headers.len() == 1);
/// # headers.insert(AUTHORIZATION, "Key k".parse().unwrap());
/// # assert!(KeyScheme.take(&mut headers).unwrap().is_some() && headers.is_empty());
/// ```
pub trait CredentialSource: Send + Sync + 'static {
    /// Removes the credential from the headers and returns it, or `None` if there is none.
    ///
    /// # Errors
    ///
    /// The reason why what is there is no credential. It counts if no other source has a credential.
    fn take(&self, headers: &mut HeaderMap) -> Result<Option<Credential>, AuthRejection>;

    /// Returns how a client sends the credential, for the message to one that has not, for example
    /// ``as `x-api-key: <key>` ``. `None` by default.
    fn hint(&self) -> Option<String> {
        None
    }

    /// Also reads `other`. A request with different credentials in both is rejected with 400. The
    /// [hint](Self::hint) is the first source's.
    fn or<S>(self, other: S) -> Or<Self, S>
    where
        Self: Sized,
        S: CredentialSource,
    {
        Or(self, other)
    }
}

/// Text that a request carries as its key, without white space, quotes and brackets around it. `Debug`
/// does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential(Box<str>);

impl Credential {
    /// Creates a credential from the value of a header or a part of it.
    pub fn new(value: &[u8]) -> Self {
        Self(trim(&decode(value)).into())
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential(…)")
    }
}

/// `Authorization: Bearer <key>` (RFC 6750, section 2.1), with the scheme in any case.
///
/// The whole `Authorization` is removed, also if it has another scheme.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bearer;

/// A header with this name that holds the key alone.
///
/// The name is a string, or a [`HeaderName`], which need not be parsed for each request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<N>(pub N);

/// A cookie with this name (RFC 6265). Other cookies stay in the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cookie<N>(pub N);

/// Two sources, see [`CredentialSource::or`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Or<A, B>(A, B);

type Taken = Result<Option<Credential>, AuthRejection>;

impl CredentialSource for Bearer {
    fn take(&self, headers: &mut HeaderMap) -> Taken {
        take_header(headers, &AUTHORIZATION, from_authorization)
    }

    fn hint(&self) -> Option<String> {
        Some("as `Authorization: Bearer <key>`".to_owned())
    }
}

impl<N> CredentialSource for Header<N>
where
    N: AsHeaderName + AsRef<str> + Clone + Send + Sync + 'static,
{
    fn take(&self, headers: &mut HeaderMap) -> Taken {
        take_header(headers, &self.0, |value| Ok(non_empty(value.as_bytes())))
    }

    fn hint(&self) -> Option<String> {
        Some(format!("as `{}: <key>`", self.0.as_ref()))
    }
}

impl<N> CredentialSource for Cookie<N>
where
    N: AsRef<str> + Send + Sync + 'static,
{
    fn take(&self, headers: &mut HeaderMap) -> Taken {
        let value_of = |pair: &[u8]| {
            let value = pair.strip_prefix(self.0.as_ref().as_bytes())?.trim_ascii_start();
            value.strip_prefix(b"=").and_then(non_empty)
        };
        let is_own = |pair: &&[u8]| value_of(pair).is_some();
        if !headers.get_all(COOKIE).iter().flat_map(pairs).any(|pair| is_own(&pair)) {
            return Ok(None);
        }
        let values: Vec<HeaderValue> = headers.get_all(COOKIE).iter().cloned().collect();
        headers.remove(COOKIE);
        for value in &values {
            let kept: Vec<&[u8]> = pairs(value).filter(|pair| !is_own(pair)).collect();
            if !kept.is_empty()
                && let Ok(mut rest) = HeaderValue::from_bytes(&kept.join(&b"; "[..]))
            {
                rest.set_sensitive(value.is_sensitive());
                headers.append(COOKIE, rest);
            }
        }
        values.iter().flat_map(pairs).map(|pair| Ok(value_of(pair))).fold(Ok(None), merge)
    }

    fn hint(&self) -> Option<String> {
        Some(format!("in the cookie `{}`", self.0.as_ref()))
    }
}

impl<A: CredentialSource, B: CredentialSource> CredentialSource for Or<A, B> {
    fn take(&self, headers: &mut HeaderMap) -> Taken {
        merge(self.0.take(headers), self.1.take(headers))
    }

    fn hint(&self) -> Option<String> {
        self.0.hint()
    }
}

/// Returns the default source.
pub(super) fn default_source() -> impl CredentialSource {
    Bearer.or(Header(X_TRIAL_KEY)).or(Header(X_API_KEY))
}

/// Takes the key out of the request, with every copy of it in other headers and in the query.
pub(super) fn take_key<B>(
    source: &dyn CredentialSource,
    request: &mut Request<B>,
) -> Result<Option<SecretKey>, AuthRejection> {
    let headers = request.headers_mut();
    let Some(Credential(text)) = source.take(headers)? else { return Ok(None) };
    let key = SecretKey::from_text(text).map_err(|text| MalformedCredential::of_key(&text))?;
    let credential = key.expose().as_bytes();
    copies::remove_from_headers(headers, credential);
    if let Some(uri) = copies::without_pairs(request.uri(), credential) {
        *request.uri_mut() = uri;
    }
    Ok(Some(key))
}

/// Removes a header and returns the one credential in its values.
fn take_header(
    headers: &mut HeaderMap,
    name: &(impl AsHeaderName + Clone),
    read: impl Fn(&HeaderValue) -> Taken,
) -> Taken {
    // Without a look-up for their number: nearly always each header has one value.
    if headers.len() == headers.keys_len() {
        return headers.remove(name.clone()).map_or(Ok(None), |value| read(&value));
    }
    let taken = headers.get_all(name.clone()).iter().map(read).reduce(merge);
    let Some(taken) = taken else { return Ok(None) };
    headers.remove(name.clone());
    taken
}

/// Returns the one credential of two places in a request.
fn merge(one: Taken, other: Taken) -> Taken {
    match (one, other) {
        (one, Ok(None)) => one,
        (Err(AuthRejection::ConflictingKeys), _) | (_, Err(AuthRejection::ConflictingKeys)) => {
            Err(AuthRejection::ConflictingKeys)
        }
        (Ok(Some(one)), Ok(Some(other))) if one != other => Err(AuthRejection::ConflictingKeys),
        (Ok(Some(one)), _) | (_, Ok(Some(one))) => Ok(Some(one)),
        (_, other) => other,
    }
}

/// Returns what follows `Bearer`.
fn from_authorization(value: &HeaderValue) -> Taken {
    // Nearly all requests need no more.
    if let Some(credential) = bearer(value.as_bytes()).and_then(non_empty) {
        return Ok(Some(credential));
    }
    let text = decode(value.as_bytes());
    let text = trim(&text);
    let (scheme, key) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let malformed = if scheme.eq_ignore_ascii_case("bearer") {
        match trim(key) {
            "" => MalformedCredential::NoKey,
            key => return Ok(Some(Credential(key.into()))),
        }
    } else if text.is_empty() {
        return Ok(None);
    } else if key.is_empty() {
        MalformedCredential::NoScheme
    } else {
        MalformedCredential::OtherScheme
    };
    Err(malformed.into())
}

fn non_empty(value: &[u8]) -> Option<Credential> {
    Some(Credential::new(value)).filter(|credential| !credential.0.is_empty())
}

/// The pairs of names and values in a `Cookie` header.
fn pairs(value: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    value.as_bytes().split(|byte| *byte == b';').map(<[u8]>::trim_ascii)
}

/// Decodes a text, in which U+FFFD stands for what is not UTF-8.
fn decode(value: &[u8]) -> Cow<'_, str> {
    // Much faster than the loop of `from_utf8_lossy`, and nearly always enough.
    str::from_utf8(value).map_or_else(|_| String::from_utf8_lossy(value), Cow::Borrowed)
}

/// Trims white space, quotes and brackets.
fn trim(text: &str) -> &str {
    // Nearly all keys need no more: no delimiter begins so.
    if let [first, .., last] = text.as_bytes()
        && first.is_ascii_alphanumeric()
        && last.is_ascii_graphic()
    {
        return text;
    }
    let text = text.trim();
    let inside = DELIMITERS
        .iter()
        .find_map(|(opening, closing)| text.strip_prefix(*opening)?.strip_suffix(*closing));
    inside.map_or(text, trim)
}

impl MalformedCredential {
    /// Returns what is wrong with a text that cannot be a key.
    fn of_key(text: &str) -> Self {
        let scheme = text.get(.."bearer".len()).unwrap_or_default();
        if scheme.eq_ignore_ascii_case("bearer") && text.contains(char::is_whitespace) {
            return Self::DoubledScheme;
        }
        match text.chars().find(|letter| !letter.is_ascii_graphic()) {
            None => Self::TooLong,
            Some('…' | '•') => Self::Masked,
            Some('\u{ff01}'..='\u{ff5e}') => Self::FullWidth,
            Some(letter) if letter.is_whitespace() || letter.is_control() => Self::Space,
            Some(
                '\u{ad}'
                | '\u{200b}'..='\u{200f}'
                | '\u{202a}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}',
            ) => Self::Invisible,
            Some(_) => Self::NotAscii,
        }
    }
}
