//! One name for an option in three places: flag, environment, file. A flag
//! outranks the environment, and that the file.

use std::{collections::BTreeMap, fs, path::Path};

use adit_tunnel::log::{Format, LogHandle};
use anyhow::{Context as _, bail};
use clap::Args;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use serde_saphyr::Spanned;

/// The largest options file that is read.
const MAX_FILE: u64 = 1 << 20;

/// How a process logs.
#[derive(Debug, Clone, Default, PartialEq, Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub(crate) struct LogOptions {
    /// How log lines look [default: text]
    #[arg(long, env = "ADIT_LOG_FORMAT", value_enum)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_format: Option<Format>,
    /// What is logged: a level, or "info,adit_dialer=debug" [default: info]
    #[arg(long, env = "ADIT_LOG_LEVEL", value_name = "FILTER")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_level: Option<String>,
}

impl LogOptions {
    /// Begins to log.
    pub fn init(&self) -> anyhow::Result<LogHandle> {
        let filter = self.log_level.as_deref().unwrap_or("info");
        Ok(adit_tunnel::log::init(
            self.log_format.unwrap_or_default(),
            filter,
        )?)
    }
}

/// `given` (flags and environment), and for what they leave open the file.
pub(crate) fn merge<O>(given: &O, file: Option<&Path>) -> anyhow::Result<O>
where
    O: Args + Serialize + DeserializeOwned,
{
    let mut merged = Map::new();
    if let Some(path) = file {
        let entries = entries::<O>(path)?;
        merged.extend(entries.into_iter().map(|entry| (entry.key, entry.value)));
    }
    merged.extend(object(given)?);
    Ok(O::deserialize(Value::Object(merged))?)
}

/// An option in a file.
#[derive(Debug)]
pub(crate) struct Entry {
    pub key: String,
    pub value: Value,
    /// `FILE:LINE`.
    pub place: String,
}

/// All options of a file, by line; the error has a line for each that is wrong.
pub(crate) fn entries<O>(path: &Path) -> anyhow::Result<Vec<Entry>>
where
    O: Args + DeserializeOwned,
{
    let known = keys::<O>();
    let mut read: Vec<_> = read(path)?.into_iter().collect();
    read.sort_by_key(|(_, value)| value.referenced.line());
    let (mut good, mut wrong) = (Vec::new(), Vec::new());
    for (key, value) in read {
        let place = format!("{}:{}", path.display(), value.referenced.line());
        if !known.contains(&key) {
            wrong.push(format!(
                "{place}: unknown option {key:?}{}",
                near(&key, &known)
            ));
            continue;
        }
        // Alone, because an error in a flattened part does not say which
        // of its fields is meant.
        let alone = Map::from_iter([(key.clone(), value.value.clone())]);
        match O::deserialize(Value::Object(alone)) {
            Err(error) => wrong.push(format!("{place}: {key}: {error}")),
            Ok(_) => good.push(Entry {
                key,
                value: value.value,
                place,
            }),
        }
    }
    match wrong.is_empty() {
        true => Ok(good),
        false => bail!(wrong.join("\n")),
    }
}

/// What was given, by the options' names.
pub(crate) fn object<O: Serialize>(given: &O) -> anyhow::Result<Map<String, Value>> {
    match serde_json::to_value(given)? {
        Value::Object(given) => Ok(given),
        _ => bail!("the options are no object"),
    }
}

/// The names of all options of a type.
fn keys<O: Args>() -> Vec<String> {
    let command = O::augment_args(clap::Command::new("options"));
    command
        .get_arguments()
        .filter_map(|a| a.get_long().map(str::to_owned))
        .collect()
}

/// The known name that may have been meant: what is as near as clap asks of a
/// flag.
fn near(key: &str, known: &[String]) -> String {
    let plain = |text: &str| text.to_ascii_lowercase().replace(['_', '-'], "");
    let likeness = |known: &String| strsim::jaro_winkler(&plain(known), &plain(key));
    let meant = known
        .iter()
        .max_by(|a, b| likeness(a).total_cmp(&likeness(b)))
        .filter(|known| likeness(known) > 0.8);
    meant
        .map(|k| format!("; did you mean {k:?}?"))
        .unwrap_or_default()
}

fn read(path: &Path) -> anyhow::Result<BTreeMap<String, Spanned<Value>>> {
    let shown = path.display();
    let size = fs::metadata(path)
        .with_context(|| format!("cannot read {shown}"))?
        .len();
    if size > MAX_FILE {
        bail!("{shown} has {size} bytes; a file of options has at most {MAX_FILE}");
    }
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {shown}"))?;
    let read: Option<BTreeMap<String, Spanned<Value>>> =
        serde_saphyr::from_str(&text).map_err(|e| {
            let line = e.location().map_or(0, |l| l.line());
            let message = e.to_string();
            let first = message.lines().next().unwrap_or_default();
            anyhow::anyhow!("{shown}:{line}: {}", first.trim_start_matches("error: "))
        })?;
    Ok(read.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::role::{ConnectorOptions, DialerOptions};

    fn file(text: &str) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::TempDir::new().expect("a folder");
        let path = folder.path().join("options.yaml");
        fs::write(&path, text).expect("written");
        (folder, path)
    }

    #[test]
    fn a_file_gives_what_flags_leave_open() {
        let (_folder, path) =
            file("# mine\nmax-idle-timeout: 5s\nsocket: /run/a.sock\nworkers: 3\n");
        let mut given = DialerOptions::default();
        given.options.socket = Some("/run/b.sock".into());
        let merged = merge(&given, Some(&path)).expect("merged");
        assert_eq!(merged.options.socket.as_deref(), Some("/run/b.sock"));
        assert_eq!(merged.options.workers, Some(3));
        let idle = merged.options.endpoint.max_idle_timeout.expect("set");
        assert_eq!(idle.0, std::time::Duration::from_secs(5));
    }

    #[test]
    fn a_wrong_file_is_refused_with_its_line() {
        for (text, said) in [
            (
                "socket: a\nnonsense: b\n",
                ":2: unknown option \"nonsense\"",
            ),
            ("soket: b\n", "did you mean \"socket\"?"),
            (
                "max_idle_timeout: 3s\n",
                ":1: unknown option \"max_idle_timeout\"; did you mean \"max-idle-timeout\"?",
            ),
            ("log-level: [\n", ":"),
            ("just text\n", ":1: "),
        ] {
            let (_folder, path) = file(text);
            let error = merge(&DialerOptions::default(), Some(&path))
                .expect_err("refused")
                .to_string();
            assert!(
                error.contains(said) && error.contains("options.yaml"),
                "{error}"
            );
        }
        let (_folder, path) = file("\nmax-idle-timeout: soon\n");
        let error = merge(&ConnectorOptions::default(), Some(&path))
            .expect_err("refused")
            .to_string();
        assert!(error.contains("soon"), "{error}");
    }

    #[test]
    fn everything_that_is_wrong_in_a_file_is_said_at_once() {
        let (_folder, path) = file("workers: many\nsocket: /run/a.sock\nsoket: b\n");
        let error = merge(&DialerOptions::default(), Some(&path))
            .expect_err("refused")
            .to_string();
        let lines: Vec<_> = error.lines().collect();
        assert_eq!(lines.len(), 2, "{error}");
        assert!(lines[0].contains(":1: workers: "), "{error}");
        assert!(lines[1].contains(":3: unknown option \"soket\""), "{error}");
    }

    #[test]
    fn an_empty_file_is_no_options() {
        let (_folder, path) = file("# nothing\n");
        assert!(merge(&ConnectorOptions::default(), Some(&path)).is_ok());
    }
}
