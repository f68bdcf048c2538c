//! When the gateway's day turns, by the machine's clock as libfaketime shows it.

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
};

use common::{Answer, Client, Gateway, GatewayCommand, eventually};
use serde_json::json;

const LIMIT: u64 = 5;

fn library() -> PathBuf {
    const PLACES: [&str; 3] = [
        "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
        "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
        "/usr/lib/faketime/libfaketimeMT.so.1",
    ];
    PLACES.iter().map(PathBuf::from).find(|path| path.exists()).expect("faketime is installed")
}

/// A gateway whose clock begins at this time, and goes on.
struct Timed {
    gateway: Gateway,
    time: PathBuf,
    key: String,
}

impl Timed {
    async fn start(zone: &str, time: &str) -> Self {
        let command = GatewayCommand::new().arg("--demo").env("QUOTA_TIMEZONE", zone);
        let file = command.dir().join("time");
        set(&file, time);
        let gateway = command
            .env("LD_PRELOAD", library().display().to_string())
            .env("FAKETIME_TIMESTAMP_FILE", file.display().to_string())
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .start();
        let key = gateway.create_key(json!({"daily_limit": LIMIT})).await;
        Self { gateway, time: file, key }
    }

    /// It is this time now: `2026-11-22 23:59:59.9`, in UTC.
    fn set(&self, time: &str) {
        set(&self.time, time);
    }

    async fn post(&self) -> Answer {
        let url = self.gateway.url("/v1/chat/completions");
        Client::http1().post_as(&self.key, &url, &json!({"messages": []})).await
    }

    async fn status(&self) -> u16 {
        self.post().await.status.as_u16()
    }

    /// Exactly the limit is admitted now.
    async fn is_a_new_day(&self, what: &str) {
        for _ in 0..LIMIT {
            assert_eq!(self.status().await, 200, "{what}");
        }
        assert_eq!(self.status().await, 429, "{what}");
    }
}

fn set(file: &Path, time: &str) {
    // Replaced at once, so that no half of it is read.
    let new = file.with_extension("new");
    fs::write(&new, format!("@{time}\n")).unwrap();
    fs::rename(new, file).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs faketime"]
async fn a_day_turns_under_load_a_tenth_of_a_second_after_23_59_59_9() {
    let timed = Timed::start("UTC", "2026-11-22 12:00:00").await;
    timed.is_a_new_day("noon").await;
    timed.set("2026-11-22 23:59:59.9");
    let mut answered = 0;
    eventually("the next day is used up, too", || async {
        match timed.status().await {
            200 => true,
            429 => false,
            other => panic!("{other}"),
        }
    })
    .await;
    answered += 1;
    while timed.status().await == 200 {
        answered += 1;
    }
    assert_eq!(answered, LIMIT);
    let usage = Client::http1().get_as(&timed.key, &timed.gateway.url("/usage")).await.json();
    assert_eq!((&usage["day"], &usage["used"]), (&json!("2026-11-23"), &json!(LIMIT)));
    assert_eq!(usage["resets_at"], "2026-11-24T00:00:00Z");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs faketime"]
async fn days_of_23_and_25_hours_turn_when_their_zone_says() {
    // The zone, a time within the day, its last second, its successor's first, all in UTC.
    let days = [
        ("Europe/Berlin", "2026-03-29 10:00:00", "2026-03-29 21:59:50", "2026-03-29 22:00:01"),
        ("America/New_York", "2026-11-01 12:00:00", "2026-11-02 04:59:50", "2026-11-02 05:00:01"),
        (
            "Australia/Lord_Howe",
            "2026-04-05 01:00:00",
            "2026-04-05 13:29:50",
            "2026-04-05 13:30:01",
        ),
        ("America/Santiago", "2026-09-06 05:00:00", "2026-09-07 02:59:50", "2026-09-07 03:00:01"),
        ("Africa/Cairo", "2026-10-29 05:00:00", "2026-10-29 21:59:50", "2026-10-29 22:00:01"),
    ];
    for (zone, within, last, next) in days {
        let timed = Timed::start(zone, within).await;
        timed.is_a_new_day(zone).await;
        timed.set(last);
        assert_eq!(timed.status().await, 429, "{zone} at its end");
        timed.set(next);
        timed.is_a_new_day(zone).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs faketime"]
async fn a_clock_that_jumps_a_day_to_and_fro_never_reopens_a_day() {
    let mut timed = Timed::start("UTC", "2026-11-22 12:00:00").await;
    timed.is_a_new_day("the first day").await;
    timed.set("2026-11-23 12:00:00");
    timed.is_a_new_day("a jump of a day").await;
    timed.set("2026-11-22 12:00:00");
    assert_eq!(timed.status().await, 429, "and back");
    timed.gateway.restart();
    assert_eq!(timed.status().await, 429, "also after kill -9");
    timed.set("2026-11-23 12:00:00");
    assert_eq!(timed.status().await, 429, "the day that was used up");
    timed.set("2026-11-24 00:00:01");
    timed.is_a_new_day("the day after").await;
    timed.gateway.restart();
    assert_eq!(timed.status().await, 429, "kill -9 across it");
}
