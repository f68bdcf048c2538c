//! A byte of the journal is overwritten while the gateway is down.
//!
//! Completed requests that are not in the database yet are there. If the machine did not reboot since,
//! every byte is as it was written, so a start that finds another one is rejected. After another boot
//! the end of the journal may not have survived: what lies before the damage counts.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rusqlite::Connection;
use serde_json::json;
use tempfile::TempDir;

use crate::{
    common::{
        Client, Gateway, GatewayCommand, Random, Upstream, chat_json, eventually, json_response,
    },
    files::{copy, live_segment},
    scene::{TIME_LIMIT, command},
};

const LIMIT: usize = 200;
/// Responds, all of which are in the journal and not in the database.
const MOST: usize = 50;
/// Of a segment's head, the bytes that say something (docs/journal-format.md).
const HEAD: u64 = 48;

/// What a killed gateway has left behind.
struct Remains {
    dir: TempDir,
    upstream: Upstream,
    key: String,
    /// Where the records begin that the database has not read.
    begin: u64,
    /// Where the records ended after each response.
    ends: Vec<u64>,
}

fn journal(directory: &Path) -> PathBuf {
    live_segment(&directory.join("quota.db"))
}

/// Where the records end: zeros follow.
fn end(directory: &Path) -> u64 {
    let bytes = fs::read(journal(directory)).unwrap();
    bytes.iter().rposition(|byte| *byte != 0).unwrap() as u64 + 1
}

async fn post(gateway: &Gateway, key: &str) -> u16 {
    let url = gateway.url("/v1/chat/completions");
    Client::http1().post_as(key, &url, &json!({})).await.status.as_u16()
}

impl Remains {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let upstream = Upstream::start(|_| json_response(chat_json().to_string())).await;
        let mut gateway = command(&upstream, &dir.path().join("quota.db")).start();
        let key = gateway.create_key(json!({"daily_limit": LIMIT})).await;
        assert_eq!(gateway.used(&key).await, 0);
        // While the file is locked from outside no checkpoint is written to it.
        let other = Connection::open(dir.path().join("quota.db")).unwrap();
        other.busy_timeout(TIME_LIMIT).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let mut ends = Vec::new();
        while ends.len() < MOST && post(&gateway, &key).await == 200 {
            ends.push(end(dir.path()));
        }
        gateway.kill9();
        assert!(ends.len() > 2, "too few responses: {}", gateway.printed());
        let copied = tempfile::tempdir().unwrap();
        copy(dir.path(), copied.path());
        let copied = Connection::open(copied.path().join("quota.db")).unwrap();
        let begin = copied.query_row("SELECT offset FROM journal", [], |row| row.get(0)).unwrap();
        Self { dir, upstream, key, begin, ends }
    }

    fn responses(&self) -> usize {
        self.ends.len()
    }

    /// A place in a record that is not the last.
    fn place(&self, random: &mut Random) -> u64 {
        self.begin + random.below(self.ends[self.responses() - 2] - self.begin)
    }

    /// A copy with another byte at this place of the journal.
    fn damaged(&self, place: u64, random: &mut Random) -> (TempDir, GatewayCommand) {
        let dir = tempfile::tempdir().unwrap();
        copy(self.dir.path(), dir.path());
        let file = journal(dir.path());
        let mut bytes = fs::read(&file).unwrap();
        bytes[place as usize] ^= 1 << random.below(8);
        fs::write(file, bytes).unwrap();
        let command = command(&self.upstream, &dir.path().join("quota.db"));
        (dir, command)
    }

    /// How many responses were written down before this place.
    fn before(&self, place: u64) -> usize {
        self.ends.iter().filter(|end| **end <= place).count()
    }
}

/// The machine has been rebooted since.
fn reboot(directory: &Path) {
    let file = Connection::open(directory.join("quota.db")).unwrap();
    assert_eq!(file.execute("UPDATE boot SET boot = 'another'", []).unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_byte_prevents_the_start_until_the_journal_is_put_back() {
    let remains = Remains::new().await;
    let mut random = Random::seeded("a damaged byte");
    // Of the first record the kind, the length, the checksum and what it holds; of the last its end.
    let end = remains.ends[remains.responses() - 1];
    let (middle, other) = (remains.place(&mut random), remains.place(&mut random));
    let begin = remains.begin;
    for place in [begin, begin + 5, begin + 9, begin + 20, middle, other, end - 1] {
        let (dir, command) = remains.damaged(place, &mut random);
        let file = journal(dir.path());
        let name = file.file_name().unwrap().to_str().unwrap();
        // A rejection makes nothing better: the next start is rejected as well.
        for _ in 0..2 {
            let printed = command.try_start().err().expect("a failed start");
            assert_eq!(printed.trim_end().lines().count(), 1, "{printed}");
            assert!(printed.contains(name), "{printed}");
            let named = printed.split_once("damaged at byte ").expect("the place").1;
            let named: u64 = named.split_once(' ').unwrap().0.parse().unwrap();
            let good = remains.before(place).checked_sub(1).map_or(begin, |at| remains.ends[at]);
            assert!((good..=place).contains(&named), "{named} is not in {good}..={place}");
        }
        fs::copy(journal(remains.dir.path()), &file).unwrap();
        let used = command.start().used(&remains.key).await as usize;
        // One more only if a rejection came before the last response: that request may be counted.
        let possible = remains.responses()..=MOST.min(remains.responses() + 1);
        assert!(possible.contains(&used), "{used} is not in {possible:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_empty_or_cut_segment_prevents_the_start() {
    let remains = Remains::new().await;
    let dir = tempfile::tempdir().unwrap();
    copy(remains.dir.path(), dir.path());
    let file = journal(dir.path());
    let command = command(&remains.upstream, &dir.path().join("quota.db"));
    let rejected = |expected: &str| {
        let printed = command.try_start().err().expect("a failed start");
        assert_eq!(printed.trim_end().lines().count(), 1, "{printed}");
        let name = file.file_name().unwrap().to_str().unwrap();
        assert!(printed.contains(name) && printed.contains(expected), "{printed}");
    };
    for end in &remains.ends {
        let mut bytes = fs::read(journal(remains.dir.path())).unwrap();
        bytes.truncate(*end as usize);
        fs::write(&file, bytes).unwrap();
        rejected("bytes of the");
    }
    fs::write(&file, "").unwrap();
    rejected("damaged head");
    fs::remove_file(&file).unwrap();
    rejected("is missing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_duplicated_record_prevents_the_start() {
    let remains = Remains::new().await;
    let dir = tempfile::tempdir().unwrap();
    copy(remains.dir.path(), dir.path());
    let file = journal(dir.path());
    let mut bytes = fs::read(&file).unwrap();
    let [.., before, end] = remains.ends[..] else { unreachable!() };
    bytes.copy_within(before as usize..end as usize, end as usize);
    fs::write(&file, bytes).unwrap();
    let command = command(&remains.upstream, &dir.path().join("quota.db"));
    let printed = command.try_start().err().expect("a failed start");
    assert!(printed.contains(&format!("damaged at byte {end}")), "{printed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_head_prevents_the_start() {
    let remains = Remains::new().await;
    let mut random = Random::seeded("a damaged head");
    let (_dir, command) = remains.damaged(random.below(HEAD), &mut random);
    let printed = command.try_start().err().expect("a failed start");
    assert_eq!(printed.trim_end().lines().count(), 1, "{printed}");
    assert!(printed.contains("the journal ") && printed.contains("quota.db"), "{printed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_reboot_the_loss_is_logged_and_earlier_records_count() {
    let remains = Remains::new().await;
    let mut random = Random::seeded("another boot");
    for _ in 0..4 {
        let place = remains.place(&mut random);
        let (dir, command) = remains.damaged(place, &mut random);
        reboot(dir.path());
        let gateway = command.start();
        let said = || async { gateway.printed().contains("its end did not survive") };
        eventually("a word about it", said).await;
        let used = gateway.used(&remains.key).await;
        let before = remains.before(place) as u64;
        assert!((before..=LIMIT as u64).contains(&used), "{used} of at least {before}");
    }
}

/// Not promised: an end that was overwritten with zeros. What shows it is the last commit, if that was
/// there.
#[tokio::test(flavor = "multi_thread")]
async fn a_zeroed_end_prevents_the_start_or_nothing_before_it_is_lost() {
    let remains = Remains::new().await;
    let dir = tempfile::tempdir().unwrap();
    copy(remains.dir.path(), dir.path());
    let file = journal(dir.path());
    let mut bytes = fs::read(&file).unwrap();
    bytes[remains.ends[0] as usize..].fill(0);
    fs::write(file, bytes).unwrap();
    let command = command(&remains.upstream, &dir.path().join("quota.db"));
    let Ok(gateway) = command.try_start() else { return };
    let used = gateway.used(&remains.key).await as usize;
    assert!(used >= 1, "{used} counted of {}", remains.responses());
}
