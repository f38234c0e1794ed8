//! One set of options from three sources: file < environment < flag.
//!
//! A file key is the name of a flag, without its dashes in front: the command's
//! own list of flags is the list of keys, so neither can have what the other
//! lacks.

use std::{
    fs,
    path::{Path, PathBuf},
};

use adit_tunnel::log::{self, LogHandle};
use anyhow::{Context as _, Result, bail};
use clap::Command;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

/// A configuration file longer than this is no configuration file.
const MAX_FILE: u64 = 1024 * 1024;

/// The arguments of a command with options `T`.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments<T: clap::Args> {
    /// YAML file of options: a key for each flag below, such as `key-file`
    #[arg(short = 'c', long = "config", env = "ADIT_CONFIG", value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// What flags and environment say
    #[command(flatten)]
    pub settings: Settings<T>,
}

/// The options of a command and of its log.
#[derive(Debug, Clone, Serialize, Deserialize, clap::Args)]
pub struct Settings<T: clap::Args> {
    /// The command's own options
    #[command(flatten)]
    #[serde(flatten)]
    pub options: T,
    /// The log's
    #[command(flatten)]
    #[serde(flatten)]
    pub log: LogOptions,
}

/// How a process logs.
#[derive(Debug, Clone, Default, Serialize, Deserialize, clap::Args)]
#[serde(rename_all = "kebab-case", default)]
pub struct LogOptions {
    /// Log level, or directives such as "info,adit_dialer=debug" [default: info]
    #[arg(long, env = "ADIT_LOG_LEVEL", value_name = "FILTER")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_level: Option<String>,
    /// How log lines look [default: text]
    #[arg(long, env = "ADIT_LOG_FORMAT", value_name = "FORMAT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_format: Option<log::Format>,
}

impl LogOptions {
    /// Installs the logger.
    pub fn init(&self) -> Result<LogHandle> {
        let filter = self.log_level.as_deref().unwrap_or("info");
        log::init(self.log_format.unwrap_or_default(), filter).context("--log-level")
    }
}

impl<T: clap::Args + Serialize + DeserializeOwned> Arguments<T> {
    /// The settings of file, environment and flags together.
    pub fn merged(&self) -> Result<Settings<T>> {
        let flags = to_map(&self.settings)?;
        let mut all = match &self.file {
            Some(path) => read_file::<T>(path)?,
            None => Map::new(),
        };
        all.extend(flags);
        // Each part was read by itself already: what fails here is a fault of
        // the option structs.
        serde_json::from_value(Value::Object(all))
            .context("merging the options of file, environment and flags")
    }
}

fn read_file<T: clap::Args + Serialize + DeserializeOwned>(
    path: &Path,
) -> Result<Map<String, Value>> {
    let shown = path.display();
    let length = fs::metadata(path)
        .with_context(|| format!("the configuration file {shown}"))?
        .len();
    if length > MAX_FILE {
        bail!("the configuration file {shown} is {length} bytes long; at most {MAX_FILE} are read");
    }
    let text =
        fs::read_to_string(path).with_context(|| format!("the configuration file {shown}"))?;
    if text
        .lines()
        .all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'))
    {
        return Ok(Map::new());
    }
    let keys: Map<String, Value> =
        serde_saphyr::from_str(&text).with_context(|| format!("the configuration file {shown}"))?;
    let known = keys_of::<T>();
    for key in keys.keys() {
        if !known.contains(key) {
            bail!(
                "{shown}:{}: unknown key {key:?}{}",
                line_of(&text, key),
                nearest(key, &known)
            );
        }
    }
    let settings: Settings<T> =
        serde_saphyr::from_str(&text).with_context(|| format!("the configuration file {shown}"))?;
    to_map(&settings)
}

fn to_map(settings: &impl Serialize) -> Result<Map<String, Value>> {
    match serde_json::to_value(settings)? {
        Value::Object(map) => Ok(map),
        other => bail!("options are a mapping, not {other}"),
    }
}

/// The long flags of a command with options `T`.
fn keys_of<T: clap::Args>() -> Vec<String> {
    let command = Settings::<T>::augment(Command::new("options"));
    command
        .get_arguments()
        .filter_map(|a| a.get_long().map(str::to_owned))
        .collect()
}

impl<T: clap::Args> Settings<T> {
    fn augment(command: Command) -> Command {
        <Self as clap::Args>::augment_args(command)
    }
}

fn line_of(text: &str, key: &str) -> usize {
    let starts = |line: &str| {
        line.trim_start()
            .trim_start_matches(['"', '\''])
            .starts_with(key)
    };
    text.lines().position(starts).map_or(1, |i| i + 1)
}

/// A hint where a key was probably mistyped.
fn nearest(key: &str, known: &[String]) -> String {
    let plain = |text: &str| text.to_ascii_lowercase().replace(['-', '_'], "");
    let close = known.iter().find(|k| {
        let (a, b) = (plain(k), plain(key));
        a == b || (b.len() > 2 && (a.starts_with(&b) || b.starts_with(&a)))
    });
    match close {
        Some(close) => format!("; is it {close:?}?"),
        None => format!("; the keys are {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(file: &str, flags: &[&str]) -> Result<Settings<adit_connector::Options>> {
        #[derive(clap::Parser)]
        struct Only {
            #[command(flatten)]
            arguments: Arguments<adit_connector::Options>,
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("connector.yaml");
        fs::write(&path, file).unwrap();
        let mut argv = vec!["adit", "-c", path.to_str().unwrap()];
        argv.extend(flags);
        let only = <Only as clap::Parser>::try_parse_from(argv).unwrap();
        only.arguments.merged()
    }

    #[test]
    fn a_flag_wins_over_the_file_and_the_rest_of_the_file_stays() {
        let merged = arguments(
            "key-file: /from/file\nmax-streams: 7\nlog-format: json\n",
            &["--key-file", "/from/flag"],
        )
        .unwrap();
        assert_eq!(
            merged.options.endpoint.key_file.unwrap(),
            PathBuf::from("/from/flag")
        );
        assert_eq!(merged.options.max_streams, Some(7));
        assert_eq!(merged.log.log_format, Some(log::Format::Json));
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_line_and_a_hint() {
        let error = arguments("# a comment\nkey-file: /k\nkeyfile: /k\n", &[])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("connector.yaml:3: unknown key \"keyfile\"; is it \"key-file\"?"),
            "{error}"
        );
    }

    #[test]
    fn a_value_of_the_wrong_kind_is_refused_and_an_empty_file_is_not() {
        assert!(arguments("max-streams: many\n", &[]).is_err());
        assert!(arguments("max-idle-timeout: soon\n", &[]).is_err());
        assert!(arguments("[1, 2]\n", &[]).is_err());
        assert!(arguments("# nothing yet\n", &[]).is_ok());
    }
}
