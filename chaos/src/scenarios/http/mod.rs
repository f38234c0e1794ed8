//! Requests that mean one thing to one reader and another to the next: sent as
//! raw bytes, judged by what the service saw.

mod cases;
mod frames;
mod h2spec;
mod judge;
mod smuggling;
mod smuggling_h2;
mod spoofing;
mod witness;

use self::judge::each_way;
use crate::scenario::Scenario;

/// This part of the table.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "smuggling-http1",
        fault: "ambiguous HTTP/1 requests as raw bytes: two lengths, odd chunking, bare CR and LF, folds, two hosts, absolute form, early CONNECT data, bytes after Upgrade; each in one piece and in many",
        promise: "the service sees at most one request of each, with one length, the routed host and no reserved header",
        quick: true,
        run: |context| Box::pin(each_way(move |sending| smuggling::table(context, sending))),
    },
    Scenario {
        name: "smuggling-http2",
        fault: "HTTP/2 requests that would be two in HTTP/1: line ends in values, names and paths, wrong lengths, hop-by-hop fields, two authorities; each in one piece and in many",
        promise: "the service sees at most one request of each, with one length, the routed host and no reserved header",
        quick: true,
        run: |context| {
            Box::pin(each_way(move |sending| {
                smuggling_h2::table(context, sending)
            }))
        },
    },
    Scenario {
        name: "header-spoofing",
        fault: "every reserved field in odd spellings, by HTTP/1, HTTP/2 and in trailers, naming another target",
        promise: "none reaches the service, none chooses a target",
        quick: true,
        run: |context| Box::pin(spoofing::run(context)),
    },
    Scenario {
        name: "h2spec",
        fault: "h2spec against Envoy with the module in the path and the same Envoy without it",
        promise: "with the module nothing fails that passes without it",
        quick: false,
        run: |context| Box::pin(h2spec::run(context)),
    },
];
