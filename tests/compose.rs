//! `.env.example` and `compose.yaml` offer the settings that the gateway has.

mod common;

use std::{collections::BTreeSet, fs, path::Path};

use common::{GatewayCommand, eventually};

/// Variables that the container sets itself, and that a shell sets for other programs.
const NOT_FROM_OUTSIDE: [&str; 6] =
    ["HOST", "PORT", "DATABASE_URL", "SQLITE_PATH", "HTTPS_PROXY", "NO_PROXY"];
/// Variables of compose.yaml itself.
const COMPOSE_ONLY: [&str; 4] = ["PUBLISH", "DOMAIN", "GRAFANA_PASSWORD", "COMPOSE_PROFILES"];

fn repository(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// A setting as `gateway --help` explains it.
struct HelpEntry {
    name: String,
    text: String,
}

impl HelpEntry {
    /// The value that stands for the default, empty where that is no value.
    fn default(&self) -> &str {
        let named = self.text.rsplit_once("[default: ").and_then(|(_, end)| end.strip_suffix(']'));
        named
            .filter(|named| !["any", "none", "a random one, printed"].contains(named))
            .unwrap_or("")
    }
}

fn help() -> Vec<HelpEntry> {
    let output = GatewayCommand::bare().arg("--help").output();
    let help = String::from_utf8(output.stdout).unwrap();
    let mut entries = Vec::new();
    let mut text: Vec<&str> = Vec::new();
    for line in help.lines().map(str::trim) {
        if line.starts_with('-') {
            text.clear();
        } else if let Some(name) = line.strip_prefix("[env: ") {
            let name = name.trim_end_matches(']').trim_end_matches('=').to_owned();
            entries.push(HelpEntry { name, text: text.join(" ") });
        } else if !line.is_empty() {
            text.push(line);
        }
    }
    assert!(entries.len() > 30, "{help}");
    entries
}

/// `.env.example` as the help says it.
fn env_example() -> String {
    let mut file = "\
# Settings of the gateway: `gateway --help` as a file, written by its test.
#
# Copy it to .env and take the # off the lines that you change. A line that stays as it is here says the
# default; one without a value has none. The environment wins over .env. A value with a space, a # or a $
# in it stands in single quotes.
#
# In containers, compose.yaml sets HOST, PORT and DATABASE_URL itself, and reads PUBLISH, DOMAIN and
# GRAFANA_PASSWORD here, too.
"
    .to_owned();
    for entry in help() {
        file.push('\n');
        let mut line = "#".to_owned();
        for word in entry.text.split_whitespace() {
            if line.chars().count() + word.chars().count() >= 100 {
                file.push_str(&line);
                file.push('\n');
                line = "#".to_owned();
            }
            line.push(' ');
            line.push_str(word);
        }
        file.push_str(&format!("{line}\n#{}={}\n", entry.name, entry.default()));
    }
    file
}

#[test]
fn env_example_is_the_help_written_out() {
    let expected = env_example();
    if std::env::var_os("WRITE_ENV_EXAMPLE").is_some() {
        fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join(".env.example"), &expected).unwrap();
    }
    assert!(
        repository(".env.example") == expected,
        "the settings have changed; write .env.example anew with\n  \
         WRITE_ENV_EXAMPLE=1 cargo test --test compose env_example"
    );
}

/// A gateway in a directory with this `.env`, and with no other setting but a free port.
fn with_env_file(text: &str) -> GatewayCommand {
    let command = GatewayCommand::bare().env("PORT", "0");
    fs::write(command.dir().join(".env"), text).unwrap();
    command
}

#[tokio::test]
async fn env_example_starts_a_gateway_as_it_is_and_with_its_defaults_uncommented() {
    let example = repository(".env.example");
    let uncommented: String = example
        .lines()
        .filter_map(|line| line.strip_prefix('#'))
        .filter(|line| {
            let (name, value) = line.split_once('=').unwrap_or_default();
            !name.is_empty() && !name.contains(' ') && !value.is_empty()
        })
        .map(|line| format!("{line}\n"))
        .collect();
    assert!(uncommented.contains("DAILY_REQ_LIMIT=200\n"), "{uncommented}");
    for text in [example, uncommented] {
        let gateway = with_env_file(&text).start();
        eventually("it starts with no token of its own", async || {
            gateway.printed().contains("set ADMIN_TOKEN to keep one")
        })
        .await;
    }
}

/// Who takes the `#` off a secret and forgets its value, or fills in what documents show, is told so.
#[test]
fn no_placeholder_is_taken_for_a_token() {
    for (name, text) in [
        ("ADMIN_TOKEN", ""),
        ("ADMIN_TOKEN", "your-strong-admin-token-here"),
        ("ADMIN_TOKEN", "change-me-change-me-change-me"),
        ("ADMIN_TOKEN", "${ADMIN_TOKEN_OF_MINE}"),
        ("METRICS_TOKEN", "your-metrics-token-here"),
    ] {
        let output = with_env_file(&format!("{name}={text}\n")).output();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{name}={text}: {told}");
        assert!(told.starts_with(name), "{told}");
    }
    // What compose.yaml reads is no setting that is spelt wrong.
    let others: String = COMPOSE_ONLY.map(|name| format!("{name}=x\n")).concat();
    with_env_file(&others).start();
}

#[test]
fn compose_passes_every_setting_that_is_not_the_containers_own() {
    let compose = repository("compose.yaml");
    let service = compose.split("\n  caddy:").next().unwrap();
    let environment = service.split("    environment:\n").nth(1).unwrap();
    let names = environment.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    let passed: BTreeSet<&str> = names
        .map_while(|line| line.split(':').next().filter(|name| name.to_ascii_uppercase() == **name))
        .collect();
    let hidden = ["DEEPSEEK_BASE_URL", "DEEPSEEK_API_KEY", "DEEPSEEK_API_KEY_FILE"];
    let help = help();
    let settings = help.iter().map(|entry| &*entry.name).chain(hidden);
    let settings: BTreeSet<&str> =
        settings.filter(|name| !NOT_FROM_OUTSIDE.contains(name)).collect();
    assert_eq!(passed, settings);
}
