//! The settings as operators may see them, on the admin page and from `gateway print-config`.

use std::{borrow::Cow, fmt};

use clap::{Arg, ArgMatches, parser::ValueSource};
use tower_quota::admin::AdminTokens;

use super::arguments::{command, variable};

/// What stands for a secret.
const MASK: &str = "••••";
/// Other names of settings, which count where the setting itself is not given.
const ALIASES: [(&str, &str); 4] = [
    ("UPSTREAM_BASE_URL", "DEEPSEEK_BASE_URL"),
    ("UPSTREAM_API_KEY", "DEEPSEEK_API_KEY"),
    ("UPSTREAM_API_KEY_FILE", "DEEPSEEK_API_KEY_FILE"),
    ("DATABASE_URL", "SQLITE_PATH"),
];

/// One setting.
#[derive(Clone)]
pub(crate) struct ShownSetting {
    /// The name of its variable.
    pub(crate) name: String,
    /// Its value, or the default; masked if it is a secret, `None` if there is none.
    pub(crate) value: Option<String>,
    pub(crate) source: SettingSource,
}

/// Where a setting comes from.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum SettingSource {
    Default,
    /// A flag, as it is written.
    Flag(String),
    /// A variable of the environment.
    Environment(String),
    /// A line of `.env`, by its name.
    EnvFile(String),
}

impl SettingSource {
    /// The flag or the variable.
    pub(crate) fn name(&self) -> Option<&str> {
        match self {
            Self::Default => None,
            Self::Flag(name) | Self::Environment(name) | Self::EnvFile(name) => Some(name),
        }
    }

    /// Its kind, in one word.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Flag(_) => "flag",
            Self::Environment(_) => "environment",
            Self::EnvFile(_) => ".env",
        }
    }
}

impl fmt::Display for SettingSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind())?;
        self.name().map_or(Ok(()), |name| write!(f, " {name}"))
    }
}

/// All settings, with the defaults that the help names. `from_env_file` are the variables that `.env`
/// has set.
pub(super) fn shown(matches: &ArgMatches, from_env_file: &[String]) -> Vec<ShownSetting> {
    let command = command();
    let arguments: Vec<(&Arg, String)> = command
        .get_arguments()
        .filter_map(|argument| Some((argument, variable(argument)?)))
        .collect();
    let given = |name: &str| {
        let (argument, _) = arguments.iter().find(|(_, variable)| variable == name)?;
        let id = argument.get_id().as_str();
        let text = matches.get_one::<String>(id)?.trim();
        let source = match matches.value_source(id) {
            Some(ValueSource::CommandLine) => {
                SettingSource::Flag(format!("--{}", argument.get_long().unwrap_or(id)))
            }
            _ if from_env_file.iter().any(|variable| variable == name) => {
                SettingSource::EnvFile(name.to_owned())
            }
            _ => SettingSource::Environment(name.to_owned()),
        };
        Some((text, source)).filter(|(text, _)| !text.is_empty())
    };
    let visible = arguments.iter().filter(|(argument, _)| !argument.is_hide_set());
    visible
        .map(|(argument, name)| {
            let alias = ALIASES.iter().find(|(of, _)| of == name).map(|(_, alias)| *alias);
            let (value, source) = match given(name).or_else(|| given(alias?)) {
                Some((text, source)) => (Some(masked(name, text).into_owned()), source),
                // The secret stands in a file then.
                None if given(&format!("{name}_FILE")).is_some() => (None, SettingSource::Default),
                None => (default(argument), SettingSource::Default),
            };
            ShownSetting { name: name.clone(), value, source }
        })
        .collect()
}

/// The settings with what the process makes of them: the ids of tokens, and the upstream in use.
pub(crate) fn in_use(
    mut shown: Vec<ShownSetting>,
    tokens: Option<&AdminTokens>,
    base_url: &str,
) -> Vec<ShownSetting> {
    for ShownSetting { name, value, .. } in &mut shown {
        match (&**name, tokens) {
            ("ADMIN_TOKEN", Some(tokens)) => {
                let ids: Vec<String> = tokens.ids().collect();
                *value = Some(format!("{MASK} ({})", ids.join(", ")));
            }
            ("UPSTREAM_BASE_URL", _) => *value = Some(base_url.to_owned()),
            _ => {}
        }
    }
    shown
}

/// The default that the help names.
fn default(argument: &Arg) -> Option<String> {
    let help = argument.get_help()?.to_string();
    let (_, default) = help.rsplit_once("[default: ")?;
    default.strip_suffix(']').map(str::to_owned)
}

/// The value without what is secret in it.
fn masked<'a>(name: &str, value: &'a str) -> Cow<'a, str> {
    if ["TOKEN", "API_KEY", "PROXY"].iter().any(|end| name.ends_with(end)) {
        return MASK.into();
    }
    // A user and password, which are refused where they do not belong.
    match value.split_once("://").zip(value.rsplit_once('@')) {
        Some(((scheme, _), (_, host))) => format!("{scheme}://{MASK}@{host}").into(),
        None => value.into(),
    }
}
