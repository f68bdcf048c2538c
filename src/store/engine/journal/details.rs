//! What a record keeps of a single request.

use std::{borrow::Cow, time::Duration};

use bytes::{Buf, BufMut};
use http::Method;

use super::wire::{flag, get_text, get_time, put_text, put_time};
use crate::store::{RequestOutcome, UsageEvent, plain_path};

/// What is kept of a single request.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Details<'a> {
    pub(super) method: Method,
    pub(super) path: Cow<'a, str>,
    pub(super) outcome: RequestOutcome,
    pub(super) code: Option<Cow<'a, str>>,
    pub(super) requested_model: Option<&'a str>,
    pub(super) request_id: Option<&'a str>,
    pub(super) status: Option<u16>,
    pub(super) units: u32,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    pub(super) time_to_head: Option<Duration>,
    pub(super) time_to_first_byte: Option<Duration>,
    pub(super) duration: Duration,
}

const CODE: u8 = 1;
const MODEL_ASKED: u8 = 1 << 1;
const STATUS: u8 = 1 << 2;
const HEAD: u8 = 1 << 3;
const FIRST_BYTE: u8 = 1 << 4;
const REQUEST_ID: u8 = 1 << 5;

impl<'a> Details<'a> {
    pub(super) fn new(event: &'a UsageEvent) -> Self {
        Self {
            method: event.method.clone(),
            path: plain_path(&event.path).into(),
            outcome: event.outcome,
            code: event.code.clone(),
            requested_model: event.requested_model.as_deref(),
            request_id: event.request_id.as_deref(),
            status: event.status,
            units: event.units,
            bytes_in: event.bytes_in,
            bytes_out: event.bytes_out,
            time_to_head: event.time_to_head,
            time_to_first_byte: event.time_to_first_byte,
            duration: event.duration.unwrap_or_default(),
        }
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u8(
            flag(self.code.is_some(), CODE)
                | flag(self.requested_model.is_some(), MODEL_ASKED)
                | flag(self.status.is_some(), STATUS)
                | flag(self.time_to_head.is_some(), HEAD)
                | flag(self.time_to_first_byte.is_some(), FIRST_BYTE)
                | flag(self.request_id.is_some(), REQUEST_ID),
        );
        put_text(out, self.method.as_str());
        put_text(out, &self.path);
        put_text(out, self.outcome.as_str());
        self.code.iter().for_each(|code| put_text(out, code));
        self.requested_model.into_iter().for_each(|model| put_text(out, model));
        self.status.into_iter().for_each(|status| out.put_u16_le(status));
        out.put_u32_le(self.units);
        out.put_u64_le(self.bytes_in);
        out.put_u64_le(self.bytes_out);
        put_time(out, self.duration);
        self.time_to_head.into_iter().for_each(|time| put_time(out, time));
        self.time_to_first_byte.into_iter().for_each(|time| put_time(out, time));
        self.request_id.into_iter().for_each(|id| put_text(out, id));
    }

    pub(super) fn decode(bytes: &mut &'a [u8]) -> Option<Self> {
        let flags = bytes.try_get_u8().ok()?;
        let has = |flag| flags & flag != 0;
        let method = get_text(bytes)?.parse().ok()?;
        let path = get_text(bytes)?;
        let outcome = RequestOutcome::from_name(get_text(bytes)?)?;
        Some(Self {
            method,
            path: path.into(),
            outcome,
            code: if has(CODE) { Some(get_text(bytes)?.into()) } else { None },
            requested_model: if has(MODEL_ASKED) { Some(get_text(bytes)?) } else { None },
            status: if has(STATUS) { Some(bytes.try_get_u16_le().ok()?) } else { None },
            units: bytes.try_get_u32_le().ok()?,
            bytes_in: bytes.try_get_u64_le().ok()?,
            bytes_out: bytes.try_get_u64_le().ok()?,
            duration: get_time(bytes)?,
            time_to_head: if has(HEAD) { Some(get_time(bytes)?) } else { None },
            time_to_first_byte: if has(FIRST_BYTE) { Some(get_time(bytes)?) } else { None },
            request_id: if has(REQUEST_ID) { Some(get_text(bytes)?) } else { None },
        })
    }
}
