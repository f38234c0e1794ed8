//! Ambiguous HTTP/1 requests, all at once.

use anyhow::Result;
use futures_util::future::join_all;

use super::{
    cases::cases,
    judge::{Ground, exchange, numbered},
};
use crate::scenario::Context;

pub(super) async fn run(context: &Context) -> Result<String> {
    let ground = Ground::start(&context.version).await?;
    let addr = ground.stage.addr();
    let cases = cases(ground.stage.echo.addr.port());
    let sending = cases.iter().enumerate().map(|(n, case)| async move {
        let bytes = numbered(&case.bytes, n);
        let answer = exchange(addr, &bytes).await?;
        anyhow::Ok(format!("answered {}", statuses(&answer)))
    });
    let mut answers = Vec::new();
    for answer in join_all(sending).await {
        answers.push(answer?);
    }
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
