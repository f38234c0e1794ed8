//! The DNS messages of a claim and its records: RFC 2136. Pure.

use hickory_proto::{
    op::{Edns, Message, OpCode, Query},
    rr::{DNSClass, Name, RData, Record, RecordType, rdata::TXT},
};

/// What fits in a UDP datagram on every path (DNS flag day 2020).
pub(super) const MAX_UDP: usize = 1232;

/// What must hold for an update to be carried out (RFC 2136 section 2.4).
#[derive(Debug, Clone)]
pub(super) enum Condition {
    /// The name has exactly these TXT records, each as its strings.
    Exactly(Name, Vec<Vec<Vec<u8>>>),
    /// The name has no TXT record.
    Absent(Name),
}

/// What an update does (RFC 2136 section 2.5), all of it or nothing.
#[derive(Debug, Clone)]
pub(super) enum Change {
    /// All TXT records of the name go.
    Clear(Name),
    /// These come: each as its strings.
    Add(Name, u32, Vec<Vec<Vec<u8>>>),
}

/// An update of a zone.
pub(super) fn update(zone: &Name, conditions: &[Condition], changes: &[Change]) -> Message {
    let mut message = question(zone.clone(), RecordType::SOA);
    message.metadata.op_code = OpCode::Update;
    for condition in conditions {
        match condition {
            Condition::Exactly(name, records) => {
                for strings in records {
                    message.add_answer(txt(name, 0, strings));
                }
            }
            Condition::Absent(name) => {
                message.add_answer(empty(name, DNSClass::NONE));
            }
        }
    }
    for change in changes {
        match change {
            Change::Clear(name) => {
                message.add_authority(empty(name, DNSClass::ANY));
            }
            Change::Add(name, ttl, records) => {
                for strings in records {
                    message.add_authority(txt(name, *ttl, strings));
                }
            }
        }
    }
    message
}

/// A question to the zone's own server.
pub(super) fn question(name: Name, record_type: RecordType) -> Message {
    let mut query = Query::new();
    query
        .set_name(name)
        .set_query_class(DNSClass::IN)
        .set_query_type(record_type);
    let mut message = Message::query();
    message.metadata.id = rand::random();
    message.metadata.recursion_desired = false;
    message.add_query(query);
    message
}

/// Says that answers up to [`MAX_UDP`] are welcome.
pub(super) fn with_edns(mut message: Message) -> Message {
    let mut edns = Edns::new();
    edns.set_max_payload(MAX_UDP as u16).set_version(0);
    message.set_edns(edns);
    message
}

/// The strings of a TXT record.
pub(super) fn strings(record: &Record) -> Option<Vec<Vec<u8>>> {
    match &record.data {
        RData::TXT(txt) if record.dns_class == DNSClass::IN => {
            Some(txt.txt_data.iter().map(|s| s.to_vec()).collect())
        }
        _ => None,
    }
}

fn txt(name: &Name, ttl: u32, strings: &[Vec<u8>]) -> Record {
    let strings = strings.iter().map(Vec::as_slice).collect();
    Record::from_rdata(name.clone(), ttl, RData::TXT(TXT::from_bytes(strings)))
}

/// A record without data, for "all of them" and "none of them".
fn empty(name: &Name, class: DNSClass) -> Record {
    let mut record = Record::update0(name.clone(), 0, RecordType::TXT);
    record.dns_class = class;
    record
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_reads_back_as_it_was_meant() {
        let name = Name::from_ascii("_iroh.a.example.").expect("a name");
        let zone = Name::from_ascii("example.").expect("a name");
        let record = vec![b"addr=192.0.2.1:7".to_vec()];
        let message = update(
            &zone,
            &[
                Condition::Absent(name.clone()),
                Condition::Exactly(name.clone(), vec![record.clone()]),
            ],
            &[
                Change::Clear(name.clone()),
                Change::Add(name.clone(), 5, vec![record.clone()]),
            ],
        );
        let bytes = message.to_vec().expect("encodes");
        let read = Message::from_vec(&bytes).expect("reads");
        assert_eq!(read.metadata.op_code, OpCode::Update);
        assert_eq!(read.queries[0].query_type(), RecordType::SOA);
        let classes = |records: &[Record]| -> Vec<_> {
            records
                .iter()
                .map(|r| (r.dns_class, r.ttl, r.record_type()))
                .collect()
        };
        assert_eq!(
            classes(&read.answers),
            [
                (DNSClass::NONE, 0, RecordType::TXT),
                (DNSClass::IN, 0, RecordType::TXT)
            ]
        );
        assert_eq!(
            classes(&read.authorities),
            [
                (DNSClass::ANY, 0, RecordType::TXT),
                (DNSClass::IN, 5, RecordType::TXT)
            ]
        );
        assert_eq!(strings(&read.authorities[1]), Some(record));
        assert_eq!(strings(&read.authorities[0]), None);
    }
}
