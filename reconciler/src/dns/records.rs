//! The records of one connector, exactly as a dialer reads them.
//!
//! ```text
//! _iroh.<z32 id>[.<suffix>].<origin>. TXT "relay=https://relay.example/"
//! _iroh.<z32 id>[.<suffix>].<origin>. TXT "addr=192.0.2.1:7"
//! ```
//!
//! One attribute in one record: readers parse a record as one address, and
//! drop silently what is not one. Sorted, so that the same addresses are the
//! same records. What a connector says is untrusted: what is not a plain URL
//! or address never becomes a record.

use std::{collections::BTreeSet, fmt, time::Duration};

use adit_api::ConnectorHint;
use adit_wire::EndpointId;

/// The label in front of every name.
const PREFIX: &str = "_iroh";
/// The label of a claim, in front of the name that it claims.
const CLAIM_PREFIX: &str = "_adit-claim";
/// The place of the project in an origin.
const PROJECT: &str = "{project}";
/// A text record's string has at most 255 bytes (RFC 1035 section 3.3.14); a
/// longer URL would need two, which readers may not join.
const MAX_VALUE: usize = 255;
/// As many as a Connector may have.
const MAX_ADDRESSES: usize = 16;
/// RFC 1035 section 2.3.4: 255 octets on the wire are 253 characters.
const MAX_NAME: usize = 253;
/// The time to live of the deployed discovery: with 30 s, an agent that had
/// been restarted was out of reach for 30 s.
pub const DEFAULT_TTL: Duration = Duration::from_secs(5);

/// Below which name, and for how long, records are published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// With the project filled in; lower case, without a final dot.
    origin: String,
    ttl: u32,
}

/// The records of one name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordSet {
    /// Lower case, without a final dot.
    pub name: String,
    /// Seconds.
    pub ttl: u32,
    /// One string for each record, in the order of publication.
    pub texts: Vec<String>,
}

/// Why there is no layout.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// No project for the place of it.
    #[error("the DNS origin {0:?} contains {{project}}: give --dns-project")]
    NoProject(String),
    /// Not a name.
    #[error("the DNS origin {name:?}: {reason}")]
    Name {
        /// The name.
        name: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// More than a time to live can be.
    #[error("a DNS time to live is between 1 s and a day, not {0:?}")]
    Ttl(Duration),
}

impl Layout {
    /// `origin` may contain `{project}`. A suffix, when there is one, is its
    /// first labels.
    ///
    /// # Errors
    /// When no name can be made of it.
    pub fn new(origin: &str, project: Option<&str>, ttl: Duration) -> Result<Self, LayoutError> {
        let filled = match project {
            Some(project) => origin.replace(PROJECT, project),
            None if origin.contains(PROJECT) => {
                return Err(LayoutError::NoProject(origin.into()));
            }
            None => origin.into(),
        };
        let origin = filled.trim_end_matches('.').to_ascii_lowercase();
        check_name(&origin).map_err(|reason| LayoutError::Name {
            name: filled.clone(),
            reason,
        })?;
        let ttl = match u32::try_from(ttl.as_secs()) {
            Ok(seconds @ 1..=86_400) => seconds,
            _ => return Err(LayoutError::Ttl(ttl)),
        };
        Ok(Self { origin, ttl })
    }

    /// The name of a connector's records.
    pub fn name(&self, id: EndpointId) -> String {
        format!("{PREFIX}.{}.{}", id.to_z32(), self.origin)
    }

    /// The name of the claim beside [`Layout::name`].
    pub fn claim_name(&self, id: EndpointId) -> String {
        format!("{CLAIM_PREFIX}.{}", self.name(id))
    }

    /// The connector whose claim has this name.
    pub fn claimed_id(&self, name: &str) -> Option<EndpointId> {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let rest = name.strip_prefix(CLAIM_PREFIX)?.strip_prefix('.')?;
        let rest = rest.strip_prefix(PREFIX)?.strip_prefix('.')?;
        let (z32, origin) = rest.split_once('.')?;
        let id = z32.parse().ok().filter(|_| z32.len() == 52)?;
        (origin == self.origin).then_some(id)
    }

    /// The records of a connector; `None` when it says nothing that can be
    /// published.
    pub fn records(&self, hint: &ConnectorHint) -> Option<RecordSet> {
        let mut texts = Vec::new();
        if let Some(relay) = &hint.relay {
            let text = format!("relay={relay}");
            if is_plain_url(relay) && text.len() <= MAX_VALUE {
                texts.push(text);
            }
        }
        // By address, not by its text.
        let addresses: BTreeSet<_> = hint
            .addresses
            .iter()
            .filter(|a| !a.ip().is_unspecified() && a.port() != 0)
            .take(MAX_ADDRESSES)
            .collect();
        texts.extend(addresses.iter().map(|a| format!("addr={a}")));
        (!texts.is_empty()).then(|| RecordSet {
            name: self.name(hint.endpoint_id),
            ttl: self.ttl,
            texts,
        })
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}.<id>.{}", self.origin)
    }
}

/// Whether a text is a name that needs no escapes in any form.
///
/// # Errors
/// What is wrong with it.
pub fn check_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() {
        return Err("a name is needed");
    }
    // The longest name below it must still be one.
    let below = CLAIM_PREFIX.len() + PREFIX.len() + 52 + 3;
    if name.len() + below > MAX_NAME {
        return Err("too long: the records' names below it would have more than 253 characters");
    }
    for label in name.split('.') {
        if label.is_empty() || label.len() > 63 {
            return Err("a label has 1 to 63 characters");
        }
        if !label
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        {
            return Err("a label has letters, digits, - and _ only");
        }
    }
    Ok(())
}

/// No control character, space, quote or backslash: nothing that a zone file,
/// a DNS interface or external-dns would read as more than one string.
fn is_plain_url(url: &str) -> bool {
    url.bytes()
        .all(|b| b.is_ascii_graphic() && !matches!(b, b'"' | b'\\' | b'\'' | b'`' | b';'))
        && (url.starts_with("https://") || url.starts_with("http://"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> Layout {
        Layout::new("{project}.Example.", Some("shop"), DEFAULT_TTL).expect("valid")
    }

    fn hint(relay: Option<&str>, addresses: &[&str]) -> ConnectorHint {
        ConnectorHint {
            endpoint_id: EndpointId::from_bytes([7; 32]),
            relay: relay.map(Into::into),
            addresses: addresses
                .iter()
                .map(|a| a.parse().expect("valid"))
                .collect(),
        }
    }

    #[test]
    fn each_attribute_is_a_record_and_the_order_is_that_of_the_addresses() {
        let mixed = [
            "[2001:db8::1]:9",
            "198.51.100.2:7",
            "192.0.2.1:80",
            "192.0.2.1:7",
        ];
        let records = layout()
            .records(&hint(Some("https://relay.example/"), &mixed))
            .expect("records");
        let z32 = EndpointId::from_bytes([7; 32]).to_z32();
        assert_eq!(records.name, format!("_iroh.{z32}.shop.example"));
        assert_eq!(records.ttl, 5);
        assert_eq!(
            records.texts,
            [
                "relay=https://relay.example/",
                "addr=192.0.2.1:7",
                "addr=192.0.2.1:80",
                "addr=198.51.100.2:7",
                "addr=[2001:db8::1]:9",
            ]
        );
        let mut turned = mixed;
        turned.reverse();
        let again = layout().records(&hint(Some("https://relay.example/"), &turned));
        assert_eq!(again, Some(records));
    }

    #[test]
    fn nothing_is_published_when_nothing_is_said() {
        assert_eq!(layout().records(&hint(None, &[])), None);
        assert_eq!(
            layout().records(&hint(None, &["0.0.0.0:7", "192.0.2.1:0"])),
            None
        );
    }

    #[test]
    fn a_hostile_relay_never_becomes_a_record() {
        for relay in [
            "https://a.example/\" \"addr=203.0.113.1:1",
            "https://a.example/\naddr=203.0.113.1:1",
            "https://a.example/\\",
            "https://a.example/ b",
            "https://ä.example/",
            "javascript:alert(1)",
            "",
            &format!("https://a.example/{}", "a".repeat(255)),
        ] {
            assert_eq!(layout().records(&hint(Some(relay), &[])), None, "{relay}");
        }
    }

    #[test]
    fn at_most_sixteen_addresses_are_published() {
        let many: Vec<_> = (1..100).map(|p| format!("192.0.2.1:{p}")).collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        let records = layout().records(&hint(None, &many)).expect("records");
        assert_eq!(records.texts.len(), MAX_ADDRESSES);
    }

    #[test]
    fn an_origin_is_a_name_and_a_project_must_be_given() {
        let new = |origin| Layout::new(origin, None, DEFAULT_TTL);
        assert_eq!(
            new("{project}.example"),
            Err(LayoutError::NoProject("{project}.example".into()))
        );
        for origin in ["", "a..b", "a b", "a\"b", "ä.example", &"a.".repeat(110)] {
            assert!(new(origin).is_err(), "{origin}");
        }
        let hostile = Layout::new("{project}.example", Some("a.b\""), DEFAULT_TTL);
        assert!(hostile.is_err());
        assert!(Layout::new("a.example", None, Duration::ZERO).is_err());
    }

    #[test]
    fn a_claims_name_leads_back_to_the_key() {
        let id = EndpointId::from_bytes([9; 32]);
        let name = layout().claim_name(id);
        assert_eq!(layout().claimed_id(&name), Some(id));
        assert_eq!(layout().claimed_id(&format!("{name}.")), Some(id));
        assert_eq!(layout().claimed_id(&layout().name(id)), None);
        let other = Layout::new("other.example", None, DEFAULT_TTL).expect("valid");
        assert_eq!(other.claimed_id(&name), None);
    }
}
