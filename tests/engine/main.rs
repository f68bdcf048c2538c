//! Counting: the limit is exact, and every request is counted once, whatever ends it and whatever the clock does.

#[path = "../common/mod.rs"]
mod common;

mod crash;
mod cut_off;
mod days;
mod days_faketime;
mod delete_and_use;
mod exactness;
mod key_limits;
mod ledger;
mod months;
mod refund_limits;
mod refunds;
mod reset;
mod restart;
mod tokens;
