//! The layers around an axum application, without a socket.
//! `cargo bench --bench axum -- --help` lists the options.

#[path = "../common/callgrind.rs"]
mod callgrind;
mod calls;
mod instructions;
mod variant;

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use tower::BoxError;

use crate::variant::Variant;

/// What the layers cost around an axum application.
#[derive(Parser)]
#[command(bin_name = "cargo bench --bench axum --")]
struct Options {
    #[command(subcommand)]
    task: Option<Task>,
    /// Passed by cargo.
    #[arg(long, global = true, hide = true)]
    bench: bool,
}

#[derive(Subcommand)]
enum Task {
    /// Instructions per request (callgrind), beside SHA-256 and tower_governor.
    Instructions {
        /// Directory for the profiles, for `callgrind_annotate`.
        #[arg(long, value_name = "DIRECTORY")]
        profiles: Option<PathBuf>,
    },
    #[command(hide = true)]
    Repeat { variant: Variant, calls: usize },
}

fn main() -> Result<(), BoxError> {
    match Options::parse().task {
        None => println!("nothing is measured without a task: -- instructions"),
        Some(Task::Instructions { profiles }) => instructions::count(profiles.as_deref())?,
        Some(Task::Repeat { variant, calls }) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(variant.repeat(calls))?;
        }
    }
    Ok(())
}
