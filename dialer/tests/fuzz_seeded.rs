//! The fuzz body of what DNS answers, on the corpus and on mutations of answers
//! as they are published: see `fuzz/seeded.rs`.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

use hickory_resolver::proto::{
    op::{Message, MessageType, OpCode, Query, ResponseCode},
    rr::{Name, RData, Record, RecordType, rdata::TXT},
};

#[path = "../../fuzz/bodies/txt.rs"]
mod bodies;
#[path = "../../fuzz/seeded.rs"]
mod seeded;

/// One answer with a record for each text.
fn answer(texts: &[&str]) -> Vec<u8> {
    let name = Name::from_ascii(format!("_iroh.{}.example.", "y".repeat(52))).unwrap();
    let mut message = Message::new(7, MessageType::Response, OpCode::Query);
    message.metadata.response_code = ResponseCode::NoError;
    message.add_query(Query::query(name.clone(), RecordType::TXT));
    for text in texts {
        let data = TXT::new(vec![(*text).into()]);
        message.add_answer(Record::from_rdata(name.clone(), 5, RData::TXT(data)));
    }
    message.to_vec().unwrap()
}

#[test]
fn text_records_keep_their_promises() {
    let texts = [
        "relay=https://relay.example/",
        "addr=192.0.2.1:7",
        "addr=[2001:db8::1]:4433",
    ];
    let many: Vec<_> = (0..70).map(|i| format!("addr=192.0.2.1:{i}")).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    let messages = vec![
        answer(&texts),
        answer(&many),
        answer(&[]),
        texts.join("\n").into_bytes(),
        many.join("\n").into_bytes(),
        b"relay=http://[::1]:80/?a=b=c\nuser-data=x\nver=1\n=\n".to_vec(),
    ];
    seeded::Fuzz::wire("txt", 0xad17_0007, messages).run(bodies::txt);
}
