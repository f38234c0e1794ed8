//! Where programs of others may be: in the folders of `PATH`, or in the cache
//! under the home directory. Only the standard library: xtask and the end-to-end
//! tests compile this same file.

use std::{
    env,
    path::{Path, PathBuf},
};

/// The folder of everything that is kept from one checkout to the next.
pub fn base() -> Result<PathBuf, String> {
    let cache = match env::var_os("XDG_CACHE_HOME").filter(|v| Path::new(v).is_absolute()) {
        Some(cache) => PathBuf::from(cache),
        None => PathBuf::from(
            env::var_os("HOME").ok_or("neither XDG_CACHE_HOME nor HOME is set: set one")?,
        )
        .join(".cache"),
    };
    Ok(cache.join("adit"))
}

/// The files of this name in the folders of `PATH`, first to last.
pub fn on_path(name: &str) -> impl Iterator<Item = PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let files = env::split_paths(&path).map(|dir| dir.join(name));
    files
        .filter(|file| file.is_file())
        .collect::<Vec<_>>()
        .into_iter()
}
