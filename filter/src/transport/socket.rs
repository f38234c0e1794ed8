//! One connection to the dialer, driven by Envoy's hooks.
//!
//! Envoy calls back into this object from inside some callbacks: `raise_event`
//! runs `do_write` and may run `close`. So the state is made of cells, nothing
//! is borrowed across a callback, and `closed` is looked at after it. All of it
//! runs on one thread: a worker, or the main thread for health checks.

use std::{
    cell::{Cell, RefCell},
    sync::Arc,
    time::Instant,
};

use adit_wire::{Connected, ErrorClass, MAX_VERDICT_LEN, Refusal};
use rustix::io::Errno;

use super::{
    Factory,
    handshake::{Handshake, Step},
};
use crate::{
    abi::transport::{Envoy, Written},
    cut, off,
    served::{self, By},
};

/// How much is read from the socket at once. Envoy's own sockets read 16 to
/// 64 KiB; a Unix socket holds about 208 KiB, so 128 KiB halves the calls of a
/// bulk transfer and stays in a core's second-level cache.
const SCRATCH: usize = 128 * 1024;

thread_local! {
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The in-module side of a connection.
#[derive(Debug)]
pub struct Socket {
    factory: Arc<Factory>,
    handshake: RefCell<Handshake>,
    phase: Cell<Phase>,
    /// Who is at the other end, once it is open.
    served_by: Cell<Option<By>>,
    /// We have told the dialer that no more bytes come.
    write_ended: Cell<bool>,
    /// Envoy ended its side while there was nothing to flush and no verdict.
    end_wanted: Cell<bool>,
    closed: Cell<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Handshake,
    Open,
    Failed(ErrorClass),
}

/// What Envoy shall do with the connection after a read or write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Next {
    /// Close it: an abort, unless it failed before it was connected.
    pub close: bool,
    /// Bytes moved.
    pub bytes: u64,
    /// The other side ended its direction cleanly.
    pub ended: bool,
}

impl Next {
    /// Stay open, nothing moved.
    pub const WAIT: Self = Self::after(0);
    /// Close, nothing moved.
    pub const CLOSE: Self = Self {
        close: true,
        bytes: 0,
        ended: false,
    };

    const fn after(bytes: u64) -> Self {
        Self {
            close: false,
            bytes,
            ended: false,
        }
    }
}

impl Socket {
    /// For one connection of `factory`'s cluster.
    pub fn new(factory: Arc<Factory>) -> Self {
        Self {
            factory,
            handshake: RefCell::default(),
            phase: Cell::new(Phase::Handshake),
            served_by: Cell::new(None),
            write_ended: Cell::new(false),
            end_wanted: Cell::new(false),
            closed: Cell::new(false),
        }
    }

    /// The Unix socket is connected: the preface goes out.
    pub fn on_connected(&self, envoy: Envoy<'_>) {
        self.send_preface(envoy);
    }

    /// The socket can be read.
    pub fn do_read(&self, envoy: Envoy<'_>) -> Next {
        cut::note(false);
        if self.phase.get() == Phase::Handshake {
            let Some(connected) = self.read_verdict(envoy) else {
                return match self.phase.get() {
                    Phase::Failed(_) => Next::CLOSE,
                    _ => Next::WAIT,
                };
            };
            self.open(envoy, connected);
            if self.closed.get() {
                return Next::CLOSE;
            }
        }
        match self.phase.get() {
            Phase::Open => self.read_stream(envoy),
            _ => Next::CLOSE,
        }
    }

    /// Envoy has bytes for the service, or the socket has room again.
    pub fn do_write(&self, envoy: Envoy<'_>, end_stream: bool) -> Next {
        cut::note(false);
        match self.phase.get() {
            Phase::Failed(_) => Next::CLOSE,
            Phase::Handshake => {
                self.send_preface(envoy);
                self.end_wanted
                    .set(end_stream && envoy.write_buffer_len() == 0);
                match self.phase.get() {
                    Phase::Failed(_) => Next::CLOSE,
                    _ => Next::WAIT,
                }
            }
            Phase::Open => self.write_stream(envoy, end_stream),
        }
    }

    /// Envoy closes the connection.
    pub fn close(&self) {
        self.closed.set(true);
    }

    /// Whether bytes still in Envoy's buffer have anywhere to go.
    pub fn can_flush_close(&self) -> bool {
        self.phase.get() == Phase::Open
    }

    /// `adit.<class>` once the connection has failed.
    pub fn failure_reason(&self) -> Option<&'static str> {
        match self.phase.get() {
            Phase::Failed(class) => Some(reason(class)),
            _ => None,
        }
    }

    /// A hook of this socket panicked: the connection cannot be trusted.
    pub fn poison(&self) {
        // What had failed already keeps its reason.
        if self.failure_reason().is_none() {
            self.phase.set(Phase::Failed(ErrorClass::Internal));
        }
    }

    fn send_preface(&self, envoy: Envoy<'_>) {
        loop {
            let mut handshake = self.handshake.borrow_mut();
            let rest = handshake.unsent(&self.factory.preface);
            if rest.is_empty() {
                return;
            }
            match envoy.send(rest) {
                Ok(n) => handshake.sent(n),
                // Envoy calls `do_write` when there is room.
                Err(Errno::AGAIN) => return,
                Err(e) => {
                    drop(handshake);
                    return self.fail(ErrorClass::Internal, &format!("sending the preface: {e}"));
                }
            }
        }
    }

    /// Reads until the verdict is whole. `None`: not yet, or the phase is
    /// `Failed` now.
    fn read_verdict(&self, envoy: Envoy<'_>) -> Option<Connected> {
        let mut buffer = [0; 2 + MAX_VERDICT_LEN];
        loop {
            let wants = self.handshake.borrow().wants().min(buffer.len());
            let n = match envoy.read(&mut buffer[..wants]) {
                Ok(0) => {
                    self.fail(
                        ErrorClass::Internal,
                        "the dialer closed the socket without a verdict",
                    );
                    return None;
                }
                Ok(n) => n,
                Err(Errno::AGAIN) => return None,
                Err(e) => {
                    self.fail(ErrorClass::Internal, &format!("reading the verdict: {e}"));
                    return None;
                }
            };
            let step = self.handshake.borrow_mut().received(&buffer[..n]);
            match step {
                Ok(Step::More) => {}
                Ok(Step::Open(connected)) => {
                    off::note(self.factory.connectors, false, Instant::now());
                    return Some(connected);
                }
                Ok(Step::Refused(Refusal { class, text })) => {
                    let off = class == ErrorClass::Offline;
                    off::note(self.factory.connectors, off, Instant::now());
                    self.fail(class, &text);
                    return None;
                }
                Err(e) => {
                    self.fail(
                        ErrorClass::Internal,
                        &format!("the dialer sent no verdict: {e}"),
                    );
                    return None;
                }
            }
        }
    }

    fn open(&self, envoy: Envoy<'_>, connected: Connected) {
        tracing::debug!(
            target = %self.factory.name,
            connector = connected.connector.short(),
            path = connected.path.as_str(),
            rtt_us = connected.rtt.as_micros() as u64,
            "connected"
        );
        self.phase.set(Phase::Open);
        self.served_by.set(Some(By::from(&connected)));
        served::note(self.served_by.get());
        // Re-enters `do_write`, and perhaps `close`.
        envoy.raise_connected();
        if !self.closed.get() && self.end_wanted.take() {
            self.end_write(envoy);
        }
    }

    fn read_stream(&self, envoy: Envoy<'_>) -> Next {
        served::note(self.served_by.get());
        // Taken out for the duration: should a callback read another socket of
        // this thread, that one makes a buffer of its own.
        let mut buffer = BUFFER.take();
        buffer.resize(SCRATCH, 0);
        let next = self.read_into(envoy, &mut buffer);
        BUFFER.set(buffer);
        next
    }

    fn read_into(&self, envoy: Envoy<'_>, buffer: &mut [u8]) -> Next {
        let mut bytes = 0;
        // Envoy is told of readiness once (edge-triggered): read until there is
        // nothing, or ask to be called again.
        loop {
            match envoy.read(buffer) {
                Ok(0) => {
                    // After our own end both directions are closed either way,
                    // and an abort can no longer be told.
                    let aborted = !self.write_ended.get() && envoy.peer_is_gone();
                    return if aborted {
                        Self::cut(envoy, bytes)
                    } else {
                        Next {
                            close: false,
                            bytes,
                            ended: true,
                        }
                    };
                }
                Ok(n) => {
                    envoy.add_to_read_buffer(&buffer[..n]);
                    bytes += n as u64;
                    if envoy.read_buffer_is_full() {
                        envoy.read_again_later();
                        return Next::after(bytes);
                    }
                }
                Err(Errno::AGAIN) => return Next::after(bytes),
                Err(e) => {
                    tracing::debug!(target = %self.factory.name, "reading: {e}");
                    return Self::cut(envoy, bytes);
                }
            }
        }
    }

    /// The connection broke off. Bytes before the break are delivered first, and
    /// the break by a call of its own: see [`crate::cut`].
    fn cut(envoy: Envoy<'_>, bytes: u64) -> Next {
        if bytes > 0 {
            envoy.read_again_later();
            return Next::after(bytes);
        }
        cut::note(true);
        Next::CLOSE
    }

    fn write_stream(&self, envoy: Envoy<'_>, end_stream: bool) -> Next {
        self.end_wanted.set(false);
        let mut bytes = 0;
        loop {
            match envoy.write_from_buffer() {
                Ok(Written::Some(n)) => bytes += n as u64,
                Ok(Written::NothingLeft) => break,
                Err(Errno::AGAIN) => return Next::after(bytes),
                Err(e) => {
                    tracing::debug!(target = %self.factory.name, "writing: {e}");
                    cut::note(true);
                    return Next {
                        close: true,
                        bytes,
                        ended: false,
                    };
                }
            }
        }
        if end_stream {
            self.end_write(envoy);
        }
        Next::after(bytes)
    }

    fn end_write(&self, envoy: Envoy<'_>) {
        if !self.write_ended.replace(true) {
            envoy.shutdown_write();
        }
    }

    /// The verdict's text names addresses: it goes to the log, the class alone
    /// goes on.
    fn fail(&self, class: ErrorClass, text: &str) {
        self.phase.set(Phase::Failed(class));
        let target = &self.factory.name;
        match self.factory.refusals.pass() {
            Some(held) => {
                tracing::info!(%target, %class, held_back = held, "not connected: {text}");
            }
            None => tracing::debug!(%target, %class, "not connected: {text}"),
        }
    }
}

/// The text that Envoy reports as `%UPSTREAM_TRANSPORT_FAILURE_REASON%`.
pub fn reason(class: ErrorClass) -> &'static str {
    match class {
        ErrorClass::Offline => "adit.offline",
        ErrorClass::Timeout => "adit.timeout",
        ErrorClass::Refused => "adit.refused",
        ErrorClass::Tls => "adit.tls",
        ErrorClass::Denied => "adit.denied",
        ErrorClass::Overloaded => "adit.overloaded",
        ErrorClass::Misconfigured => "adit.misconfigured",
        ErrorClass::Internal => "adit.internal",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_the_class_behind_adit() {
        for class in ErrorClass::ALL {
            assert_eq!(reason(class).strip_prefix("adit."), Some(class.as_str()));
        }
    }
}
