//! May this Connector write that name? Pure.
//!
//! Two Connectors with one key want the same name. The claim beside the
//! records says whose they are; every update names the claim that it was
//! decided on as its prerequisite, so that the server refuses an update
//! decided on old news.

use std::{collections::BTreeSet, str::FromStr};

use super::records::RecordSet;

/// Who claims a name: written beside the records, so that two connectors with
/// one key do not overwrite each other in turns.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Claim {
    /// The Connector's UID.
    pub uid: String,
    /// Which cluster the Connector is in: the UID of its `kube-system`
    /// namespace. Only there can it be known whether the Connector still is.
    pub cluster: String,
    /// The Connector's namespace.
    pub namespace: String,
    /// The Connector's name.
    pub connector: String,
}

/// A text that is no claim of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a claim of this program")]
pub struct NotAClaim;

impl Claim {
    /// The strings of the claim's one TXT record, in order.
    pub fn strings(&self) -> Vec<String> {
        // A name has up to 253 characters, a string up to 255.
        vec![
            format!("v=adit1 uid={}", self.uid),
            format!(" cluster={}", self.cluster),
            format!(" ns={}", self.namespace),
            " n=".into(),
            self.connector.clone(),
        ]
    }
}

impl FromStr for Claim {
    type Err = NotAClaim;

    /// Reads the joined strings.
    fn from_str(text: &str) -> Result<Self, NotAClaim> {
        let mut words = text.split(' ');
        let mut next = |key: &str| {
            let word = words.next().and_then(|w| w.strip_prefix(key));
            let word = word.filter(|w| {
                !w.is_empty()
                    && w.len() <= 253
                    && w.bytes()
                        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'))
            });
            word.map(str::to_owned).ok_or(NotAClaim)
        };
        if next("v=")? != "adit1" {
            return Err(NotAClaim);
        }
        let claim = Self {
            uid: next("uid=")?,
            cluster: next("cluster=")?,
            namespace: next("ns=")?,
            connector: next("n=")?,
        };
        words.next().is_none().then_some(claim).ok_or(NotAClaim)
    }
}

/// What the server has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// The claim's records, each as its strings.
    pub claim: Vec<Vec<Vec<u8>>>,
    /// The connector's records.
    pub texts: BTreeSet<Vec<u8>>,
    /// Their time to live.
    pub ttl: u32,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It is as it should be.
    Nothing,
    /// Nobody has the name: claim it and write.
    Create,
    /// It is ours and differs: write.
    Replace,
    /// It is ours and not wanted: take it away.
    Remove,
    /// Another Connector of this cluster has it: take it over if that is gone.
    AskAbout(Claim),
    /// Somebody has it whom we can not ask about.
    Leave(Owner),
}

/// Who has a name that is not ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// A Connector of this cluster.
    Connector(Claim),
    /// A Connector of another cluster.
    Elsewhere(Claim),
    /// Records that carry no claim, or one that cannot be read.
    Unknown,
}

/// Decides for one Connector. `wanted`: its records, if it has any.
pub fn decide(found: &Found, me: &Claim, wanted: Option<&RecordSet>) -> Decision {
    let claim = match found.claim.as_slice() {
        [] if found.texts.is_empty() => {
            return wanted.map_or(Decision::Nothing, |_| Decision::Create);
        }
        [] => None,
        [one] => read(one),
        _ => None,
    };
    match claim {
        Some(claim) if claim.uid == me.uid && claim.cluster == me.cluster => match wanted {
            None => Decision::Remove,
            Some(wanted) if equal(found, wanted) => Decision::Nothing,
            Some(_) => Decision::Replace,
        },
        _ if wanted.is_none() => Decision::Nothing,
        Some(claim) if claim.cluster == me.cluster => Decision::AskAbout(claim),
        Some(claim) => Decision::Leave(Owner::Elsewhere(claim)),
        None => Decision::Leave(Owner::Unknown),
    }
}

/// Reads the strings of one record.
pub fn read(strings: &[Vec<u8>]) -> Option<Claim> {
    std::str::from_utf8(&strings.concat()).ok()?.parse().ok()
}

fn equal(found: &Found, wanted: &RecordSet) -> bool {
    found.ttl == wanted.ttl
        && found.texts.len() == wanted.texts.len()
        && wanted
            .texts
            .iter()
            .all(|t| found.texts.contains(t.as_bytes()))
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Connector(c) => write!(f, "Connector {}/{}", c.namespace, c.connector),
            Self::Elsewhere(c) => write!(
                f,
                "Connector {}/{} of another cluster ({})",
                c.namespace, c.connector, c.cluster
            ),
            Self::Unknown => f.write_str("somebody who left no claim beside the records"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(uid: &str, cluster: &str) -> Claim {
        Claim {
            uid: uid.into(),
            cluster: cluster.into(),
            namespace: "shop".into(),
            connector: "till".into(),
        }
    }

    fn found(claims: &[Claim], texts: &[&str]) -> Found {
        let strings = |c: &Claim| c.strings().into_iter().map(String::into_bytes).collect();
        Found {
            claim: claims.iter().map(strings).collect(),
            texts: texts.iter().map(|t| t.as_bytes().to_vec()).collect(),
            ttl: 5,
        }
    }

    fn wanted(texts: &[&str]) -> RecordSet {
        RecordSet {
            name: "_iroh.x.example".into(),
            ttl: 5,
            texts: texts.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn a_free_name_is_claimed_and_what_is_right_is_left() {
        let (me, want) = (claim("a", "c"), wanted(&["addr=192.0.2.1:7"]));
        let decide = |found: &Found| decide(found, &me, Some(&want));
        assert_eq!(decide(&Found::default()), Decision::Create);
        let mine = [me.clone()];
        assert_eq!(
            decide(&found(&mine, &["addr=192.0.2.1:7"])),
            Decision::Nothing
        );
        assert_eq!(
            decide(&found(&mine, &["addr=192.0.2.2:7"])),
            Decision::Replace
        );
        assert_eq!(decide(&found(&mine, &[])), Decision::Replace);
        let mut slow = found(&mine, &["addr=192.0.2.1:7"]);
        slow.ttl = 30;
        assert_eq!(decide(&slow), Decision::Replace);
    }

    #[test]
    fn a_name_of_somebody_else_is_never_written() {
        let (me, want) = (claim("a", "c"), wanted(&["addr=192.0.2.1:7"]));
        let decide = |found: &Found| decide(found, &me, Some(&want));
        let other = claim("b", "c");
        assert_eq!(
            decide(&found(std::slice::from_ref(&other), &[])),
            Decision::AskAbout(other.clone())
        );
        let far = claim("a", "d");
        assert_eq!(
            decide(&found(std::slice::from_ref(&far), &[])),
            Decision::Leave(Owner::Elsewhere(far))
        );
        let unknown = Decision::Leave(Owner::Unknown);
        assert_eq!(decide(&found(&[], &["addr=192.0.2.1:7"])), unknown);
        assert_eq!(decide(&found(&[me.clone(), other], &[])), unknown);
        let mut odd = found(std::slice::from_ref(&me), &[]);
        odd.claim[0] = vec![b"hello".to_vec()];
        assert_eq!(decide(&odd), unknown);
    }

    #[test]
    fn only_what_is_ours_is_taken_away() {
        let me = claim("a", "c");
        let decide = |found: &Found| decide(found, &me, None);
        assert_eq!(
            decide(&found(std::slice::from_ref(&me), &["x"])),
            Decision::Remove
        );
        assert_eq!(decide(&Found::default()), Decision::Nothing);
        assert_eq!(
            decide(&found(&[claim("b", "c")], &["x"])),
            Decision::Nothing
        );
        assert_eq!(
            decide(&found(&[claim("a", "d")], &["x"])),
            Decision::Nothing
        );
        assert_eq!(decide(&found(&[], &["x"])), Decision::Nothing);
    }

    #[test]
    fn a_claim_reads_back_and_each_string_fits() {
        let claim = Claim {
            uid: "8a4f3a5e-0000-4000-8000-000000000001".into(),
            cluster: "8a4f3a5e-0000-4000-8000-000000000002".into(),
            namespace: "n".repeat(63),
            connector: "c".repeat(253),
        };
        let strings = claim.strings();
        assert!(strings.iter().all(|s| s.len() <= 255));
        assert_eq!(strings.concat().parse(), Ok(claim));
        for text in [
            "",
            "v=adit1 uid=a",
            "v=adit2 uid=a cluster=b ns=c n=d",
            "heritage=external-dns",
        ] {
            assert_eq!(text.parse::<Claim>(), Err(NotAClaim), "{text}");
        }
        let more = format!("{} x=y", strings.concat());
        assert_eq!(more.parse::<Claim>(), Err(NotAClaim));
    }
}
