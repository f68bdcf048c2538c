//! Reads the command line, the environment and `.env`.

use std::{env, error::Error};

use clap::{
    Arg, ArgMatches, Args, CommandFactory, FromArgMatches, Subcommand,
    error::{ContextKind, ContextValue},
    parser::ValueSource,
    value_parser,
};

use super::{
    BadSetting, SecretFile, SettingSource, Settings, ShownSetting, env_file, shown::shown,
};
use crate::commands::{Command, listed_settings};

/// Other names of settings, with their flags. They apply if the setting itself is not set.
const ALIASES: [(&str, &str, &str); 5] = [
    ("UPSTREAM_BASE_URL", "DEEPSEEK_BASE_URL", "deepseek-base-url"),
    ("UPSTREAM_API_KEY", "DEEPSEEK_API_KEY", "deepseek-api-key"),
    ("UPSTREAM_API_KEY_FILE", "DEEPSEEK_API_KEY_FILE", "deepseek-api-key-file"),
    ("DATABASE_URL", "SQLITE_PATH", "sqlite-path"),
    ("DATABASE_PASSWORD", "PGPASSWORD", "pgpassword"),
];

/// A setting for which an empty value is an error: it was meant to be set.
const NEVER_EMPTY: &str = "ADMIN_TOKEN";

/// The command line. Settings may be before and after a subcommand.
pub(crate) fn command() -> clap::Command {
    let command = Command::augment_subcommands(Settings::command());
    let command = ALIASES.into_iter().fold(command, |command, (_, alias, flag)| {
        command.arg(Arg::new(alias).long(flag).env(alias).hide(true))
    });
    let command = command.mut_args(|argument| as_text(argument).global(true).hide_env_values(true));
    let settings: Vec<Arg> = command.get_arguments().cloned().collect();
    command.mut_subcommands(|subcommand| {
        let listed = listed_settings(subcommand.get_name());
        let settings = settings.iter().cloned().map(|setting| {
            let is_listed = listed.get_arguments().any(|other| other.get_id() == setting.get_id());
            if is_listed { setting } else { setting.hide(true) }
        });
        subcommand.args(settings)
    })
}

/// The settings as they were given: flags over the environment over `.env`. They are not parsed yet, so
/// that commands work with invalid ones.
pub(crate) struct Given {
    demo: bool,
    texts: Vec<GivenText>,
    shown: Vec<ShownSetting>,
    /// The first text that is invalid for every setting.
    pub(super) checked: Result<(), BadSetting>,
}

/// The text of one setting or alias.
pub(super) struct GivenText {
    variable: String,
    pub(super) text: String,
    pub(super) source: SettingSource,
}

impl Given {
    /// Reads all sources, and the subcommand if there is one. Exits if the command line is invalid, or
    /// after printing help.
    pub(crate) fn load() -> Result<(Self, Option<Command>), BadSetting> {
        let command = command();
        let names: Vec<String> = command.get_arguments().filter_map(variable).collect();
        let (from_env_file, mut checked) = env_file::load(&names);
        for name in names {
            if let Err(env::VarError::NotUnicode(_)) = env::var(&name) {
                return Err(BadSetting::new(&name, "expected UTF-8 text"));
            }
        }
        // Built again, as an argument reads its variable when it is built.
        let matches = self::command().get_matches();
        let texts: Vec<GivenText> = command
            .get_arguments()
            .filter_map(|argument| GivenText::of(argument, &matches, &from_env_file))
            .collect();
        for GivenText { variable, text, .. } in &texts {
            checked = checked.and_then(|()| check_text(variable, text));
        }
        let demo = matches.get_flag("demo");
        let mut given = Self { demo, texts, shown: Vec::new(), checked };
        given.shown = shown(|name| given.text(name));
        let command = match matches.subcommand_name() {
            Some(_) => Command::from_arg_matches(&matches).map(Some),
            None => Ok(None),
        };
        Ok((given, command.unwrap_or_else(|error| error.exit())))
    }

    /// Returns all settings as operators may see them.
    pub(crate) fn shown(&self) -> &[ShownSetting] {
        &self.shown
    }

    /// Parses the settings of `T`, with defaults for those that are not given.
    pub(crate) fn parse<T: Args>(&self) -> Result<T, BadSetting> {
        let command = T::augment_args(clap::Command::new("settings").no_binary_name(true));
        let flag = |argument: &Arg| match variable(argument) {
            Some(name) => Some(format!("--{}={}", argument.get_long()?, self.text(&name)?.text)),
            None => (argument.get_id() == "demo" && self.demo).then(|| "--demo".to_owned()),
        };
        let flags: Vec<String> = command.get_arguments().filter_map(flag).collect();
        let parsed = command
            .clone()
            // The environment was read before.
            .mut_args(|argument| argument.env(None::<&'static str>))
            .try_get_matches_from(flags)
            .and_then(|mut matches| T::from_arg_matches_mut(&mut matches));
        parsed.map_err(|error| self.bad_setting(&command, &error))
    }

    fn bad_setting(&self, command: &clap::Command, error: &clap::Error) -> BadSetting {
        let argument = match error.get(ContextKind::InvalidArg) {
            Some(ContextValue::String(argument)) => argument.as_str(),
            _ => "",
        };
        let flag = argument.split(' ').next().unwrap_or_default().trim_start_matches("--");
        let argument = command.get_arguments().find(|argument| argument.get_long() == Some(flag));
        let name = argument.and_then(variable).unwrap_or_default();
        match error.source() {
            Some(expected) => BadSetting::new(self.name_of(&name), expected),
            None => BadSetting::new(self.name_of(&name), error),
        }
    }

    /// Returns the text of a setting or of its alias, unless it is empty.
    fn text(&self, name: &str) -> Option<&GivenText> {
        let find = |name: &str| {
            let given = self.texts.iter().find(|given| given.variable == name)?;
            Some(given).filter(|given| !given.text.is_empty() || name == NEVER_EMPTY)
        };
        let alias = ALIASES.iter().find(|(of, ..)| *of == name).map(|(_, alias, _)| *alias);
        find(name).or_else(|| find(alias?))
    }

    /// Returns whether a setting is given, even if it is empty.
    pub(super) fn is_present(&self, name: &str) -> bool {
        self.texts.iter().any(|given| given.variable == name)
    }

    /// Returns the name by which a setting was given.
    fn name_of<'a>(&'a self, name: &'a str) -> &'a str {
        self.text(name).map_or(name, |given| &given.variable)
    }

    /// Sets a secret to the value in its file if that is given instead.
    pub(super) fn read_secret<T: Clone>(
        &self,
        name: &str,
        secret: &mut Option<T>,
        file: &mut Option<SecretFile<T>>,
    ) -> Result<(), BadSetting> {
        let Some(file) = file else { return Ok(()) };
        let file_variable = format!("{name}_FILE");
        let (name, file_name) = (self.name_of(name), self.name_of(&file_variable));
        if secret.is_some() {
            let both = format!("set either {name} or {file_name}, not both");
            return Err(BadSetting::new(file_name, both));
        }
        file.name = file_name.to_owned();
        *secret = Some(file.value.clone());
        Ok(())
    }
}

impl GivenText {
    fn of(argument: &Arg, matches: &ArgMatches, from_env_file: &[String]) -> Option<Self> {
        let (variable, flag) = (variable(argument)?, argument.get_long()?);
        let id = argument.get_id().as_str();
        let text = matches.get_one::<String>(id)?.trim().to_owned();
        let source = match matches.value_source(id) {
            Some(ValueSource::CommandLine) => SettingSource::Flag(format!("--{flag}")),
            _ if from_env_file.contains(&variable) => SettingSource::EnvFile(variable.clone()),
            _ => SettingSource::Environment(variable.clone()),
        };
        Some(Self { variable, text, source })
    }
}

/// Makes an argument accept any text and have no value by default. Its help still names the default.
fn as_text(argument: Arg) -> Arg {
    if !argument.get_action().takes_values() {
        return argument;
    }
    let default = argument.get_default_values().first().and_then(|default| default.to_str());
    let help = match (argument.get_help(), default) {
        (_, None | Some("")) | (None, _) => None,
        (Some(help), Some(default)) => Some(format!("{help} [default: {default}]")),
    };
    let argument = match help {
        Some(help) => argument.help(help),
        None => argument,
    };
    argument.value_parser(value_parser!(String)).default_value(None::<&'static str>)
}

/// Returns the variable that an argument is read from.
pub(super) fn variable(argument: &Arg) -> Option<String> {
    Some(argument.get_env()?.to_str()?.to_owned())
}

/// Rejects what a shell or an `--env-file` may leave in a value. The value is not shown, as it may be a
/// secret.
fn check_text(name: &str, text: &str) -> Result<(), BadSetting> {
    const QUOTES: [(char, char); 4] = [('"', '"'), ('\'', '\''), ('“', '”'), ('‘', '’')];
    if QUOTES.iter().any(|(open, close)| text.starts_with(*open) && text.ends_with(*close)) {
        let problem = "the value has quotes around it, which would be part of it; remove them";
        return Err(BadSetting::new(name, problem));
    }
    if text.split_once("${").is_some_and(|(_, rest)| rest.contains('}')) {
        let problem = "the value contains ${…}, which nothing has expanded; write the value itself";
        return Err(BadSetting::new(name, problem));
    }
    Ok(())
}
