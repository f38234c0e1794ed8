//! Discovery records: what a connector says about where it is, in DNS.

pub mod records;
