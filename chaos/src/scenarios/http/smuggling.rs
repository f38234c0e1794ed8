//! Ambiguous HTTP/1 requests, all side by side.

use anyhow::Result;
use futures_util::future::try_join_all;

use super::{
    cases::cases,
    judge::{Ground, Sending, exchange, numbered},
};
use crate::scenario::Context;

pub(super) async fn table(context: &Context, sending: Sending) -> Result<String> {
    let ground = Ground::start(&context.version).await?;
    let addr = ground.stage.addr();
    let cases = cases(ground.stage.echo.addr.port());
    let exchanges = cases.iter().enumerate().map(|(n, case)| async move {
        let bytes = numbered(&case.bytes, n);
        let answer = exchange(addr, &bytes, sending).await?;
        anyhow::Ok(format!("answered {}", statuses(&answer)))
    });
    let answers = try_join_all(exchanges).await?;
    ground.settled().await?;
    ground.verdict(&cases, &answers)
}

/// The statuses of an answer's HTTP/1 heads.
fn statuses(answer: &[u8]) -> String {
    let text = String::from_utf8_lossy(answer);
    let all: Vec<_> = text
        .split("HTTP/1.1 ")
        .skip(1)
        .filter_map(|part| part.get(..3))
        .collect();
    match all.is_empty() {
        true => "by closing".to_owned(),
        false => all.join(" "),
    }
}
