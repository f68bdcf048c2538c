//! `gateway completions`: prints shell completions.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::Args;
use clap_complete::Shell;

use crate::settings;

/// Print a script that completes commands and flags in a shell, and end
#[derive(Args, Clone)]
#[command(after_help = "\
Examples:
  bash: source <(gateway completions bash)
  zsh:  gateway completions zsh > \"${fpath[1]}/_gateway\"
  fish: gateway completions fish > ~/.config/fish/completions/gateway.fish")]
pub(crate) struct Completions {
    /// The shell
    shell: Shell,
}

pub(crate) fn run(command: &Completions) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(command.shell, &mut settings::command(), "gateway", &mut script);
    ExitCode::from(u8::from(io::stdout().write_all(&script).is_err()))
}
