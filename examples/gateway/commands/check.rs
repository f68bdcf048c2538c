//! `gateway check`: checks whether a gateway with these settings will work.

mod machine;
mod postgres;
mod upstream;

use std::{
    io::{self, Write},
    process::ExitCode,
    time::SystemTime,
};

use clap::Args;
use tower::BoxError;

use super::{
    healthcheck::{self, Health},
    progress::{Amount, Progress},
};
use crate::{
    logging::BackgroundWriter,
    settings::{Database, Given, SettingSource, Settings, is_exposed},
};

/// Check the settings, the database and the upstream, and end
///
/// A gateway may be running: the database is only read. Requests the upstream's list of models, which
/// costs nothing, with the credential of the settings. Accepts all flags of `gateway --help`.
#[derive(Args, Clone)]
#[command(after_help = "\
Exit code: 0 if there is no failure, even with warnings; 1 if there is one; 130 after Ctrl-C.

Examples:
  gateway check
  gateway check --offline --database-url /data/quota.db")]
pub(crate) struct Check {
    /// Do not check the upstream
    #[arg(long)]
    offline: bool,
}

/// The result of one check.
enum Finding {
    Fine(String),
    /// The gateway will work, but not as intended.
    Warning(String),
    /// The gateway will not work.
    Failure(String),
}

use Finding::{Failure, Fine, Warning};

/// Prints and counts findings.
struct Report {
    progress: Progress,
    warnings: usize,
    failures: usize,
}

impl Report {
    fn add(&mut self, what: &str, findings: impl IntoIterator<Item = Finding>) {
        for finding in findings {
            let (mark, text) = match finding {
                Fine(text) => ("ok", text),
                Warning(text) => {
                    self.warnings += 1;
                    ("warning", text)
                }
                Failure(text) => {
                    self.failures += 1;
                    ("FAILED", text)
                }
            };
            let text = text.replace(char::is_control, " ");
            self.progress.print(|| {
                // The exit code reports the result even if standard output is closed.
                let _ = writeln!(io::stdout(), "{mark:<8} {what:<10} {text}");
            });
        }
    }
}

/// Prints the findings, and fails if there is a failure.
pub(crate) async fn run(
    given: &Given,
    command: &Check,
    stderr: &BackgroundWriter,
) -> Result<ExitCode, BoxError> {
    let progress = Progress::start_read_only(stderr)?;
    let mut report = Report { progress: progress.clone(), warnings: 0, failures: 0 };
    match Settings::check(given) {
        Ok(settings) => check(&settings, command, &progress, &mut report).await?,
        Err(error) => report.add("settings", [Failure(error.to_string())]),
    }
    progress.finish();
    let (failures, warnings) =
        (count(report.failures, "failure"), count(report.warnings, "warning"));
    let _ = writeln!(io::stdout(), "{failures}, {warnings}");
    Ok(ExitCode::from(u8::from(report.failures > 0)))
}

fn count(count: usize, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}

async fn check(
    settings: &Settings,
    command: &Check,
    progress: &Progress,
    report: &mut Report,
) -> Result<(), BoxError> {
    report.add("settings", combinations(settings));
    report.add("settings", machine::secrets(settings));
    report.add("address", address(settings).await);
    report.add("day", day(settings));
    report.add("files", machine::open_files(settings));
    progress.report("reading the database", Amount::Unknown)?;
    match &settings.database.database {
        Database::Sqlite(path) => {
            let options = settings.database.sqlite_options(path);
            report.add("database", machine::database(options, path));
        }
        Database::Postgres(url) => {
            report.add("database", postgres::check(&settings.database, url).await);
            report.add("journal", machine::journal(settings));
        }
    }
    if settings.demo {
        report.add("upstream", [Fine("the built-in one of --demo".to_owned())]);
    } else if command.offline {
        report.add("upstream", [Fine("not checked, as --offline is given".to_owned())]);
    } else {
        progress.report("checking the upstream", Amount::Unknown)?;
        report.add("upstream", upstream::check(&settings.upstream).await);
    }
    Ok(())
}

/// Checks for combinations of settings that are valid but unsafe.
fn combinations(settings: &Settings) -> Vec<Finding> {
    let set = settings.shown.iter().filter(|setting| setting.source != SettingSource::Default);
    let all = settings.shown.len();
    let mut findings =
        vec![Fine(format!("{} of {all} are set; gateway print-config shows them", set.count()))];
    if settings.admin_token.is_none() {
        let advice = "ADMIN_TOKEN is not set: each start generates another one and prints it";
        findings.push(Warning(advice.to_owned()));
    }
    if is_exposed(settings.listen.address(), &settings.trusted_proxies) {
        findings.push(Warning(
            "HOST is open to other machines and TRUSTED_PROXIES is not set: put a proxy that \
             terminates TLS in front and its address there, or keys travel in clear and all clients \
             behind a proxy are one address"
                .to_owned(),
        ));
    }
    findings
}

/// Checks whether a gateway is running on the address, or could.
async fn address(settings: &Settings) -> [Finding; 1] {
    let listen = settings.listen.address();
    if listen.port() == 0 {
        return [Fine("PORT is 0: each start picks a free port and prints it".to_owned())];
    }
    [match healthcheck::check_address(listen).await {
        Health::Ok(version) => {
            let version = version.as_deref().unwrap_or("unknown");
            Fine(format!("a gateway is running on {listen}, version {version}"))
        }
        Health::Failed(reason) => Failure(reason),
        Health::NotRunning => match tokio::net::TcpListener::bind(listen).await {
            Ok(_) => Fine(format!("{listen} is free: no gateway is running there")),
            Err(error) => Failure(format!(
                "cannot listen on {listen}: {error}; set HOST and PORT to a free address of this \
                 machine"
            )),
        },
    }]
}

fn day(settings: &Settings) -> Vec<Finding> {
    let calendar = &settings.database.calendar;
    let zone = calendar.time_zone();
    let window = calendar.window(SystemTime::now());
    let left = window.end.duration_since(SystemTime::now()).unwrap_or_default().as_secs() / 60;
    let (hours, minutes) = (left / 60, left % 60);
    let mut findings =
        vec![Fine(format!("it is {} in {zone}, for another {hours}:{minutes:02} h", window.day))];
    findings.extend(machine::time_zones(zone));
    findings
}
