//! Reads what calls take in their query and path.

use std::str::FromStr;

use super::refusal::Refusal;
use crate::store::KeyRef;

/// The parameters of a query. Each is taken out by name; what is left is unknown.
pub(super) struct Params(Vec<(String, String)>);

impl Params {
    /// Reads `a=1&b=2`, percent-encoded, `+` for a space.
    pub(super) fn parse(query: Option<&str>) -> Result<Self, Refusal> {
        let mut params: Vec<(String, String)> = Vec::new();
        for pair in query.unwrap_or_default().split('&') {
            if pair.is_empty() {
                continue;
            }
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decode(name, true).ok_or_else(|| Refusal::unknown("%"))?;
            let value = decode(value, true)
                .ok_or_else(|| Refusal::invalid(&name, "percent-encoded UTF-8"))?;
            if params.iter().any(|(earlier, _)| *earlier == name) {
                return Err(Refusal::twice(&name));
            }
            params.push((name, value));
        }
        Ok(Self(params))
    }

    /// Refuses what was not taken.
    pub(super) fn finish(self) -> Result<(), Refusal> {
        match self.0.first() {
            None => Ok(()),
            Some((name, _)) => Err(Refusal::unknown(name)),
        }
    }

    /// A parameter's text; an empty one is none.
    pub(super) fn text(&mut self, name: &str) -> Option<String> {
        let at = self.0.iter().position(|(param, _)| param == name)?;
        Some(self.0.remove(at).1).filter(|text| !text.is_empty())
    }

    /// A parameter of a type that is read from text.
    pub(super) fn read<T: FromStr>(
        &mut self,
        name: &str,
        needs: &str,
    ) -> Result<Option<T>, Refusal> {
        self.text(name)
            .map(|text| text.parse().map_err(|_| Refusal::invalid(name, needs)))
            .transpose()
    }

    /// How many rows a page has: 1 to 1000, 100 where it is not given.
    pub(super) fn limit(&mut self) -> Result<usize, Refusal> {
        const NEEDS: &str = "a whole number from 1 to 1000";
        let limit = self.read("limit", NEEDS)?.unwrap_or(100);
        if (1..=1000).contains(&limit) { Ok(limit) } else { Err(Refusal::invalid("limit", NEEDS)) }
    }

    /// A key, by id or by its whole text.
    pub(super) fn key(&mut self) -> Option<KeyRef> {
        self.text("key").map(KeyRef::new)
    }
}

/// Undoes percent-encoding. `None` for a broken escape or for what is not UTF-8.
pub(super) fn decode(text: &str, plus_is_space: bool) -> Option<String> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let high = char::from(bytes.next()?).to_digit(16)?;
                let low = char::from(bytes.next()?).to_digit(16)?;
                u8::try_from(high * 16 + low).ok()?
            }
            b'+' if plus_is_space => b' ',
            byte => byte,
        });
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_decoded_once() {
        assert_eq!(decode("%E5%AF%86+%2B%252F", true).unwrap(), "密 +%2F");
        assert_eq!(decode("a+b", false).unwrap(), "a+b");
        for broken in ["%", "%4", "%zz", "%+1", "%ff"] {
            assert_eq!(decode(broken, false), None, "{broken}");
        }
    }

    #[test]
    fn unknown_and_repeated_parameters_are_refused() {
        assert!(Params::parse(Some("")).unwrap().finish().is_ok());
        assert!(Params::parse(Some("limit=1&limit=2")).is_err());
        let mut params = Params::parse(Some("limit=5&lmit=6")).unwrap();
        assert_eq!(params.limit().unwrap(), 5);
        let refusal = params.finish().unwrap_err().into_rejection();
        assert!(refusal.message.contains("`lmit`"));
    }
}
