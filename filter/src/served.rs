//! Which connector answered, for access logs and traces.
//!
//! The dialer says it when a connection is made, to the transport socket; the
//! HTTP filter sees requests, and Envoy has no callback from one to the other.
//! But Envoy hands an answer's headers to the filter within the `do_read` that
//! read them, or a tunnel's 200 within the event "connected", on the same
//! thread. So the socket notes here whom it belongs to before either.
//!
//! A filter between the router and ours could hold headers back and let them go
//! later, when the note is another connection's. So the note counts only for a
//! target that names its connector; what may be wrong then is the path alone.

use std::cell::Cell;

use adit_wire::{Connected, EndpointId, Path};

thread_local! {
    static LAST: Cell<Option<By>> = const { Cell::new(None) };
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct By {
    /// The connector.
    pub connector: EndpointId,
    /// How it was reached when the connection was made.
    pub path: Path,
}

impl From<&Connected> for By {
    fn from(connected: &Connected) -> Self {
        Self {
            connector: connected.connector,
            path: connected.path,
        }
    }
}

/// Notes who is at the end of the connection served now.
pub fn note(by: Option<By>) {
    LAST.set(by);
}

/// Who answers now, as text, if `nodes` (EndpointIds with commas between) names
/// it.
pub fn by(nodes: &str) -> Option<(&str, Path)> {
    let last = LAST.get()?;
    let is_it = |node: &&str| node.parse() == Ok(last.connector);
    let node = nodes.split(',').map(str::trim).find(is_it)?;
    Some((node, last.path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_note_counts_only_for_a_target_that_names_the_connector() {
        let [one, two] = [1, 2].map(|byte| EndpointId::from_bytes([byte; 32]));
        assert_eq!(by(&one.to_string()), None);
        note(Some(By {
            connector: two,
            path: Path::Relay,
        }));
        assert_eq!(by(&one.to_string()), None);
        let both = format!("{one}, {two}");
        assert_eq!(by(&both), Some((two.to_string().as_str(), Path::Relay)));
        note(None);
        assert_eq!(by(&both), None);
    }
}
