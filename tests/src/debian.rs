//! Programs that are installed, or that xtask has unpacked from Debian's packages.

use std::path::PathBuf;

use crate::places;

/// The root of the files of one group of packages, if they are there.
pub fn unpacked(group: &str) -> Option<PathBuf> {
    let root = places::base().ok()?.join(group).join("debian");
    root.is_dir().then_some(root)
}

/// A program where it is installed, else from a group of packages.
pub fn find(program: &str, group: &str) -> Option<PathBuf> {
    let unpacked = || Some(unpacked(group)?.join("usr/bin").join(program));
    let unpacked = || unpacked().filter(|file| file.is_file());
    places::on_path(program).next().or_else(unpacked)
}
