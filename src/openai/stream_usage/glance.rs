use std::{mem, sync::OnceLock};

use memchr::{memchr2, memmem::Finder};

/// Reads an event's data as it comes, and says as soon as it is known not to be a JSON object with an
/// empty `choices` array.
///
/// It only looks for that member, so whoever has the whole event has to judge it.
#[derive(Default)]
pub(super) struct Glance {
    place: Place,
    depth: u32,
    escaped: bool,
}

/// What comes next.
#[derive(Clone, Copy, Default)]
enum Place {
    #[default]
    Object,
    Name,
    /// A name, of which so many bytes are those of `choices`; `None` if it is another.
    InName(Option<usize>),
    Colon {
        choices: bool,
    },
    Choices,
    Choice,
    Value,
    InString,
    End,
}

const CHOICES: &[u8] = b"choices";

impl Glance {
    /// Whether it may be one, with these bytes more.
    pub(super) fn may_be_extra(&mut self, mut bytes: &[u8]) -> bool {
        if let Place::Object = self.place
            && has_choice(bytes) == Some(true)
        {
            return false;
        }
        while let Some(&byte) = bytes.first() {
            let place = self.place;
            let used = match place {
                _ if mem::take(&mut self.escaped) => 1,
                Place::InString | Place::InName(_) => self.read_text(bytes),
                _ if self.step(byte) => 1,
                _ => return false,
            };
            bytes = &bytes[used..];
        }
        true
    }

    /// Reads on in a string or name, to its end or the next escape. Returns how many bytes that took.
    fn read_text(&mut self, bytes: &[u8]) -> usize {
        let end = memchr2(b'"', b'\\', bytes);
        let (text, mark) = bytes.split_at(end.unwrap_or(bytes.len()));
        let is_over = mark.starts_with(b"\"");
        self.escaped = mark.starts_with(b"\\");
        self.place = match self.place {
            Place::InName(same) => {
                let same = same.filter(|&same| !self.escaped && CHOICES[same..].starts_with(text));
                let same = same.map(|same| same + text.len());
                match is_over {
                    true => Place::Colon { choices: same == Some(CHOICES.len()) },
                    false => Place::InName(same),
                }
            }
            _ if is_over => Place::Value,
            place => place,
        };
        text.len() + mark.len().min(1)
    }

    fn step(&mut self, byte: u8) -> bool {
        self.place = match self.place {
            Place::Value => self.value(byte),
            place if byte.is_ascii_whitespace() => place,
            Place::Object if byte == b'{' => Place::Name,
            Place::Name if byte == b'"' => Place::InName(Some(0)),
            Place::Colon { choices: true } if byte == b':' => Place::Choices,
            Place::Colon { choices: false } if byte == b':' => Place::Value,
            Place::Choices if byte == b'[' => Place::Choice,
            Place::Choice if byte == b']' => Place::Value,
            _ => return false,
        };
        true
    }

    /// A byte of a value that matters only for where it ends.
    fn value(&mut self, byte: u8) -> Place {
        match byte {
            b'"' => return Place::InString,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' if self.depth == 0 => return Place::End,
            b'}' | b']' => self.depth -= 1,
            b',' if self.depth == 0 => return Place::Name,
            _ => {}
        }
        Place::Value
    }
}

/// Whether an object that begins with these bytes has a choice, where that is plain to see, as it mostly
/// is: `choices` comes before anything nested. Exact for JSON; of anything else nothing is taken out.
fn has_choice(bytes: &[u8]) -> Option<bool> {
    static NAME: OnceLock<Finder<'static>> = OnceLock::new();
    let name = NAME.get_or_init(|| Finder::new(b"\"choices\""));
    let (before, after) = bytes.split_at(name.find(bytes)?);
    let members = before.trim_ascii_start().strip_prefix(b"{")?;
    if memchr2(b'{', b'[', members).is_some() || members.ends_with(b"\\") {
        return None;
    }
    let value = after[name.needle().len()..].trim_ascii_start().strip_prefix(b":")?;
    let first = value.trim_ascii_start().strip_prefix(b"[")?.trim_ascii_start().first()?;
    Some(*first != b']')
}
