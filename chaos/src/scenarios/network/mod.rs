//! What UDP between dialer and connector suffers: loss, delay, reordering, a path
//! that is blocked, an address that changes.

mod moves;
mod weather;

use crate::scenario::Scenario;

/// This part of the table.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "loss-1",
        fault: "1 % of the datagrams lost each way, round trip 20 ms",
        promise: "requests, a download and an upload whole",
        quick: false,
        run: |context| Box::pin(weather::loss(context, 0.01)),
    },
    Scenario {
        name: "loss-5",
        fault: "5 % of the datagrams lost each way, round trip 20 ms",
        promise: "requests, a download and an upload whole",
        quick: true,
        run: |context| Box::pin(weather::loss(context, 0.05)),
    },
    Scenario {
        name: "loss-20",
        fault: "20 % of the datagrams lost each way, round trip 20 ms",
        promise: "requests, a download and an upload whole",
        quick: false,
        run: |context| Box::pin(weather::loss(context, 0.2)),
    },
    Scenario {
        name: "delay-20",
        fault: "a round trip of 20 ms",
        promise: "requests, a download and an upload whole, a request takes one round trip",
        quick: false,
        run: |context| Box::pin(weather::delay(context, 20)),
    },
    Scenario {
        name: "delay-150",
        fault: "a round trip of 150 ms",
        promise: "requests, a download and an upload whole, a request takes one round trip",
        quick: true,
        run: |context| Box::pin(weather::delay(context, 150)),
    },
    Scenario {
        name: "delay-600",
        fault: "a round trip of 600 ms",
        promise: "requests, a download and an upload whole, a request takes one round trip",
        quick: false,
        run: |context| Box::pin(weather::delay(context, 600)),
    },
    Scenario {
        name: "reordering",
        fault: "each datagram late by 10 to 30 ms on its own, so that they overtake each other",
        promise: "requests, a download and an upload whole",
        quick: true,
        run: |context| Box::pin(weather::reordering(context)),
    },
    Scenario {
        name: "bad-link",
        fault: "5 % lost, a round trip of 150 ms with 30 ms of jitter, dialled anew in it",
        promise: "the first request is answered, requests and a download whole",
        quick: false,
        run: |context| Box::pin(weather::bad_link(context)),
    },
    Scenario {
        name: "direct-path-blocked",
        fault: "the direct path blocked altogether and freed again, a relay beside it, 50 requests/s and an open tunnel",
        promise: "served through the relay, the tunnel goes on or is reset; a later connection is direct again",
        quick: true,
        run: |context| Box::pin(moves::blocked(context)),
    },
    Scenario {
        name: "all-paths-blocked",
        fault: "the only path blocked for longer than the idle timeout and freed again, 50 requests/s",
        promise: "clear answers meanwhile, no request hangs, served again within 10 s of its return",
        quick: false,
        run: |context| Box::pin(moves::cut_off(context)),
    },
    Scenario {
        name: "nat-rebinding",
        fault: "the device sees the dialer at another port in the midst of a download and a tunnel",
        promise: "download and tunnel go on or are reset at once, served again within 5 s",
        quick: true,
        run: |context| Box::pin(moves::rebound(context)),
    },
    Scenario {
        name: "device-moves",
        fault: "a restarted device at another address, its old one silent, 50 requests/s and an open tunnel",
        promise: "the tunnel is reset, no request hangs, served again within 10 s of the new hint",
        quick: false,
        run: |context| Box::pin(moves::moved(context)),
    },
];
