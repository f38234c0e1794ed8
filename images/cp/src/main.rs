//! `/bin/cp SOURCE DESTINATION` of the image `adit-envoy-module`, for an init
//! container that brings `libadit.so` into a volume of Envoy's pod.
//!
//! The image holds the module and this program, no shell and no C library.
//! Unlike a common `cp`, it never leaves half a file under the final name: an
//! Envoy that starts meanwhile loads the old module, the new one, or none.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::{self, ExitCode},
};

fn main() -> ExitCode {
    let mut args = env::args_os().skip(1).map(PathBuf::from);
    let (Some(source), Some(destination), None) = (args.next(), args.next(), args.next()) else {
        eprintln!("usage: cp SOURCE DESTINATION (one file, to a file or into a directory)");
        return ExitCode::from(2);
    };
    match copy(&source, &destination) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!(
                "cp: {} to {}: {error}",
                source.display(),
                destination.display()
            );
            ExitCode::FAILURE
        }
    }
}

/// Copies a file and its mode, to a file's name or into a directory.
fn copy(source: &Path, destination: &Path) -> io::Result<()> {
    let name = source
        .file_name()
        .ok_or_else(|| io::Error::other("the source is no file's name"))?;
    let target = match destination.is_dir() {
        true => destination.join(name),
        false => destination.to_owned(),
    };
    let mut temp = target.clone().into_os_string();
    temp.push(format!(".{}", process::id()));
    let temp = PathBuf::from(temp);
    let done = fs::copy(source, &temp)
        .and_then(|_| fs::File::open(&temp)?.sync_all())
        .and_then(|()| fs::rename(&temp, &target));
    if done.is_err() {
        // What was begun is of no use; why it failed is what is reported.
        let _ = fs::remove_file(&temp);
    }
    done
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// A directory of this test's own, removed at its end.
    struct Temp(PathBuf);

    impl Temp {
        fn new(name: &str) -> Self {
            let dir = env::temp_dir().join(format!("adit-cp-{name}-{}", process::id()));
            fs::create_dir_all(&dir).expect("a directory");
            Self(dir)
        }
    }

    impl Drop for Temp {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_file_replaces_the_old_one_with_its_mode_and_leaves_nothing_else() {
        let temp = Temp::new("replace");
        let (source, target) = (temp.0.join("libadit.so"), temp.0.join("module"));
        fs::write(&source, "new").expect("write");
        fs::set_permissions(&source, fs::Permissions::from_mode(0o555)).expect("mode");
        fs::create_dir(&target).expect("a directory");
        fs::write(target.join("libadit.so"), "old").expect("write");
        copy(&source, &target).expect("copied into the directory");
        let copied = target.join("libadit.so");
        assert_eq!(fs::read_to_string(&copied).expect("read"), "new");
        let mode = fs::metadata(&copied)
            .expect("metadata")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o555);
        assert_eq!(fs::read_dir(&target).expect("list").count(), 1);
    }

    #[test]
    fn what_cannot_be_copied_leaves_nothing_behind() {
        let temp = Temp::new("fail");
        let missing = copy(&temp.0.join("none"), &temp.0.join("libadit.so"));
        assert_eq!(missing.map_err(|e| e.kind()), Err(io::ErrorKind::NotFound));
        assert!(copy(Path::new("/"), &temp.0).is_err());
        assert_eq!(fs::read_dir(&temp.0).expect("list").count(), 0);
    }
}
