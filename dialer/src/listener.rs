//! The Unix socket that Envoy connects to: who may open it, and whose file it is.

use std::{
    fs, io,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, chown},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::Mode,
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType},
};

use crate::socket::{SocketConfig, SocketPath};

/// Envoy does not wait for a full backlog: its connect fails with EAGAIN, and
/// with it every pending request of the cluster (measured: of 40 parallel
/// connects against a backlog of 4, 36 failed at once).
const BACKLOG: i32 = 4096;

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

#[cfg(test)]
mod tests {
    use std::os::{linux::net::SocketAddrExt as _, unix::net::SocketAddr};

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
        let address = SocketAddr::from_abstract_name(&name[1..]).unwrap();
        assert!(UnixStream::connect_addr(&address).is_ok());
        assert!(matches!(config.bind(), Err(ListenError::Taken(_))));
    }
}
