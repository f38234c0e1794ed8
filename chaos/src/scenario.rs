//! One fault, and what must hold.

use std::{fmt, future::Future, pin::Pin, time::Duration};

use anyhow::Result;

/// Beyond this a scenario hangs: longer than any takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// A fault, and the promise that must hold.
pub struct Scenario {
    /// In lower case with hyphens, unique.
    pub name: &'static str,
    /// What is done, as a clause: `SIGKILL of the dialer under 500 requests/s`.
    pub fault: &'static str,
    /// What must hold, as a clause: `served again within 5 s, no request hangs`.
    pub promise: &'static str,
    /// Whether it takes seconds and is part of `--quick`.
    pub quick: bool,
    /// Does it. What it says is what was seen, with figures; an error is a
    /// promise that did not hold.
    pub run: for<'a> fn(&'a Context) -> Run<'a>,
}

/// A scenario under way.
pub type Run<'a> = Pin<Box<dyn Future<Output = Result<String>> + 'a>>;

/// What every scenario is told.
pub struct Context {
    /// Envoy's version.
    pub version: String,
    /// Whether to take seconds rather than minutes.
    pub quick: bool,
}

impl Context {
    /// One scale or the other.
    pub fn scale<T>(&self, quick: T, full: T) -> T {
        if self.quick { quick } else { full }
    }
}

/// How a scenario ended.
pub enum Verdict {
    /// The promise held; what was seen.
    Held(String),
    /// It did not.
    Broken(anyhow::Error),
    /// It could not be tried on this machine; why.
    LeftOut(String),
}

/// An error that says that a scenario cannot be tried on this machine, and why.
#[derive(Debug)]
pub struct LeftOut(pub String);

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for LeftOut {}

impl Scenario {
    /// Runs it to an end, its own or that of [`PATIENCE`].
    pub async fn verdict(&self, context: &Context) -> Verdict {
        match tokio::time::timeout(PATIENCE, (self.run)(context)).await {
            Err(_) => Verdict::Broken(anyhow::anyhow!("no end after {PATIENCE:?}")),
            Ok(Ok(seen)) => Verdict::Held(seen),
            Ok(Err(error)) => match error.downcast::<LeftOut>() {
                Ok(LeftOut(why)) => Verdict::LeftOut(why),
                Err(error) => Verdict::Broken(error),
            },
        }
    }
}
