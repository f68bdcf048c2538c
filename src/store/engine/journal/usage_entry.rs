//! What a record keeps for the ledger.

use bytes::{Buf, BufMut};

use super::{
    details::Details,
    wire::{flag, from_unix_millis, get_day, get_text, put_day, put_text, unix_millis},
};
use crate::{
    clock::Day,
    key::KeyId,
    store::{RequestOutcome, RequestRecord, Tokens, UsageEvent, UsageFigures},
};

/// What the ledger keeps of one request.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct UsageEntry<'a> {
    /// When it was received, and the day by the calendar of that time.
    pub(crate) at: i64,
    pub(crate) day: Day,
    pub(crate) class: Class,
    pub(crate) refunded: bool,
    pub(crate) tokens: Option<Tokens>,
    pub(crate) model: Option<&'a str>,
    /// Whether an open request ends with it.
    pub(crate) closes: bool,
    /// What is kept of it beside the sums.
    pub(crate) details: Option<Details<'a>>,
}

/// How a request ended, as far as it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    Succeeded = 1,
    Failed = 2,
    Rejected = 3,
}

const GIVEN_BACK: u8 = 1;
const TOKENS: u8 = 1 << 1;
const MODEL: u8 = 1 << 2;
const CACHED: u8 = 1 << 3;
const REASONING: u8 = 1 << 4;
const DETAILS: u8 = 1 << 5;
const CLOSES: u8 = 1 << 6;

impl<'a> UsageEntry<'a> {
    pub(crate) fn new(event: &'a UsageEvent, day: Day, closes: bool) -> Self {
        let class = match event.outcome {
            RequestOutcome::Succeeded => Class::Succeeded,
            RequestOutcome::Failed | RequestOutcome::ClientGone => Class::Failed,
            RequestOutcome::Rejected => Class::Rejected,
        };
        let (refunded, tokens) = (event.refunded, event.tokens);
        Self {
            at: unix_millis(event.at),
            day,
            class,
            refunded,
            tokens,
            model: event.model.as_deref(),
            closes,
            details: None,
        }
    }

    /// The same with what is kept of the single request.
    pub(crate) fn with_details(self, event: &'a UsageEvent) -> Self {
        Self { details: Some(Details::new(event)), ..self }
    }

    /// The record of the single request, if it is to be kept.
    pub(crate) fn record(&self, id: &KeyId) -> Option<RequestRecord> {
        let details = self.details.as_ref()?;
        let mut event = UsageEvent::new(from_unix_millis(self.at));
        event.key_id = Some(id.clone());
        event.method = details.method.clone();
        event.path = details.path.to_string();
        event.status = details.status;
        event.outcome = details.outcome;
        event.code = details.code.clone().map(|code| code.into_owned().into());
        event.units = details.units;
        event.refunded = self.refunded;
        event.requested_model = details.requested_model.map(str::to_owned);
        event.request_id = details.request_id.map(str::to_owned);
        event.model = self.model.map(str::to_owned);
        event.tokens = self.tokens;
        event.bytes_in = details.bytes_in;
        event.bytes_out = details.bytes_out;
        event.time_to_head = details.time_to_head;
        event.time_to_first_byte = details.time_to_first_byte;
        event.duration = Some(details.duration);
        RequestRecord::new(0, event)
    }

    pub(crate) fn figures(&self) -> UsageFigures {
        UsageFigures {
            requests: (self.class != Class::Rejected).into(),
            succeeded: (self.class == Class::Succeeded).into(),
            failed: (self.class == Class::Failed).into(),
            refunded: (self.refunded && self.class != Class::Rejected).into(),
            rejected: (self.class == Class::Rejected).into(),
            tokens_unknown: (self.class == Class::Succeeded && self.tokens.is_none()).into(),
            tokens: self.tokens.unwrap_or_default(),
        }
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u8(
            flag(self.refunded, GIVEN_BACK)
                | flag(self.tokens.is_some(), TOKENS)
                | flag(self.model.is_some(), MODEL)
                | flag(self.tokens.is_some_and(|tokens| tokens.cached.is_some()), CACHED)
                | flag(self.tokens.is_some_and(|tokens| tokens.reasoning.is_some()), REASONING)
                | flag(self.details.is_some(), DETAILS)
                | flag(self.closes, CLOSES),
        );
        out.put_u8(self.class as u8);
        out.put_i64_le(self.at);
        put_day(out, self.day);
        if let Some(tokens) = self.tokens {
            out.put_u64_le(tokens.prompt);
            out.put_u64_le(tokens.completion);
            out.put_u64_le(tokens.total);
            tokens.cached.into_iter().for_each(|cached| out.put_u64_le(cached));
            tokens.reasoning.into_iter().for_each(|reasoning| out.put_u64_le(reasoning));
        }
        if let Some(model) = self.model {
            put_text(out, model);
        }
        if let Some(details) = &self.details {
            details.encode(out);
        }
    }

    pub(super) fn decode(bytes: &mut &'a [u8]) -> Option<Self> {
        let flags = bytes.try_get_u8().ok()?;
        let class = match bytes.try_get_u8().ok()? {
            1 => Class::Succeeded,
            2 => Class::Failed,
            3 => Class::Rejected,
            _ => return None,
        };
        let at = bytes.try_get_i64_le().ok()?;
        let day = get_day(bytes)?;
        let has = |flag| flags & flag != 0;
        let tokens = if has(TOKENS) {
            let mut number = || bytes.try_get_u64_le().ok();
            let told = Tokens::new(number()?, number()?, number()?);
            let cached = if has(CACHED) { Some(number()?) } else { None };
            let reasoning = if has(REASONING) { Some(number()?) } else { None };
            Some(Tokens { cached, reasoning, ..told })
        } else {
            None
        };
        let model = if has(MODEL) { Some(get_text(bytes)?) } else { None };
        let details = if has(DETAILS) { Some(Details::decode(bytes)?) } else { None };
        let (refunded, closes) = (has(GIVEN_BACK), has(CLOSES));
        Some(Self { at, day, class, refunded, tokens, model, closes, details })
    }
}
