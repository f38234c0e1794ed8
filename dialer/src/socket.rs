//! How the Unix socket is named, and who may open it.

use std::path::PathBuf;

/// `sun_path` holds 108 bytes with its final zero (unix(7)); an abstract name
/// spends one on its leading zero.
const MAX_NAME: usize = 107;

/// Where to listen, and for whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketConfig {
    /// The place.
    pub path: SocketPath,
    /// Permission bits; nothing for an abstract socket, which has none.
    pub mode: u32,
    /// Owner and group.
    pub owner: Option<(u32, Option<u32>)>,
}

/// The name of a Unix socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SocketPath {
    /// A file.
    File(PathBuf),
    /// A Linux abstract name, without the leading zero.
    Abstract(String),
}

/// Why a socket option cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ParseSocketError {
    /// The kernel's limit.
    #[error(
        "--socket {path:?} is {len} bytes long, and the kernel allows {MAX_NAME}: choose a shorter path"
    )]
    TooLong {
        /// What was asked for.
        path: String,
        /// Its length.
        len: usize,
    },
    /// Nothing, or a zero byte.
    #[error("--socket {0:?} is no path; write a path, or @name for an abstract socket")]
    Name(String),
    /// Not octal permission bits.
    #[error("--socket-mode {0:?} is no mode; write it octal, such as 0600 or 0660")]
    Mode(String),
    /// Not numbers.
    #[error("--socket-owner {0:?} is no owner; write UID or UID:GID in numbers")]
    Owner(String),
    /// Abstract sockets have neither.
    #[error(
        "an abstract socket has no mode and no owner: any process in its network namespace may \
         connect; give a path instead to restrict it"
    )]
    AbstractHasNone,
}

impl SocketConfig {
    /// Reads the three socket options.
    ///
    /// # Errors
    /// When one cannot be used.
    pub fn parse(
        path: &str,
        mode: Option<&str>,
        owner: Option<&str>,
    ) -> Result<Self, ParseSocketError> {
        let name = path.strip_prefix('@').unwrap_or(path);
        if name.is_empty() || name.contains('\0') {
            return Err(ParseSocketError::Name(path.into()));
        }
        if name.len() > MAX_NAME {
            return Err(ParseSocketError::TooLong {
                path: path.into(),
                len: name.len(),
            });
        }
        let is_abstract = path.starts_with('@');
        if is_abstract && (mode.is_some() || owner.is_some()) {
            return Err(ParseSocketError::AbstractHasNone);
        }
        let mode = match mode {
            None => 0o600,
            Some(text) => u32::from_str_radix(text.strip_prefix("0o").unwrap_or(text), 8)
                .ok()
                .filter(|mode| *mode <= 0o777 && !text.starts_with('+'))
                .ok_or_else(|| ParseSocketError::Mode(text.into()))?,
        };
        let owner = owner
            .map(|text| {
                let bad = || ParseSocketError::Owner(text.into());
                let (uid, gid) = match text.split_once(':') {
                    Some((uid, gid)) => (uid, Some(gid)),
                    None => (text, None),
                };
                let uid = uid.parse().map_err(|_| bad())?;
                let gid = gid.map(|g| g.parse().map_err(|_| bad())).transpose()?;
                Ok((uid, gid))
            })
            .transpose()?;
        Ok(Self {
            path: if is_abstract {
                SocketPath::Abstract(name.into())
            } else {
                SocketPath::File(name.into())
            },
            mode,
            owner,
        })
    }
}

impl std::fmt::Display for SocketPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Abstract(name) => write!(f, "@{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_cannot_be_used_are_refused() {
        let parse = |path: &str, mode, owner| SocketConfig::parse(path, mode, owner).unwrap_err();
        let long = format!("/{}", "x".repeat(107));
        assert!(matches!(
            parse(&long, None, None),
            ParseSocketError::TooLong { len: 108, .. }
        ));
        assert!(SocketConfig::parse(&long[..107], None, None).is_ok());
        assert!(matches!(parse("", None, None), ParseSocketError::Name(_)));
        assert!(matches!(parse("@", None, None), ParseSocketError::Name(_)));
        for mode in ["9", "rw", "07777", "+7", ""] {
            assert!(matches!(
                parse("/s", Some(mode), None),
                ParseSocketError::Mode(_)
            ));
        }
        for owner in ["root", "1:", ":1", "1:2:3"] {
            assert!(matches!(
                parse("/s", None, Some(owner)),
                ParseSocketError::Owner(_)
            ));
        }
        assert_eq!(
            parse("@a", Some("0600"), None),
            ParseSocketError::AbstractHasNone
        );
    }
}
