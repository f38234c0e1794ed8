//! No panic crosses into Envoy: unwinding out of an `extern "C"` function
//! aborts the whole proxy, so every hook runs inside [`guarded`].

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::log::{Level, log};

/// Runs a hook; when it panics, logs and answers with `fallback` instead.
///
/// `fallback` must leave nothing waiting: a request hook that only stops the
/// filter chain would let its client hang for ever.
pub(super) fn guarded<T>(hook: &str, fallback: impl FnOnce() -> T, body: impl FnOnce() -> T) -> T {
    let run = || {
        #[cfg(feature = "fault-injection")]
        fault::maybe_panic(hook);
        #[cfg(any(test, feature = "stub-host"))]
        super::host::panic_if_ordered(hook);
        body()
    };
    // Unwind safety: the state behind a hook is made of `Cell`s that are whole
    // after every step, and the fallbacks end the request or the connection.
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(value) => value,
        Err(payload) => {
            // Dropping an unknown payload may itself panic.
            if !payload.is::<&str>() && !payload.is::<String>() {
                std::mem::forget(payload);
            }
            log(
                Level::Error,
                &format!("adit: a panic in the hook {hook} was contained; this is a bug in Adit"),
            );
            fallback()
        }
    }
}

/// Sends panic messages to Envoy's log instead of standard error.
pub(super) fn install_panic_hook() {
    std::panic::set_hook(Box::new(|info| {
        let text = info.to_string().replace(['\n', '\r'], " ");
        log(Level::Error, &format!("adit: {text}"));
    }));
}

#[cfg(feature = "fault-injection")]
mod fault {
    //! `ADIT_FAULT=hook[:times]`: a panic to order, for tests.

    use std::sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    };

    static WANTED: LazyLock<Option<(String, AtomicU64)>> = LazyLock::new(|| {
        let order = std::env::var("ADIT_FAULT").ok()?;
        Some(match order.split_once(':') {
            None => (order, AtomicU64::new(u64::MAX)),
            Some((hook, times)) => (hook.into(), AtomicU64::new(times.parse().ok()?)),
        })
    });

    pub(super) fn maybe_panic(hook: &str) {
        if let Some((wanted, left)) = &*WANTED
            && wanted == hook
            && left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1))
                .is_ok()
        {
            panic!("ordered by ADIT_FAULT");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_the_fallbacks_answer() {
        let answer = guarded("test", || "fallback", || panic!("of the test"));
        assert_eq!(answer, "fallback");
        assert_eq!(guarded("test", || "fallback", || "answer"), "answer");
    }

    #[test]
    fn a_payload_that_panics_when_dropped_is_contained_too() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("while dropping");
            }
        }
        let answer = guarded("test", || 1, || std::panic::panic_any(Bomb));
        assert_eq!(answer, 1);
    }
}
