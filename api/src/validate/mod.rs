//! Rules that concern one object alone; what concerns several is `compile`'s.
//!
//! Everything that Envoy would refuse is refused here, because Envoy refuses a
//! whole configuration for one bad value in it: one user's typing error would
//! freeze everyone's routes.

mod connector;
mod http_proxy;
mod route;
mod text;

use crate::{Problem, Reason};

pub use connector::{advertised_address, connection_details};
pub use connector::{advertisement, class, connector};
pub use http_proxy::http_proxy;

/// Who may write the objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The operator of the gateway, in a directory of its own.
    Standalone,
    /// Users who share a gateway: a backend without a connector must not be
    /// the gateway's own loopback or link-local network.
    Shared,
}

/// Collects problems below one path.
pub(crate) struct Checker<'a> {
    path: String,
    problems: &'a mut Vec<Problem>,
}

impl<'a> Checker<'a> {
    fn new(path: &str, problems: &'a mut Vec<Problem>) -> Self {
        Self {
            path: path.into(),
            problems,
        }
    }

    fn field(&mut self, name: &str) -> Checker<'_> {
        let path = if self.path.is_empty() {
            name.into()
        } else {
            format!("{}.{name}", self.path)
        };
        Checker {
            path,
            problems: self.problems,
        }
    }

    fn item(&mut self, name: &str, index: usize) -> Checker<'_> {
        self.field(&format!("{name}[{index}]"))
    }

    fn error(&mut self, reason: Reason, message: impl Into<String>) {
        self.problems
            .push(Problem::error(self.path.clone(), reason, message));
    }

    fn invalid(&mut self, message: impl Into<String>) {
        self.error(Reason::Invalid, message);
    }

    fn check(&mut self, outcome: Result<(), String>) {
        if let Err(message) = outcome {
            self.invalid(message);
        }
    }

    fn at_most(&mut self, name: &str, len: usize, max: usize) {
        if len > max {
            self.field(name)
                .invalid(format!("{len} entries; at most {max} are allowed"));
        }
    }
}
