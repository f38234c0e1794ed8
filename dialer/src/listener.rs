//! The Unix socket that Envoy connects to: who may open it, and whose file it is.

use std::{
    fs, io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::OsStrExt as _,
            fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, chown},
            net::{SocketAddr, UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::Mode,
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType},
};

/// `sun_path` holds 108 bytes with its final zero (unix(7)); an abstract name
/// spends one on its leading zero.
const MAX_NAME: usize = 107;
/// Envoy does not wait for a full backlog: its connect fails with EAGAIN, and
/// with it every pending request of the cluster (measured: of 40 parallel
/// connects against a backlog of 4, 36 failed at once).
const BACKLOG: i32 = 4096;

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

/// Why the socket cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Somebody is there.
    #[error(
        "the socket {0} is served by another process: stop that one, or choose another --socket"
    )]
    Taken(String),
    /// A file that is no socket is never removed.
    #[error("{0} exists and is no socket: remove it, or choose another --socket")]
    NotASocket(String),
    /// A system call failed.
    #[error("{step} the socket {path}: {source}")]
    Io {
        /// What was tried.
        step: &'static str,
        /// On what.
        path: String,
        /// The cause.
        source: io::Error,
    },
}

/// A socket that is served; its file goes with it.
#[derive(Debug)]
pub struct Bound {
    /// Nonblocking, listening.
    pub listener: UnixListener,
    file: Option<(PathBuf, u64, u64)>,
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

    /// Binds and listens. A stale file is replaced, but only if it is a socket
    /// where nobody answers.
    ///
    /// # Errors
    /// When somebody answers there, the file is no socket, or a call fails.
    pub fn bind(&self) -> Result<Bound, ListenError> {
        let failed = |step| {
            move |source: io::Error| ListenError::Io {
                step,
                path: self.path.to_string(),
                source,
            }
        };
        let address = match &self.path {
            SocketPath::Abstract(name) => SocketAddrUnix::new_abstract_name(name.as_bytes()),
            SocketPath::File(path) => {
                self.clear_stale(path)?;
                SocketAddrUnix::new(path.as_os_str().as_bytes())
            }
        }
        .map_err(|e| failed("naming")(e.into()))?;
        let socket = rustix::net::socket_with(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )
        .map_err(|e| failed("making")(e.into()))?;
        // Linux makes the file with the socket's own mode, less the umask: it
        // is at no moment more open than wanted (net/unix/af_unix.c, unix_bind).
        rustix::fs::fchmod(&socket, Mode::from_raw_mode(self.mode))
            .map_err(|e| failed("setting the mode of")(e.into()))?;
        rustix::net::bind(&socket, &address).map_err(|e| match e {
            rustix::io::Errno::ADDRINUSE => ListenError::Taken(self.path.to_string()),
            e => failed("binding")(e.into()),
        })?;
        let mut file = None;
        if let SocketPath::File(path) = &self.path {
            if let Some((uid, gid)) = self.owner {
                chown(path, Some(uid), gid).map_err(failed("changing the owner of"))?;
            }
            fs::set_permissions(path, fs::Permissions::from_mode(self.mode))
                .map_err(failed("setting the mode of"))?;
            let metadata = fs::symlink_metadata(path).map_err(failed("examining"))?;
            file = Some((path.clone(), metadata.dev(), metadata.ino()));
        }
        rustix::net::listen(&socket, BACKLOG).map_err(|e| failed("listening on")(e.into()))?;
        warn_of_small_backlog();
        Ok(Bound {
            listener: socket.into(),
            file,
        })
    }

    fn clear_stale(&self, path: &Path) -> Result<(), ListenError> {
        let io = |step| {
            move |source| ListenError::Io {
                step,
                path: path.display().to_string(),
                source,
            }
        };
        let metadata = match fs::symlink_metadata(path) {
            Ok(metadata) => metadata,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(io("examining")(e)),
        };
        if !metadata.file_type().is_socket() {
            return Err(ListenError::NotASocket(path.display().to_string()));
        }
        match probe(path) {
            // Bound, but nobody listens: the owner is gone.
            Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {
                fs::remove_file(path).map_err(io("removing"))
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            // A full backlog is an answer too.
            Ok(()) => Err(ListenError::Taken(path.display().to_string())),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                Err(ListenError::Taken(path.display().to_string()))
            }
            Err(e) => Err(io("asking who serves")(e)),
        }
    }
}

/// Connects without waiting: a full backlog would otherwise block for ever.
fn probe(path: &Path) -> io::Result<()> {
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )?;
    let address = SocketAddrUnix::new(path.as_os_str().as_bytes())?;
    rustix::net::connect(&socket, &address)?;
    drop(UnixStream::from(socket));
    Ok(())
}

fn warn_of_small_backlog() {
    let path = "/proc/sys/net/core/somaxconn";
    let limit = fs::read_to_string(path).ok();
    if let Some(limit) = limit.and_then(|t| t.trim().parse::<i32>().ok())
        && limit < BACKLOG
    {
        tracing::warn!(
            somaxconn = limit,
            "the kernel cuts the socket's backlog below {BACKLOG}: raise net.core.somaxconn, \
             or a burst of connects fails"
        );
    }
}

impl Bound {
    /// The listening socket's name as clients use it.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Removes the file, if it is still the one that was made here.
    pub fn remove_file(&self) {
        if let Some((path, dev, ino)) = &self.file
            && let Ok(now) = fs::symlink_metadata(path)
            && (now.dev(), now.ino()) == (*dev, *ino)
        {
            let _ = fs::remove_file(path);
        }
    }
}

impl SocketPath {
    /// Connects as Envoy would; for tests and tools.
    ///
    /// # Errors
    /// When nobody listens there.
    pub fn connect(&self) -> io::Result<UnixStream> {
        match self {
            Self::File(path) => UnixStream::connect(path),
            Self::Abstract(name) => {
                UnixStream::connect_addr(&SocketAddr::from_abstract_name(name.as_bytes())?)
            }
        }
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

    fn at(path: &Path) -> SocketConfig {
        SocketConfig::parse(path.to_str().unwrap(), None, None).unwrap()
    }

    #[test]
    fn the_socket_is_private_and_its_file_goes_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let bound = at(&path).bind().unwrap();
        let metadata = fs::symlink_metadata(&path).unwrap();
        assert_eq!(metadata.mode() & 0o777, 0o600);
        assert!(UnixStream::connect(&path).is_ok());
        bound.remove_file();
        assert!(!path.exists());
    }

    #[test]
    fn a_wider_mode_is_given_whatever_the_umask() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let config = SocketConfig::parse(path.to_str().unwrap(), Some("0666"), None).unwrap();
        let _bound = config.bind().unwrap();
        assert_eq!(fs::symlink_metadata(&path).unwrap().mode() & 0o777, 0o666);
    }

    #[test]
    fn a_stale_file_is_replaced_and_a_served_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        drop(at(&path).bind().unwrap());
        assert!(path.exists(), "dropped without removing: stale");
        let served = at(&path).bind().unwrap();
        assert!(matches!(at(&path).bind(), Err(ListenError::Taken(_))));
        assert!(UnixStream::connect(&path).is_ok(), "untouched");
        drop(served);
    }

    #[test]
    fn a_served_socket_with_a_full_backlog_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let served = UnixListener::bind(&path).unwrap();
        rustix::net::listen(&served, 0).unwrap();
        let mut held = Vec::new();
        while let Ok(()) = probe(&path).inspect(|()| held.push(())) {
            assert!(held.len() < 100, "the backlog is never full");
        }
        assert!(matches!(at(&path).bind(), Err(ListenError::Taken(_))));
    }

    #[test]
    fn a_file_that_is_no_socket_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        fs::write(&path, "precious").unwrap();
        assert!(matches!(at(&path).bind(), Err(ListenError::NotASocket(_))));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[test]
    fn another_processs_new_file_is_not_removed_on_the_way_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let ours = at(&path).bind().unwrap();
        fs::remove_file(&path).unwrap();
        let _theirs = UnixListener::bind(&path).unwrap();
        ours.remove_file();
        assert!(path.exists());
    }

    #[test]
    fn abstract_names_are_served() {
        let name = format!("@adit-test-{}", std::process::id());
        let config = SocketConfig::parse(&name, None, None).unwrap();
        let _bound = config.bind().unwrap();
        assert!(config.path.connect().is_ok());
        assert!(matches!(config.bind(), Err(ListenError::Taken(_))));
    }

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
