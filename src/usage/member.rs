//! Finds members of a JSON object that passes by in any chunks.

use std::ops::ControlFlow;

use memchr::memchr;

/// What is looked for.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) members: &'static [Member],
    pub(super) inner: &'static [Inner],
}

/// An object right in the outermost one whose members are looked for, too. Names are in quotes.
#[derive(Debug)]
pub(super) enum Inner {
    /// The member of this name.
    Object(&'static [u8]),
    /// The first item of the array that the member of this name is.
    FirstItem(&'static [u8]),
}

impl Inner {
    fn name(&self) -> &'static [u8] {
        let (Self::Object(name) | Self::FirstItem(name)) = self;
        name
    }
}

/// A member that is looked for.
#[derive(Debug)]
pub(super) struct Member {
    /// Its name, in quotes. A name that is written with escapes is taken for another.
    pub(super) name: &'static [u8],
    /// The most bytes that its value may have.
    pub(super) longest: u16,
}

/// A member that was found.
#[derive(Debug, PartialEq)]
pub(super) struct Found<'a> {
    /// Its place among those that are looked for.
    pub(super) member: u8,
    /// The place among the inner objects of the one that it is in; `None` in the outermost.
    pub(super) within: Option<u8>,
    /// Its value as it is written; `None` if that is too long.
    pub(super) value: Option<&'a [u8]>,
}

/// Finds members of the outermost object and of some of the objects right in it. Nothing else is
/// taken for them: not what lies deeper, and not what strings say.
///
/// It copies a name or value only if that comes in several chunks, and takes no more memory than the
/// longest, at any depth. Of members with the same name each is found.
#[derive(Debug)]
pub(super) struct MemberScanner {
    wanted: &'static Wanted,
    within: Option<u8>,
    place: Place,
    /// What the latest name stands for.
    named: Named,
    /// Whether the next byte of a string is escaped.
    escaped: bool,
    /// Whether a string is open in a value that is passed over, and how many objects and arrays are.
    in_string: bool,
    depth: u64,
    /// The array that turned out to have no first item.
    empty: Option<u8>,
    /// What of a name or value came in earlier chunks.
    kept: Vec<u8>,
    /// How many bytes more may be kept; `None` if it is not of interest or too long.
    room: Option<u16>,
}

/// What comes next in an object whose members are looked for.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    Object,
    Name,
    InName,
    Colon,
    Value,
    FirstItem,
    InString,
    /// The rest of an object or array.
    InNested,
    /// The rest of a number, `true`, `false` or `null`.
    InLiteral,
    Comma,
    /// Nothing: the object has ended, nothing more is wanted of it, or this is no JSON.
    Over,
}

#[derive(Clone, Copy, Debug)]
enum Named {
    Member(u8),
    Inner(u8),
    Other,
}

/// Longer than any name that is looked for.
const LONGEST_NAME: u16 = 32;

impl MemberScanner {
    pub(super) fn new(wanted: &'static Wanted) -> Self {
        Self {
            wanted,
            within: None,
            place: Place::Object,
            named: Named::Other,
            escaped: false,
            in_string: false,
            depth: 0,
            empty: None,
            kept: Vec::new(),
            room: None,
        }
    }

    /// Begins anew, with another object.
    pub(super) fn reset(&mut self) {
        *self = Self::new(self.wanted);
    }

    /// Whether nothing of the object has come.
    pub(super) fn is_unbegun(&self) -> bool {
        self.place == Place::Object
    }

    /// Whether this one of the inner objects is missing as its array has no items.
    pub(super) fn is_empty(&self, inner: u8) -> bool {
        self.empty == Some(inner)
    }

    /// Whether nothing more can be found.
    pub(super) fn is_over(&self) -> bool {
        self.place == Place::Over
    }

    /// Scans the next chunk, and hands on each member whose value ends in it, until nothing more is
    /// wanted of the object.
    pub(super) fn scan(
        &mut self,
        chunk: &[u8],
        mut found: impl FnMut(Found<'_>) -> ControlFlow<()>,
    ) {
        // Where in this chunk the name or value begins that may have to be kept.
        let mut begin = 0;
        let mut at = 0;
        while at < chunk.len() {
            let rest = &chunk[at..];
            let length = match self.place {
                Place::Over => return,
                Place::InName | Place::InString => self.string_end(rest),
                Place::InNested => self.nested_end(rest),
                Place::InLiteral => rest.iter().position(|&byte| ends_literal(byte)),
                _ => {
                    self.step(rest[0]);
                    begin = at;
                    at += 1;
                    continue;
                }
            };
            let Some(length) = length else { break };
            at += length;
            match self.place {
                Place::InName => self.end_name(&chunk[begin..at]),
                _ => self.end_value(&chunk[begin..at], &mut found),
            }
        }
        self.keep(&chunk[begin..]);
    }

    /// Reads a byte of the structure.
    fn step(&mut self, byte: u8) {
        self.place = match self.place {
            Place::Object if byte == b'{' => Place::Name,
            Place::Name if byte == b'"' => {
                self.room = Some(LONGEST_NAME);
                Place::InName
            }
            Place::Colon if byte == b':' => Place::Value,
            Place::Comma if byte == b',' => Place::Name,
            place if matches!(byte, b' ' | b'\t' | b'\n' | b'\r') => place,
            Place::Value => self.begin_value(byte),
            Place::FirstItem => self.begin_item(byte),
            Place::Name | Place::Comma if byte == b'}' => self.end_object(),
            _ => Place::Over,
        }
    }

    fn begin_value(&mut self, byte: u8) -> Place {
        self.room = match self.named {
            Named::Member(member) => Some(self.wanted.members[usize::from(member)].longest),
            _ => None,
        };
        let inner = match self.named {
            Named::Inner(inner) => Some((inner, &self.wanted.inner[usize::from(inner)])),
            _ => None,
        };
        match (byte, inner) {
            (b'{', Some((inner, Inner::Object(_)))) => {
                self.within = Some(inner);
                Place::Name
            }
            (b'[', Some((_, Inner::FirstItem(_)))) => Place::FirstItem,
            (b'{' | b'[', _) => {
                self.depth = 1;
                Place::InNested
            }
            (b'"', _) => Place::InString,
            (b'}' | b']' | b',' | b':', _) => Place::Over,
            _ => Place::InLiteral,
        }
    }

    /// What comes first in an array whose first item is looked into.
    fn begin_item(&mut self, byte: u8) -> Place {
        let Named::Inner(inner) = self.named else { return Place::Over };
        self.empty = None;
        self.depth = 1;
        match byte {
            b'{' => {
                self.within = Some(inner);
                return Place::Name;
            }
            b']' => {
                self.empty = Some(inner);
                return Place::Comma;
            }
            b'[' => self.depth = 2,
            b'"' => self.in_string = true,
            b'}' | b',' | b':' => return Place::Over,
            _ => {}
        }
        Place::InNested
    }

    /// What comes after an object's end.
    fn end_object(&mut self) -> Place {
        let Some(inner) = self.within.take() else { return Place::Over };
        self.named = Named::Other;
        match self.wanted.inner[usize::from(inner)] {
            Inner::Object(_) => Place::Comma,
            Inner::FirstItem(_) => {
                self.depth = 1;
                Place::InNested
            }
        }
    }

    fn end_name(&mut self, end: &[u8]) {
        let (wanted, is_outermost) = (self.wanted, self.within.is_none());
        let name = self.whole(end).unwrap_or_default();
        let member = (0..).zip(wanted.members).find(|(_, member)| member.name == name);
        let inner =
            || (0..).zip(wanted.inner).find(|(_, inner)| inner.name() == name && is_outermost);
        self.named = match member {
            Some((at, _)) => Named::Member(at),
            None => inner().map_or(Named::Other, |(at, _)| Named::Inner(at)),
        };
        self.forget(Place::Colon);
    }

    fn end_value(&mut self, end: &[u8], found: &mut impl FnMut(Found<'_>) -> ControlFlow<()>) {
        let mut place = Place::Comma;
        if let Named::Member(member) = self.named {
            let within = self.within;
            if found(Found { member, within, value: self.whole(end) }).is_break() {
                place = Place::Over;
            }
        }
        self.forget(place);
    }

    /// The name or value that ends with these bytes, unless it is too long.
    fn whole<'a>(&'a mut self, end: &'a [u8]) -> Option<&'a [u8]> {
        if end.len() > self.room?.into() {
            return None;
        }
        if self.kept.is_empty() {
            return Some(end);
        }
        self.kept.extend_from_slice(end);
        Some(&self.kept)
    }

    /// Keeps these bytes of a name or value that goes on in the next chunk.
    fn keep(&mut self, bytes: &[u8]) {
        let Some(room) = self.room else { return };
        self.room = u16::try_from(bytes.len()).ok().and_then(|length| room.checked_sub(length));
        match self.room {
            Some(_) => self.kept.extend_from_slice(bytes),
            None => self.kept = Vec::new(),
        }
    }

    fn forget(&mut self, place: Place) {
        self.place = place;
        self.room = None;
        self.kept.clear();
    }

    /// How many of these bytes still belong to the object or array, if it ends within them.
    fn nested_end(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        loop {
            if self.in_string {
                at += self.string_end(&bytes[at..])?;
                self.in_string = false;
            }
            at += 1 + bytes[at..].iter().position(|&byte| is_structure(byte))?;
            match bytes[at - 1] {
                b'"' => self.in_string = true,
                b'{' | b'[' => self.depth += 1,
                _ => self.depth -= 1,
            }
            if self.depth == 0 {
                return Some(at);
            }
        }
    }

    /// How many of these bytes still belong to the string, if it ends within them. Quotes are rarer
    /// than escapes: each line of a prompt ends with one of those.
    fn string_end(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut from = 0;
        while let Some(found) = memchr(b'"', &bytes[from..]) {
            let at = from + found;
            if !self.is_escaped(&bytes[..at]) {
                self.escaped = false;
                return Some(at + 1);
            }
            from = at + 1;
        }
        self.escaped = self.is_escaped(bytes);
        None
    }

    /// Whether what follows these bytes of a string is escaped.
    fn is_escaped(&self, before: &[u8]) -> bool {
        let run = before.iter().rev().take_while(|byte| **byte == b'\\').count();
        let carried = self.escaped && run == before.len();
        (run % 2 == 1) != carried
    }
}

/// Whether a string, object or array begins or ends here.
fn is_structure(byte: u8) -> bool {
    matches!(byte, b'"' | b'{' | b'}' | b'[' | b']')
}

fn ends_literal(byte: u8) -> bool {
    matches!(byte, b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r')
}

#[cfg(test)]
mod tests;
