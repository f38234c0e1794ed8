//! The limit of open files, raised as far as the process may raise it.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit to the hard one and returns what is allowed now;
/// `None` is no limit. 1024, the usual soft limit, is for programs that use
/// select(2): a tunnel takes one descriptor here and two in Envoy.
pub fn raise() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    }
}
