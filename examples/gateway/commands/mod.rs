//! The subcommands.

pub(crate) mod backup;
mod check;
mod client;
mod completions;
mod healthcheck;
mod migrate;
mod print_config;
pub(crate) mod progress;
mod release_node;

use std::process::ExitCode;

use clap::{Args, Subcommand};
use tokio::runtime;
use tower::BoxError;

use crate::{
    import::{self, Import},
    logging::BackgroundWriter,
    settings::{DatabaseSettings, Given, ListenSettings, Settings},
};
use backup::{Backup, Restore};
use check::Check;
use completions::Completions;
use healthcheck::Healthcheck;
use migrate::Migrate;
use print_config::PrintConfig;
use release_node::ReleaseNode;

#[derive(Subcommand, Clone)]
pub(crate) enum Command {
    Check(Check),
    Healthcheck(Healthcheck),
    PrintConfig(PrintConfig),
    Backup(Backup),
    Restore(Restore),
    Import(Import),
    Migrate(Migrate),
    ReleaseNode(ReleaseNode),
    Completions(Completions),
}

/// Returns the settings that a command's help lists, as arguments. The command accepts all others, too.
pub(crate) fn listed_settings(command: &str) -> clap::Command {
    let none = clap::Command::new("settings");
    match command {
        "healthcheck" => ListenSettings::augment_args(none),
        "backup" | "import" | "migrate" | "release-node" | "restore" => {
            DatabaseSettings::augment_args(none)
        }
        _ => none,
    }
}

/// Runs a command. The first three must work with invalid settings, too.
pub(crate) fn run(
    command: Command,
    given: &Given,
    stderr: &BackgroundWriter,
) -> Result<ExitCode, BoxError> {
    let runtime = || runtime::Builder::new_current_thread().enable_all().build();
    match command {
        Command::Healthcheck(command) => Ok(healthcheck::run(given, &command)),
        Command::PrintConfig(command) => Ok(print_config::run(given, &command)),
        Command::Completions(command) => Ok(completions::run(&command)),
        Command::Check(command) => runtime()?.block_on(check::run(given, &command, stderr)),
        Command::Backup(command) => backup::back_up(Settings::check(given)?, &command, stderr),
        Command::Restore(command) => {
            let settings = Settings::check(given)?;
            runtime()?.block_on(backup::restore(settings, &command, stderr))
        }
        Command::Import(command) => {
            let settings = Settings::check(given)?;
            runtime()?.block_on(import::run(&settings, &command, stderr))
        }
        Command::Migrate(command) => {
            let settings = Settings::check(given)?;
            runtime()?.block_on(migrate::run(settings, &command, stderr))
        }
        Command::ReleaseNode(command) => {
            let settings = Settings::check(given)?;
            runtime()?.block_on(release_node::run(settings, &command, stderr))
        }
    }
}
