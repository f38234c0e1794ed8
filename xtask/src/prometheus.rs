//! Prometheus and promtool, on which dashboard and alerts are tested.

use crate::debian::{Packages, Programs};

/// What else the package depends on is for its web pages.
pub const PROGRAMS: Programs = Programs {
    names: &["prometheus", "promtool"],
    packages: Packages {
        folder: "prometheus",
        names: &["prometheus"],
    },
};
