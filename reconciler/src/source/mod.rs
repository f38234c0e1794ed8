//! Where objects come from: a directory of manifests. (Kubernetes comes as a
//! second source beside it.)

pub mod dir;
mod manifest;
mod node;
mod strict;
mod walk;
mod watch;

pub use dir::{Directory, Scan};
pub use watch::{Watch, WatchError};
