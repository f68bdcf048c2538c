//! The lines of `.env`.

use std::{env, fs, io};

use super::BadSetting;

const NAME: &str = ".env";
/// Bytes that editors on Windows put in front of UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// How much alike a name and a setting's are if one is to be taken for the other, from 0 to 1.
const MIN_LIKENESS: f64 = 0.8;

/// Sets what the environment does not, from `.env` in the working directory if there is one.
///
/// A name that is almost that of a setting is refused, as its value would have no effect. Other names
/// may belong to other programs. The lines that can be read have an effect even then. Returns the names
/// that were set.
pub(super) fn load(settings: &[String]) -> (Vec<String>, Result<(), BadSetting>) {
    let text = match fs::read(NAME) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return (Vec::new(), Ok(())),
        Err(error) => return (Vec::new(), Err(unreadable(&dotenvy::Error::Io(error), &[]))),
    };
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&text);
    let mut names = Vec::new();
    let mut read = || {
        for line in dotenvy::from_read_iter(text) {
            names.push(line?.0);
        }
        Ok(())
    };
    let read: Result<(), dotenvy::Error> = read();
    let misspelt = names.iter().find_map(|name| Some((name, almost(name, settings)?)));
    let checked = match (read, misspelt) {
        (Err(error), _) => Err(unreadable(&error, text)),
        (_, Some((name, setting))) => {
            let problem = format!("{name} is no setting; did you mean {setting}?");
            Err(BadSetting::new(NAME, problem))
        }
        _ => Ok(()),
    };
    names.retain(|name| env::var_os(name).is_none());
    // What it cannot read was found out above.
    let _ = dotenvy::from_read(text);
    (names, checked)
}

/// No text of the file is shown, as secrets stand there.
fn unreadable(error: &dotenvy::Error, text: &[u8]) -> BadSetting {
    match error {
        dotenvy::Error::Io(error) => BadSetting::new(NAME, format!("cannot be read: {error}")),
        dotenvy::Error::LineParse(..) => {
            let number = broken_line(text);
            let problem = format!(
                "line {number}: expected NAME=value; a value with a space, a # or a $ stands in \
                 single quotes"
            );
            BadSetting::new(NAME, problem)
        }
        _ => BadSetting::new(NAME, "expected lines of the form NAME=value"),
    }
}

/// The number of the first line that cannot be read: all lines before it can be read alone.
fn broken_line(text: &[u8]) -> usize {
    let lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
    let is_whole = |count: &usize| {
        dotenvy::from_read_iter(&*lines[..*count].concat()).all(|line| line.is_ok())
    };
    (0..lines.len()).rev().find(is_whole).unwrap_or(0) + 1
}

/// The setting that `name` is almost the name of.
fn almost<'a>(name: &str, settings: &'a [String]) -> Option<&'a String> {
    if settings.iter().any(|setting| setting == name) {
        return None;
    }
    let name = name.to_ascii_uppercase().replace('-', "_");
    let likeness = |setting: &&String| strsim::normalized_damerau_levenshtein(&name, setting);
    let nearest = settings.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
    (likeness(&nearest) >= MIN_LIKENESS).then_some(nearest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_are_almost_a_settings_are_taken_for_one() {
        let settings = ["ADMIN_TOKEN", "ADMIN_TOKEN_FILE", "HOST", "PORT", "UPSTREAM_API_KEY"];
        let settings = settings.map(str::to_owned);
        let almost = |name| almost(name, &settings).map(String::as_str);
        for (name, setting) in [
            ("ADMIN_TOKENS", "ADMIN_TOKEN"),
            ("ADMIN-TOKEN", "ADMIN_TOKEN"),
            ("admin_token", "ADMIN_TOKEN"),
            ("AMDIN_TOKEN", "ADMIN_TOKEN"),
            ("UPSTREAM_APIKEY", "UPSTREAM_API_KEY"),
            ("HOSTS", "HOST"),
        ] {
            assert_eq!(almost(name), Some(setting), "{name}");
        }
        for name in
            ["ADMIN_TOKEN", "OPENAI_API_KEY", "HOME", "COMPOSE_PROJECT_NAME", "POSTGRES_HOST"]
        {
            assert_eq!(almost(name), None, "{name}");
        }
    }
}
