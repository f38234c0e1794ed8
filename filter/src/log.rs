//! `tracing` events to Envoy's log, and a brake for lines that a fault could
//! repeat a thousand times a second.

use std::{
    fmt::Write as _,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tracing::{Event, Level, Metadata, Subscriber, field::Visit, subscriber::Interest};
use tracing_subscriber::{
    Layer,
    layer::{Context, SubscriberExt as _},
};

use crate::abi;

/// Sends every `tracing` event of this library to Envoy's log. Once a process.
pub fn install() {
    let subscriber = tracing_subscriber::registry().with(EnvoyLog);
    // Fails only when one is installed already; then that one serves.
    let _ = tracing::subscriber::set_global_default(subscriber);
}

struct EnvoyLog;

impl<S: Subscriber> Layer<S> for EnvoyLog {
    // Envoy's level can change at run time (`/logging`): ask at every event.
    fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
        Interest::sometimes()
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        metadata.is_event() && abi::log::enabled(level(*metadata.level()))
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut line = Line("adit: ".into());
        event.record(&mut line);
        abi::log::log(level(*event.metadata().level()), &line.0);
    }
}

fn level(level: Level) -> abi::log::Level {
    match level {
        Level::TRACE => abi::log::Level::Trace,
        Level::DEBUG => abi::log::Level::Debug,
        Level::INFO => abi::log::Level::Info,
        Level::WARN => abi::log::Level::Warn,
        Level::ERROR => abi::log::Level::Error,
    }
}

/// One line: the message, then `key=value`. Control characters are escaped, so
/// that a text from elsewhere cannot forge a second line.
struct Line(String);

impl Line {
    fn push(&mut self, text: &str) {
        for c in text.chars() {
            if c.is_control() {
                self.0.extend(c.escape_default());
            } else {
                self.0.push(c);
            }
        }
    }

    fn push_key(&mut self, key: &str) {
        if key != "message" {
            // Writing to a String does not fail.
            let _ = write!(self.0, " {key}=");
        }
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        self.push_key(field.name());
        self.push(&format!("{value:?}"));
    }

    fn record_str(&mut self, field: &tracing::field::Field, value: &str) {
        self.push_key(field.name());
        self.push(value);
    }
}

/// Lets one line through in each interval and counts the rest.
#[derive(Debug, Default)]
pub struct Brake {
    /// Milliseconds since the process's first use, plus one; 0 is "never".
    last: AtomicU64,
    held: AtomicU64,
}

impl Brake {
    const INTERVAL: Duration = Duration::from_secs(1);

    /// `Some(n)` when a line may be written now; `n` lines were held back since
    /// the last one.
    pub fn pass(&self) -> Option<u64> {
        static START: OnceLock<Instant> = OnceLock::new();
        self.pass_at(START.get_or_init(Instant::now).elapsed())
    }

    fn pass_at(&self, now: Duration) -> Option<u64> {
        let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX - 1) + 1;
        let last = self.last.load(Ordering::Relaxed);
        let due = last == 0 || now.saturating_sub(last) >= Self::INTERVAL.as_millis() as u64;
        // Two threads at once: one wins, the other's line counts as held.
        if due
            && self
                .last
                .compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        {
            return Some(self.held.swap(0, Ordering::Relaxed));
        }
        self.held.fetch_add(1, Ordering::Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_brake_passes_one_line_a_second_and_counts_the_rest() {
        let brake = Brake::default();
        let at = |ms| brake.pass_at(Duration::from_millis(ms));
        assert_eq!(at(0), Some(0));
        assert_eq!(at(1), None);
        assert_eq!(at(999), None);
        assert_eq!(at(1000), Some(2));
        assert_eq!(at(5000), Some(0));
    }

    #[test]
    fn a_text_with_a_line_break_stays_one_line() {
        let mut line = Line(String::new());
        line.push("a\nb\u{1b}[31m");
        assert_eq!(line.0, "a\\nb\\u{1b}[31m");
    }
}
