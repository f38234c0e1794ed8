//! The DNS servers that signed updates are tested on: Knot and BIND.

use crate::debian::{Packages, Programs};

/// With the libraries that a small system lacks.
pub const PROGRAMS: Programs = Programs {
    names: &["knotd", "named"],
    packages: Packages {
        folder: "dns",
        names: &[
            "knot",
            "libknot13",
            "libdnssec9",
            "libzscanner4",
            "liburcu8",
            "liblmdb0",
            "libxdp1",
            "libbpf1",
            "bind9",
            "bind9-libs",
            "libjemalloc2",
            "libmaxminddb0",
            "libfstrm0",
            "libprotobuf-c1",
        ],
    },
};
