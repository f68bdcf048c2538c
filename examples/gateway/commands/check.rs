//! `gateway check`: whether a gateway with these settings will work.

mod machine;
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
    background_writer::BackgroundWriter,
    settings::{Given, SettingSource, Settings},
};

/// Check the settings, the database and the upstream, and end
///
/// A gateway may run meanwhile: the database is only read. The upstream is asked for its list of
/// models, which costs nothing, with the credential that is set. Any flag of `gateway --help` may be
/// given here, too.
#[derive(Args, Clone)]
#[command(after_help = "\
Exit code: 0 if nothing has failed, whatever is warned of; 1 if something has; 130 after Ctrl-C.

Examples:
  gateway check
  gateway check --offline --database-url /data/quota.db")]
pub(crate) struct Check {
    /// Leave the upstream out
    #[arg(long)]
    offline: bool,
}

/// What was found out about one thing.
enum Finding {
    Fine(String),
    /// It works, but not as it should.
    Warning(String),
    /// A gateway does not work with it.
    Failure(String),
}

use Finding::{Failure, Fine, Warning};

/// Prints a line for each thing.
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
                // The exit code tells those who do not read it.
                let _ = writeln!(io::stdout(), "{mark:<8} {what:<10} {text}");
            });
        }
    }
}

/// Prints what it finds, and fails if a gateway would not work.
pub(crate) async fn run(
    given: Given,
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
    report.add("settings", of_settings(settings));
    report.add("settings", machine::secrets(settings));
    report.add("address", address(settings).await);
    report.add("day", day(settings));
    report.add("files", machine::open_files(settings));
    progress.report("reading the database", Amount::Unknown)?;
    report.add("database", machine::database(settings));
    if settings.demo {
        report.add("upstream", [Fine("the built-in one of --demo".to_owned())]);
    } else if command.offline {
        report.add("upstream", [Fine("left out, as --offline is given".to_owned())]);
    } else {
        progress.report("asking the upstream", Amount::Unknown)?;
        report.add("upstream", upstream::ask(&settings.upstream).await);
    }
    Ok(())
}

fn of_settings(settings: &Settings) -> Vec<Finding> {
    let given = settings.shown.iter().filter(|setting| setting.source != SettingSource::Default);
    let all = settings.shown.len();
    let mut findings =
        vec![Fine(format!("{} of {all} are set; gateway print-config shows them", given.count()))];
    if settings.admin_tokens.value.is_none() {
        let advice = "ADMIN_TOKEN is not set: each start makes another one and prints it";
        findings.push(Warning(advice.to_owned()));
    }
    let is_exposed = !settings.listen.ip().is_loopback() && settings.trusted_proxies.is_empty();
    if is_exposed {
        findings.push(Warning(
            "HOST lets others in and TRUSTED_PROXIES is not set: put a proxy that terminates TLS in \
             front and its address there, or keys travel in clear and all clients behind a proxy are \
             one address"
                .to_owned(),
        ));
    }
    findings
}

/// Whether a gateway runs there, or may.
async fn address(settings: &Settings) -> [Finding; 1] {
    let listen = settings.listen;
    if listen.port() == 0 {
        return [Fine("PORT is 0: a start takes a free one and prints it".to_owned())];
    }
    [match healthcheck::of_address(listen).await {
        Health::Ok(version) => {
            let version = version.as_deref().unwrap_or("unknown");
            Fine(format!("a gateway runs on {listen}, version {version}"))
        }
        Health::Wrong(why) => Failure(why),
        Health::Nobody => match tokio::net::TcpListener::bind(listen).await {
            Ok(_) => Fine(format!("{listen} is free: no gateway runs there")),
            Err(error) => Failure(format!(
                "cannot listen on {listen}: {error}; set HOST and PORT to an address of this \
                 machine that is free"
            )),
        },
    }]
}

fn day(settings: &Settings) -> Vec<Finding> {
    let zone = settings.calendar.time_zone();
    let window = settings.calendar.window(SystemTime::now());
    let left = window.end.duration_since(SystemTime::now()).unwrap_or_default().as_secs() / 60;
    let (hours, minutes) = (left / 60, left % 60);
    let mut findings =
        vec![Fine(format!("it is {} in {zone}, for another {hours}:{minutes:02} h", window.day))];
    findings.extend(machine::time_zones(zone));
    findings
}
