//! All scenarios, by what is broken.

mod changes;
mod clients;
mod clock;
mod disk;
mod drain;
mod http;
mod idle;
mod machine;
mod network;
mod processes;
mod relays;
mod rolling;
mod scale;
mod targets;

use crate::scenario::Scenario;

/// The parts of the table, in order.
pub const PARTS: &[(&str, &[Scenario])] = &[
    ("Processes", processes::SCENARIOS),
    ("Upgrades", rolling::SCENARIOS),
    ("Drain", drain::SCENARIOS),
    ("Changes", changes::SCENARIOS),
    ("Services", idle::SCENARIOS),
    ("The machine", machine::SCENARIOS),
    ("The disk", disk::SCENARIOS),
    ("The clock", clock::SCENARIOS),
    ("Scale", scale::SCENARIOS),
    ("The network", network::SCENARIOS),
    ("Relays", relays::SCENARIOS),
    ("Slow clients and services", clients::SCENARIOS),
    ("Hostile requests", http::SCENARIOS),
    ("Targets that nobody should reach", targets::SCENARIOS),
];

/// Every scenario.
pub fn all() -> impl Iterator<Item = &'static Scenario> {
    PARTS.iter().flat_map(|(_, part)| part.iter())
}
