//! The key that signs updates (TSIG, RFC 8945).

use std::{
    fmt, fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    str::FromStr,
};

use data_encoding::BASE64;
use hickory_proto::rr::{Name, TSigner, rdata::tsig::TsigAlgorithm};

/// How far two clocks may be apart: what RFC 8945 section 10 recommends.
const FUDGE_SECONDS: u16 = 300;
/// A key file is a few lines.
const MAX_FILE: u64 = 16 * 1024;

/// A shared secret with its name and algorithm.
#[derive(Clone)]
pub struct Key {
    pub(super) signer: TSigner,
}

/// Why a text is no key. The secret is never shown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Neither form.
    #[error(
        "a TSIG key is name:algorithm:base64, or BIND's key \"name\" {{ algorithm …; secret \"…\"; }};"
    )]
    Form,
    /// Not a name.
    #[error("the TSIG key's name {0:?} is no DNS name")]
    Name(String),
    /// One that is not supported.
    #[error("the TSIG algorithm {0:?}: hmac-sha256, hmac-sha384 and hmac-sha512 are supported")]
    Algorithm(String),
    /// Not base64, or too short.
    #[error("the TSIG key's secret must be base64 of at least 16 bytes (tsig-keygen makes one)")]
    Secret,
}

/// Why a file gives no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// It cannot be read.
    #[error("TSIG key file {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Others may write it.
    #[error("TSIG key file {path} has mode {mode:04o}: others may change it; chmod go-w it")]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// What it contains.
    #[error("TSIG key file {path}: {source}")]
    Content {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: KeyError,
    },
}

impl Key {
    /// Reads a key from a file of either form.
    ///
    /// A mounted Kubernetes Secret is readable for the group, and is often
    /// 0644 inside its pod, so reading is not what is refused: writing is.
    ///
    /// # Errors
    /// When the file cannot be read, others may write it, or it has no key.
    pub fn read(path: &Path) -> Result<Self, KeyFileError> {
        let io = |source| KeyFileError::Io {
            path: path.into(),
            source,
        };
        let metadata = fs::metadata(path).map_err(io)?;
        if metadata.len() > MAX_FILE || !metadata.is_file() {
            return Err(io(io::Error::other("not a small file")));
        }
        let mode = metadata.mode() & 0o7777;
        if mode & 0o022 != 0 {
            return Err(KeyFileError::Mode {
                path: path.into(),
                mode,
            });
        }
        let text = fs::read_to_string(path).map_err(io)?;
        text.parse().map_err(|source| KeyFileError::Content {
            path: path.into(),
            source,
        })
    }

    /// Its name, as the server knows it.
    pub fn name(&self) -> String {
        let name = self.signer.signer_name().to_ascii();
        name.trim_end_matches('.').into()
    }

    fn new(name: &str, algorithm: &str, secret: &str) -> Result<Self, KeyError> {
        let wrong_name = || KeyError::Name(name.into());
        let mut fqdn = Name::from_ascii(name).map_err(|_| wrong_name())?;
        if fqdn.is_root() || name.is_empty() {
            return Err(wrong_name());
        }
        fqdn.set_fqdn(true);
        let known = match algorithm.to_ascii_lowercase().trim_end_matches('.') {
            "hmac-sha256" => TsigAlgorithm::HmacSha256,
            "hmac-sha384" => TsigAlgorithm::HmacSha384,
            "hmac-sha512" => TsigAlgorithm::HmacSha512,
            _ => return Err(KeyError::Algorithm(algorithm.into())),
        };
        let secret = BASE64
            .decode(secret.as_bytes())
            .ok()
            .filter(|s| s.len() >= 16)
            .ok_or(KeyError::Secret)?;
        let signer = TSigner::new(secret, known, fqdn, FUDGE_SECONDS)
            .map_err(|_| KeyError::Algorithm(algorithm.into()))?;
        Ok(Self { signer })
    }
}

impl FromStr for Key {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let lines: Vec<_> = text.lines().map(without_comment).collect();
        let text = lines.join(" ");
        let text = text.trim();
        if text.contains('{') {
            return bind_form(text.strip_prefix("key").ok_or(KeyError::Form)?);
        }
        let mut parts = text.split(':').map(str::trim);
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(name), Some(algorithm), Some(secret), None) => Self::new(name, algorithm, secret),
            _ => Err(KeyError::Form),
        }
    }
}

/// `"name" { algorithm hmac-sha256; secret "…"; };`
fn bind_form(text: &str) -> Result<Key, KeyError> {
    let (name, rest) = text.split_once('{').ok_or(KeyError::Form)?;
    let (body, _) = rest.split_once('}').ok_or(KeyError::Form)?;
    let mut algorithm = None;
    let mut secret = None;
    for statement in body.split(';').map(str::trim).filter(|s| !s.is_empty()) {
        let (word, value) = statement
            .split_once(char::is_whitespace)
            .ok_or(KeyError::Form)?;
        match word {
            "algorithm" => algorithm = Some(unquoted(value)),
            "secret" => secret = Some(unquoted(value)),
            _ => return Err(KeyError::Form),
        }
    }
    let (Some(algorithm), Some(secret)) = (algorithm, secret) else {
        return Err(KeyError::Form);
    };
    Key::new(unquoted(name), algorithm, secret)
}

fn unquoted(text: &str) -> &str {
    text.trim().trim_matches('"')
}

fn without_comment(line: &str) -> &str {
    // Only whole lines: base64 may contain `//`.
    let start = line.trim_start();
    if start.starts_with('#') || start.starts_with("//") {
        ""
    } else {
        line
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

    #[test]
    fn both_forms_give_the_same_key_and_neither_shows_it() {
        let short: Key = format!("adit.example.:HMAC-SHA256:{SECRET}\n")
            .parse()
            .expect("a key");
        let bind: Key = format!(
            "# made by tsig-keygen\nkey \"adit.example\" {{\n\talgorithm hmac-sha256;\n\tsecret \"{SECRET}\";\n}};\n"
        )
        .parse()
        .expect("a key");
        for key in [&short, &bind] {
            assert_eq!(key.name(), "adit.example");
            assert_eq!(key.signer.key(), b"0123456789abcdef0123456789abcdef");
            assert_eq!(format!("{key:?}"), "Key(adit.example)");
        }
    }

    #[test]
    fn what_is_no_key_is_refused_without_being_shown() {
        for text in [
            "",
            "adit",
            &format!("adit:hmac-md5:{SECRET}"),
            &format!("adit:hmac-sha256-128:{SECRET}"),
            &format!(":hmac-sha256:{SECRET}"),
            "adit:hmac-sha256:c2hvcnQ=",
            "adit:hmac-sha256:not base64",
            &format!("key adit {{ secret \"{SECRET}\"; }};"),
            "key adit",
        ] {
            let error = text.parse::<Key>().expect_err(text).to_string();
            assert!(
                !error.contains(SECRET) && !error.contains("c2hvcnQ"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_file_that_others_may_write_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("key");
        fs::write(&path, format!("adit:hmac-sha512:{SECRET}")).expect("written");
        for (mode, allowed) in [(0o600, true), (0o444, true), (0o660, false), (0o602, false)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("set");
            assert_eq!(Key::read(&path).is_ok(), allowed, "{mode:o}");
        }
    }
}
