//! A DNS server that takes signed updates: RFC 2136 with TSIG (RFC 8945).
//!
//! A lost answer does no harm, because every update carries the state that it
//! was decided on as its prerequisite and is decided anew when that no longer
//! holds.

use std::{collections::BTreeMap, io, net::SocketAddr, time::Duration};

use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{Name, RecordType},
};
use tokio::time::timeout;

use super::{
    claim::{Claim, Found},
    key::Key,
    message::{self, Change, Condition},
    records::RecordSet,
};

/// For a whole zone.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(60);
/// Records of a zone that are looked at: 20 for each of 10,000 connectors.
const MAX_TRANSFER: usize = 200_000;
/// Claims are read by this program only, and from the server itself.
const CLAIM_TTL: u32 = 60;

/// A zone's primary server and the key that it takes updates with.
#[derive(Debug, Clone)]
pub struct Server {
    pub(super) addr: SocketAddr,
    zone: Name,
    pub(super) key: Key,
}

/// Why a server did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The names do not fit together.
    #[error("{0:?} is not a name in the DNS zone {1}")]
    Name(String, String),
    /// Nothing came back.
    #[error(
        "DNS server {server}: {source}; is it up, and is port {} open by UDP and TCP?",
        server.port()
    )]
    Unreachable {
        /// The server.
        server: SocketAddr,
        /// The cause.
        source: io::Error,
    },
    /// What came back is not signed by our key.
    #[error("DNS server {server} gave no answer with a valid signature: {reason}")]
    Unverified {
        /// The server.
        server: SocketAddr,
        /// What is wrong.
        reason: String,
    },
    /// It does not want to.
    #[error("DNS server {server} refused {what}: {code}; {hint}")]
    Refused {
        /// The server.
        server: SocketAddr,
        /// What was asked.
        what: String,
        /// Its answer.
        code: String,
        /// What to do.
        hint: &'static str,
    },
    /// The state that an update was decided on is no longer so.
    #[error("DNS server {0}: the records changed meanwhile")]
    Changed(SocketAddr),
}

impl Server {
    /// A server at `addr` for `zone`. Nothing is sent.
    ///
    /// # Errors
    /// When the zone is not a name.
    pub fn new(addr: SocketAddr, zone: &str, key: Key) -> Result<Self, ServerError> {
        let zone_name = absolute(zone).ok_or_else(|| ServerError::Name(zone.into(), ".".into()))?;
        Ok(Self {
            addr,
            zone: zone_name,
            key,
        })
    }

    /// Where it is.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What the server has at a connector's name and claim.
    ///
    /// # Errors
    /// When the server does not answer, or not with what it is asked.
    pub async fn find(&self, name: &str, claim_name: &str) -> Result<Found, ServerError> {
        let claim = self.texts(claim_name).await?;
        let records = self.texts(name).await?;
        Ok(Found {
            claim: claim.into_iter().map(|(_, strings)| strings).collect(),
            ttl: records.first().map_or(0, |(ttl, _)| *ttl),
            texts: records.into_iter().map(|(_, s)| s.concat()).collect(),
        })
    }

    /// Claims a free name and writes its records.
    ///
    /// # Errors
    /// [`ServerError::Changed`] when it is no longer free, or what the server says.
    pub async fn create(
        &self,
        claim_name: &str,
        claim: &Claim,
        records: &RecordSet,
    ) -> Result<(), ServerError> {
        let (name, claim_name) = (self.name(&records.name)?, self.name(claim_name)?);
        let conditions = [
            Condition::Absent(claim_name.clone()),
            Condition::Absent(name.clone()),
        ];
        let changes = [
            Change::Add(claim_name, CLAIM_TTL, vec![bytes(claim)]),
            add(name, records),
        ];
        self.update(&records.name, &conditions, &changes).await
    }

    /// Replaces a name's records, all at once, while the claim is still as it
    /// was `found`; and the claim too, when it is not this one.
    ///
    /// # Errors
    /// [`ServerError::Changed`] when the claim is another, or what the server says.
    pub async fn replace(
        &self,
        claim_name: &str,
        found: &Found,
        claim: &Claim,
        records: &RecordSet,
    ) -> Result<(), ServerError> {
        let (name, claim_name) = (self.name(&records.name)?, self.name(claim_name)?);
        let conditions = [Condition::Exactly(claim_name.clone(), found.claim.clone())];
        let mut changes = Vec::new();
        let mine = bytes(claim);
        if found.claim != [mine.clone()] {
            changes.push(Change::Clear(claim_name.clone()));
            changes.push(Change::Add(claim_name, CLAIM_TTL, vec![mine]));
        }
        changes.push(Change::Clear(name.clone()));
        changes.push(add(name, records));
        self.update(&records.name, &conditions, &changes).await
    }

    /// Removes a name's records and their claim while the claim is still as
    /// it was `found`.
    ///
    /// # Errors
    /// [`ServerError::Changed`] when the claim is another, or what the server says.
    pub async fn remove(
        &self,
        name: &str,
        claim_name: &str,
        found: &Found,
    ) -> Result<(), ServerError> {
        let (owner, claim_name) = (self.name(name)?, self.name(claim_name)?);
        let conditions = [Condition::Exactly(claim_name.clone(), found.claim.clone())];
        let changes = [Change::Clear(owner), Change::Clear(claim_name)];
        self.update(name, &conditions, &changes).await
    }

    /// Every claim of the zone, by its name, from a transfer of the whole
    /// zone: nothing else lists names.
    ///
    /// # Errors
    /// When the server does not transfer the zone to this key.
    pub async fn claims(&self) -> Result<BTreeMap<String, Claim>, ServerError> {
        let transfer = timeout(TRANSFER_TIMEOUT, self.transfer());
        let mut claims = BTreeMap::new();
        let records = match transfer.await {
            Ok(records) => records?,
            Err(_) => return Err(self.silent("the zone's transfer did not end in time")),
        };
        for (name, strings) in records {
            if let Some(claim) = super::claim::read(&strings) {
                claims.insert(name, claim);
            }
        }
        Ok(claims)
    }

    async fn transfer(&self) -> Result<Vec<(String, Vec<Vec<u8>>)>, ServerError> {
        let what = format!("the transfer of zone {}", self.zone);
        let (request, mut verifier, id) =
            self.sign(message::question(self.zone.clone(), RecordType::AXFR))?;
        let mut stream = self.connect().await?;
        self.send(&mut stream, &request).await?;
        let (mut found, mut seen, mut ends) = (Vec::new(), 0, 0);
        // The zone's SOA record stands first and last (RFC 5936 section 2.2).
        while ends < 2 {
            let answer = self.receive(&mut stream).await?;
            let answer = self.verify(&mut verifier, id, &answer)?;
            self.check(&what, &answer)?;
            if answer.answers.is_empty() {
                return Err(self.refused(&what, "an empty answer"));
            }
            for record in &answer.answers {
                seen += 1;
                if record.record_type() == RecordType::SOA {
                    ends += 1;
                }
                if let Some(strings) = message::strings(record) {
                    let name = record.name.to_ascii().to_ascii_lowercase();
                    found.push((name.trim_end_matches('.').to_owned(), strings));
                }
            }
            if seen > MAX_TRANSFER {
                return Err(self.refused(&what, "more records than this program reads"));
            }
        }
        Ok(found)
    }

    /// The TXT records of a name, each with its time to live.
    async fn texts(&self, name: &str) -> Result<Vec<(u32, Vec<Vec<u8>>)>, ServerError> {
        let what = format!("the question for {name}");
        let owner = self.name(name)?;
        let question = message::question(owner.clone(), RecordType::TXT);
        let answer = self.exchange(message::with_edns(question)).await?;
        if answer.metadata.response_code == ResponseCode::NXDomain {
            return Ok(Vec::new());
        }
        self.check(&what, &answer)?;
        if !answer.metadata.authoritative {
            return Err(self.refused(&what, "not authoritative"));
        }
        let of_owner = answer.answers.iter().filter(|r| r.name == owner);
        Ok(of_owner
            .filter_map(|r| Some((r.ttl, message::strings(r)?)))
            .collect())
    }

    async fn update(
        &self,
        name: &str,
        conditions: &[Condition],
        changes: &[Change],
    ) -> Result<(), ServerError> {
        let what = format!("the update of {name}");
        let message = message::update(&self.zone, conditions, changes);
        let answer = self.exchange(message).await?;
        match answer.metadata.response_code {
            // The prerequisites' codes (RFC 2136 section 3.2).
            ResponseCode::YXDomain
            | ResponseCode::YXRRSet
            | ResponseCode::NXRRSet
            | ResponseCode::NXDomain => Err(ServerError::Changed(self.addr)),
            _ => self.check(&what, &answer),
        }
    }

    fn check(&self, what: &str, answer: &Message) -> Result<(), ServerError> {
        match answer.metadata.response_code {
            ResponseCode::NoError => Ok(()),
            code => Err(self.refused(what, &code.to_string())),
        }
    }

    pub(super) fn refused(&self, what: &str, code: &str) -> ServerError {
        ServerError::Refused {
            server: self.addr,
            what: what.into(),
            code: code.into(),
            hint: "is it the zone's primary, and may this key update and transfer the zone?",
        }
    }

    pub(super) fn silent(&self, reason: &str) -> ServerError {
        self.unreachable(io::Error::new(io::ErrorKind::TimedOut, reason))
    }

    pub(super) fn unreachable(&self, source: io::Error) -> ServerError {
        ServerError::Unreachable {
            server: self.addr,
            source,
        }
    }

    fn name(&self, name: &str) -> Result<Name, ServerError> {
        absolute(name)
            .filter(|n| self.zone.zone_of(n))
            .ok_or_else(|| ServerError::Name(name.into(), self.zone.to_string()))
    }
}

impl ServerError {
    /// The reason of the condition DNSPublished.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "Unreachable",
            Self::Name(..) | Self::Unverified { .. } | Self::Refused { .. } => "ServerRefused",
            Self::Changed(_) => "Pending",
        }
    }
}

fn absolute(name: &str) -> Option<Name> {
    let mut name = Name::from_ascii(name).ok().filter(|_| !name.is_empty())?;
    name.set_fqdn(true);
    Some(name.to_lowercase())
}

fn bytes(claim: &Claim) -> Vec<Vec<u8>> {
    let strings = claim.strings();
    strings.into_iter().map(String::into_bytes).collect()
}

fn add(name: Name, records: &RecordSet) -> Change {
    let texts = records.texts.iter();
    let texts = texts.map(|t| vec![t.as_bytes().to_vec()]).collect();
    Change::Add(name, records.ttl, texts)
}
