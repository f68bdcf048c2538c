//! The README's transcript comes out as printed. `…` stands for what differs from run to run.

mod common;

use std::process::Command;

use common::{Gateway, GatewayCommand, eventually};

const README: &str = include_str!("../README.md");

/// The commands of the transcript and what they print.
fn transcript() -> Vec<(String, String)> {
    let blocks = README.split("```console\n").skip(1);
    let blocks = blocks.map(|block| block.split("```").next().unwrap());
    blocks
        .flat_map(|block| block.split("$ ").skip(1).filter(|entry| entry.contains('\n')))
        .map(|entry| {
            let (command, printed) = entry.split_once('\n').unwrap();
            (command.to_owned(), printed.to_owned())
        })
        .collect()
}

/// Whether `text` is `pattern` with something in place of each `…`.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('…');
    let Some(mut rest) = text.strip_prefix(parts.next().unwrap()) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

fn run(command: &str, gateway: &Gateway, token: &str, key: &str) -> String {
    let command = command.replace("127.0.0.1:8787", &gateway.address().to_string());
    let output = Command::new("bash")
        .args(["-euc", &command])
        .env("TOKEN", token)
        .env("KEY", key)
        .output()
        .unwrap();
    assert!(output.status.success(), "{command}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs bash and curl"]
async fn the_transcript_comes_out_as_printed() {
    let gateway = GatewayCommand::bare().env("PORT", "0").arg("--demo").start();
    let mut transcript = transcript().into_iter();

    let (command, announced) = transcript.next().unwrap();
    assert_eq!(command, "cargo run --example gateway -- --demo");
    let announced = announced.replace("127.0.0.1:8787", &gateway.address().to_string());
    eventually("the announcement", || async {
        gateway.printed().lines().count() >= announced.lines().count()
    })
    .await;
    let printed = gateway.printed();
    assert!(matches(announced.trim_end(), printed.trim_end()), "{announced}\n{printed}");
    let token = printed.split_once("admin token").unwrap().1.split_whitespace().next().unwrap();

    let mut key = String::new();
    for (command, wanted) in transcript {
        let printed = run(&command, &gateway, token, &key);
        assert!(matches(wanted.trim_end(), printed.trim_end()), "{command}\n{wanted}\n{printed}");
        if let Some((_, created)) = printed.split_once("\"key\":\"")
            && key.is_empty()
        {
            key = created.split('"').next().unwrap().to_owned();
        }
    }
    assert!(key.starts_with("trial-alice-"));
}
