//! `gateway print-config`: prints the settings and their sources.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::Args;
use serde_json::json;

use crate::settings::{Given, Settings, ShownSetting, in_use};

/// Print all settings and the source of each, and end
///
/// A flag overrides the environment, which overrides .env; the rest are defaults. Secrets are masked.
/// Accepts all flags of `gateway --help`.
#[derive(Args, Clone)]
#[command(after_help = "\
Exit code: 0; 1 if the gateway would not start with these settings, and the last line says why.

Examples:
  gateway print-config
  gateway print-config --json | jq -r '.settings[] | select(.source != \"default\") | .name'")]
pub(crate) struct PrintConfig {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Prints the settings, and fails if one is invalid.
pub(crate) fn run(given: &Given, command: &PrintConfig) -> ExitCode {
    let (shown, problem) = match Settings::check(given) {
        Ok(Settings { shown, admin_token, upstream, .. }) => {
            (in_use(shown, admin_token.as_ref(), &upstream.base_url.to_string()), None)
        }
        Err(problem) => (given.shown().to_vec(), Some(problem.to_string())),
    };
    let text = if command.json {
        let settings: Vec<_> = shown
            .iter()
            .map(|setting| {
                json!({
                    "name": setting.name,
                    "value": setting.value,
                    "source": setting.source.kind(),
                    "set_by": setting.source.name(),
                })
            })
            .collect();
        let printed = json!({ "settings": settings, "problem": problem });
        format!("{printed:#}\n")
    } else {
        let width = |text: fn(&ShownSetting) -> String| {
            shown.iter().map(|setting| text(setting).len()).max().unwrap_or_default()
        };
        let name_width = width(|setting| setting.name.clone());
        let source_width = width(|setting| setting.source.to_string());
        let lines = shown.iter().map(|ShownSetting { name, value, source }| {
            let (source, value) = (source.to_string(), value.as_deref().unwrap_or("(none)"));
            format!("{name:name_width$}  {source:source_width$}  {value}\n")
        });
        let problem = problem.iter().map(|problem| format!("\ninvalid: {problem}\n"));
        lines.chain(problem).collect()
    };
    // The exit code reports the result even if standard output is closed.
    let _ = io::stdout().write_all(text.as_bytes());
    ExitCode::from(u8::from(problem.is_some()))
}
