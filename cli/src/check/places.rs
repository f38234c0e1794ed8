//! Files, folders and addresses that options name: whether a process of this
//! user could use them.

use std::{
    fs,
    io::{self, Read as _},
    net::{SocketAddr, TcpListener, UdpSocket},
    path::{Path, PathBuf},
};

use adit_api::DialerState;
use adit_tunnel::admin::AdminAddr;
use rustix::fs::{Access, access};
use tempfile::TempDir;

use super::findings::Findings;

/// The dialer reads no larger state; see its discovery.
const MAX_STATE: u64 = 64 << 20;

/// A key is made on first use, and looking at options must not be that: a key
/// that is not there yet is replaced by one that ends with this.
#[must_use]
pub(super) struct Key {
    _stand_in: Option<TempDir>,
}

impl Key {
    /// For a key whose folder is made with it.
    pub fn nowhere(file: &mut Option<PathBuf>) -> anyhow::Result<Self> {
        let folder = TempDir::new()?;
        *file = Some(folder.path().join("key"));
        Ok(Self {
            _stand_in: Some(folder),
        })
    }

    /// Looks where the key is to be; `file` is changed to a stand-in's when there
    /// is none yet.
    pub fn stand_in(file: &mut Option<PathBuf>, findings: &mut Findings) -> anyhow::Result<Self> {
        let missing = file.as_ref().filter(|file| is_missing(file));
        let Some(wanted) = missing else {
            return Ok(Self { _stand_in: None });
        };
        match writable_folder(wanted) {
            Ok(()) => findings.warning(format_args!(
                "--key-file {}: there is none yet; it is made at the first start",
                wanted.display()
            )),
            Err(why) => findings.error(format_args!(
                "--key-file {}: cannot be made: {why}",
                wanted.display()
            )),
        }
        Self::nowhere(file)
    }
}

/// UDP addresses of the endpoint.
pub(super) fn bind(addresses: &[SocketAddr], findings: &mut Findings) {
    for address in addresses {
        report("bind", *address, UdpSocket::bind(address).err(), findings);
    }
}

/// A TCP address.
pub(super) fn listen(option: &str, address: SocketAddr, findings: &mut Findings) {
    report(option, address, TcpListener::bind(address).err(), findings);
}

/// An admin server's address.
pub(super) fn admin(address: &AdminAddr, findings: &mut Findings) {
    match address {
        AdminAddr::Tcp(address) => listen("admin", *address, findings),
        AdminAddr::Unix(path) => socket("admin", path, findings),
    }
}

/// The file of a Unix socket that will be made.
pub(super) fn socket(option: &str, path: &Path, findings: &mut Findings) {
    use std::os::unix::fs::FileTypeExt as _;
    let shown = path.display();
    if let Err(why) = writable_folder(path) {
        findings.error(format_args!("--{option} {shown}: {why}"));
    } else if let Ok(metadata) = fs::symlink_metadata(path)
        && !metadata.file_type().is_socket()
    {
        findings.error(format_args!(
            "--{option} {shown} exists and is no socket: remove it, or choose another path"
        ));
    }
}

/// A file that will be written beside others.
pub(super) fn file_to_write(option: &str, path: &Path, findings: &mut Findings) {
    // Such as /dev/stdout: a folder that nobody may write to.
    if path.exists() && access(path, Access::WRITE_OK).is_ok() {
        return;
    }
    if let Err(why) = writable_folder(path) {
        findings.error(format_args!("--{option} {}: {why}", path.display()));
    }
}

/// A directory that will be made, with those above it.
pub(super) fn directory_to_make(option: &str, path: &Path, findings: &mut Findings) {
    let existing = path.ancestors().find(|folder| folder.exists());
    let why = match existing {
        Some(folder) if folder == path && !folder.is_dir() => Some("is no directory".to_owned()),
        Some(folder) => may_write(folder).err(),
        // A relative one with nothing there yet.
        None => may_write(Path::new(".")).err(),
    };
    if let Some(why) = why {
        findings.error(format_args!("--{option} {}: {why}", path.display()));
    }
}

/// The dialer's state file.
pub(super) fn state(path: &Path, findings: &mut Findings) {
    let shown = path.display();
    let read = || -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        fs::File::open(path)?
            .take(MAX_STATE)
            .read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    match read() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => findings.warning(format_args!(
            "--state {shown}: there is none yet; it is read when it comes"
        )),
        Err(e) => findings.error(format_args!("--state {shown}: {e}")),
        Ok(bytes) => {
            if let Err(e) = serde_json::from_slice::<DialerState>(&bytes) {
                findings.error_at(Some(&format!("{shown}:{}", e.line())), e);
            }
        }
    }
}

fn report(option: &str, address: SocketAddr, error: Option<io::Error>, findings: &mut Findings) {
    let Some(error) = error else { return };
    match error.kind() {
        // What is checked may be running.
        io::ErrorKind::AddrInUse => findings.warning(format_args!(
                "--{option} {address} is in use: by the same service, if it runs now, else by another"
            ),
        ),
        io::ErrorKind::AddrNotAvailable => findings.error(format_args!("--{option} {address}: this machine has no such address"),
        ),
        io::ErrorKind::PermissionDenied if address.port() < 1024 => findings.error(format_args!(
                "--{option} {address}: a port below 1024 needs CAP_NET_BIND_SERVICE; choose another port"
            ),
        ),
        _ => findings.error(format_args!("--{option} {address}: {error}")),
    }
}

fn is_missing(file: &Path) -> bool {
    matches!(fs::symlink_metadata(file), Err(e) if e.kind() == io::ErrorKind::NotFound)
}

/// Whether a file may be made there.
fn writable_folder(file: &Path) -> Result<(), String> {
    match file.parent() {
        Some(folder) if folder != Path::new("") => may_write(folder),
        _ => may_write(Path::new(".")),
    }
}

fn may_write(folder: &Path) -> Result<(), String> {
    let shown = folder.display();
    match fs::metadata(folder) {
        Err(e) => return Err(format!("the folder {shown}: {e}")),
        Ok(metadata) if !metadata.is_dir() => return Err(format!("{shown} is no folder")),
        Ok(_) => {}
    }
    access(folder, Access::WRITE_OK | Access::EXEC_OK)
        .map_err(|e| format!("may not write to the folder {shown}: {e}"))
}
