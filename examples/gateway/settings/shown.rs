//! The settings as operators may see them, on the admin page and from `gateway print-config`.

use std::{borrow::Cow, fmt};

use clap::Arg;
use tower_quota::admin::AdminTokens;

use super::given::{GivenText, variable};

/// Replaces a secret.
const MASK: &str = "••••";

/// One setting.
#[derive(Clone)]
pub(crate) struct ShownSetting {
    /// The name of the variable.
    pub(crate) name: String,
    /// The value or the default, masked if it is a secret.
    pub(crate) value: Option<String>,
    pub(crate) source: SettingSource,
}

/// Where a setting comes from.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum SettingSource {
    Default,
    /// A flag, with its dashes.
    Flag(String),
    /// An environment variable.
    Environment(String),
    /// A line of `.env`, by its name.
    EnvFile(String),
}

impl SettingSource {
    /// Returns the flag or the variable.
    pub(crate) fn name(&self) -> Option<&str> {
        match self {
            Self::Default => None,
            Self::Flag(name) | Self::Environment(name) | Self::EnvFile(name) => Some(name),
        }
    }

    /// Returns the kind of the source in one word.
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

impl ShownSetting {
    /// Shows that a secret was taken from another environment variable.
    pub(super) fn set_from_environment(&mut self, variable: &str) {
        self.value = Some(MASK.to_owned());
        self.source = SettingSource::Environment(variable.to_owned());
    }
}

/// Returns the settings of `command`, with the defaults that their help names.
pub(super) fn shown<'a>(
    command: &clap::Command,
    given: impl Fn(&str) -> Option<&'a GivenText>,
) -> Vec<ShownSetting> {
    let given = |name: &str| given(name).filter(|given| !given.text.is_empty());
    let visible = command.get_arguments().filter(|argument| !argument.is_hide_set());
    visible
        .filter_map(|argument| {
            let name = variable(argument)?;
            let (value, source) = match given(&name) {
                Some(given) => {
                    (Some(masked(&name, &given.text).into_owned()), given.source.clone())
                }
                // The secret is in a file.
                None if given(&format!("{name}_FILE")).is_some() => (None, SettingSource::Default),
                None => (default(argument), SettingSource::Default),
            };
            Some(ShownSetting { name, value, source })
        })
        .collect()
}

/// Adds to the settings what the process makes of them: the ids of tokens and the upstream in use.
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

/// Returns the default that the help names.
fn default(argument: &Arg) -> Option<String> {
    let help = argument.get_help()?.to_string();
    let (_, default) = help.rsplit_once("[default: ")?;
    default.strip_suffix(']').map(str::to_owned)
}

/// Masks a secret, and the user and password in a URL.
fn masked<'a>(name: &str, value: &'a str) -> Cow<'a, str> {
    if ["TOKEN", "API_KEY", "PROXY"].iter().any(|end| name.ends_with(end)) {
        return MASK.into();
    }
    match value.split_once("://").zip(value.rsplit_once('@')) {
        Some(((scheme, _), (_, host))) => format!("{scheme}://{MASK}@{host}").into(),
        None => value.into(),
    }
}
