//! The host's upstream connections.

mod callbacks;

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    ffi::c_void,
    io::Read as _,
    os::unix::net::UnixStream,
    rc::Rc,
};

use super::{
    super::raw::{Buffer, IoResult},
    hook,
};

pub use callbacks::*;

unsafe extern "C" {
    fn envoy_dynamic_module_on_transport_socket_factory_config_new(
        envoy: *mut c_void,
        name: Buffer,
        config: Buffer,
        is_upstream: bool,
    ) -> *const c_void;
    fn envoy_dynamic_module_on_transport_socket_factory_config_destroy(factory: *const c_void);
    fn envoy_dynamic_module_on_transport_socket_new(
        factory: *const c_void,
        envoy: *mut c_void,
    ) -> *const c_void;
    fn envoy_dynamic_module_on_transport_socket_destroy(socket: *const c_void);
    fn envoy_dynamic_module_on_transport_socket_set_callbacks(
        envoy: *mut c_void,
        socket: *const c_void,
    );
    fn envoy_dynamic_module_on_transport_socket_on_connected(
        envoy: *mut c_void,
        socket: *const c_void,
    );
    fn envoy_dynamic_module_on_transport_socket_do_read(
        envoy: *mut c_void,
        socket: *const c_void,
    ) -> IoResult;
    fn envoy_dynamic_module_on_transport_socket_do_write(
        envoy: *mut c_void,
        socket: *const c_void,
        end_stream: bool,
    ) -> IoResult;
    fn envoy_dynamic_module_on_transport_socket_close(
        envoy: *mut c_void,
        socket: *const c_void,
        event: u32,
        abort: bool,
    );
    fn envoy_dynamic_module_on_transport_socket_get_protocol(
        envoy: *mut c_void,
        socket: *const c_void,
        out: *mut Buffer,
    );
    fn envoy_dynamic_module_on_transport_socket_get_failure_reason(
        envoy: *mut c_void,
        socket: *const c_void,
        out: *mut Buffer,
    );
    fn envoy_dynamic_module_on_transport_socket_can_flush_close(
        envoy: *mut c_void,
        socket: *const c_void,
    ) -> bool;
    fn envoy_dynamic_module_on_transport_socket_start_secure_transport(
        envoy: *mut c_void,
        socket: *const c_void,
    ) -> bool;
}

/// A cluster's transport socket factory.
pub struct Factory(*const c_void);

/// An upstream connection.
pub struct Connection {
    socket: RefCell<Option<UnixStream>>,
    module: Cell<*const c_void>,
    write_buffer: RefCell<VecDeque<Box<[u8]>>>,
    end_stream: Cell<bool>,
    in_write: Cell<bool>,
    in_read: Cell<bool>,
    again: Cell<bool>,
    /// What is done inside callbacks.
    pub inside: RefCell<Inside>,
    /// All that the module has put into the read buffer.
    pub received: RefCell<Vec<u8>>,
    /// How much of it may come in one `do_read`.
    pub read_limit: Cell<usize>,
    /// How often the module said "connected".
    pub connected: Cell<u32>,
    /// The module reported the end of the other side's bytes.
    pub ended: Cell<bool>,
    /// The module asked for a close, with this reason.
    pub asked_to_close: RefCell<Option<String>>,
}

/// What the host does inside a callback, before it returns.
#[derive(Default)]
pub struct Inside {
    /// In `raise_event`: asks everything that can be asked.
    pub ask: bool,
    /// In `raise_event`: reads, although a read is running.
    pub read: bool,
    /// In `raise_event`: closes, as after a TCP health check.
    pub close: bool,
    /// In `raise_event`: closes and gives the object back.
    pub destroy: bool,
    /// In `read_buffer_add`: serves another connection of the same thread.
    pub other: Option<Rc<Connection>>,
    /// In `write_buffer_drain`: closes.
    pub close_in_drain: bool,
    /// In `write_buffer_drain`: these bytes are written, once.
    pub write_in_drain: Vec<u8>,
}

impl Factory {
    /// With this target, in base64.
    pub fn new(target: &str) -> Self {
        let config = format!("{{\"target\": \"{target}\"}}");
        Self::try_new(b"adit", config.as_bytes()).expect("the configuration is taken")
    }

    /// With any configuration.
    pub fn try_new(name: &[u8], config: &[u8]) -> Option<Self> {
        // SAFETY: the buffers are valid for the call.
        let factory = hook(|| unsafe {
            envoy_dynamic_module_on_transport_socket_factory_config_new(
                std::ptr::dangling_mut(),
                Buffer::lend(name),
                Buffer::lend(config),
                true,
            )
        });
        (!factory.is_null()).then(|| Self(factory))
    }
}

impl Drop for Factory {
    fn drop(&mut self) {
        // SAFETY: from `factory_config_new`, given back once.
        hook(|| unsafe {
            envoy_dynamic_module_on_transport_socket_factory_config_destroy(self.0);
        });
    }
}

impl Connection {
    /// A connection, and the dialer's end of it.
    pub fn new(factory: &Factory) -> (Rc<Self>, UnixStream) {
        let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
        for socket in [&ours, &theirs] {
            socket.set_nonblocking(true).expect("sockets can do that");
        }
        let connection = Rc::new(Self {
            socket: RefCell::new(Some(ours)),
            module: Cell::new(std::ptr::null()),
            write_buffer: RefCell::default(),
            end_stream: Cell::new(false),
            in_write: Cell::new(false),
            in_read: Cell::new(false),
            again: Cell::new(false),
            inside: RefCell::default(),
            received: RefCell::default(),
            read_limit: Cell::new(usize::MAX),
            connected: Cell::new(0),
            ended: Cell::new(false),
            asked_to_close: RefCell::default(),
        });
        let handle = connection.handle();
        // SAFETY: the factory lives; the handle lives as long as the object.
        let module =
            hook(|| unsafe { envoy_dynamic_module_on_transport_socket_new(factory.0, handle) });
        assert!(!module.is_null());
        connection.module.set(module);
        // SAFETY: as above, in every hook that follows.
        hook(|| unsafe { envoy_dynamic_module_on_transport_socket_set_callbacks(handle, module) });
        (connection, theirs)
    }

    fn handle(&self) -> *mut c_void {
        std::ptr::from_ref(self).cast_mut().cast()
    }

    fn is_closed(&self) -> bool {
        self.socket.borrow().is_none()
    }

    /// Still there, for the module and for the network.
    pub fn is_open(&self) -> bool {
        !self.is_closed()
    }

    /// The Unix socket is connected.
    pub fn on_connected(&self) {
        // SAFETY: see `new`.
        hook(|| unsafe {
            envoy_dynamic_module_on_transport_socket_on_connected(self.handle(), self.module.get());
        });
        self.flush();
    }

    /// Everything that can be read, until the module waits for more.
    pub fn readable(&self) {
        loop {
            if self.is_closed() || self.module.get().is_null() {
                return;
            }
            self.again.set(false);
            let had = self.received.borrow().len();
            let outer = self.in_read.replace(true);
            // SAFETY: see `new`.
            let result = hook(|| unsafe {
                envoy_dynamic_module_on_transport_socket_do_read(self.handle(), self.module.get())
            });
            self.in_read.set(outer);
            let got = self.received.borrow().len() - had;
            // A read inside this one is counted by itself and by nobody else.
            if !self.inside.borrow().read {
                assert_eq!(result.bytes, got as u64);
            }
            self.ended.set(self.ended.get() | result.end_stream_read);
            self.after(result);
            if !self.again.get() {
                return;
            }
        }
    }

    /// Bytes for the service, and perhaps the last ones.
    pub fn write(&self, bytes: &[u8], end_stream: bool) {
        self.push(bytes);
        self.end_stream.set(end_stream);
        self.flush();
    }

    /// Envoy's buffers hold slices of 16 KiB.
    fn push(&self, bytes: &[u8]) {
        let slices = bytes.chunks(16 * 1024).map(Box::from);
        self.write_buffer.borrow_mut().extend(slices);
    }

    /// The socket has room, or there is something to write.
    pub fn flush(&self) {
        if self.is_closed() || self.module.get().is_null() {
            return;
        }
        let outer = self.in_write.replace(true);
        let end = self.end_stream.get();
        // SAFETY: see `new`.
        let result = hook(|| unsafe {
            envoy_dynamic_module_on_transport_socket_do_write(self.handle(), self.module.get(), end)
        });
        self.in_write.set(outer);
        self.after(result);
    }

    fn after(&self, result: IoResult) {
        if result.action == 1 && !self.is_closed() && !self.module.get().is_null() {
            let reason = self.ask();
            *self.asked_to_close.borrow_mut() = Some(reason);
            self.close();
        }
    }

    /// Asks what Envoy asks when it pleases; the failure reason is the answer.
    pub fn ask(&self) -> String {
        let (handle, module) = (self.handle(), self.module.get());
        let mut out = Buffer::EMPTY;
        // SAFETY: see `new`; `out` is ours.
        hook(|| unsafe {
            envoy_dynamic_module_on_transport_socket_get_protocol(handle, module, &raw mut out);
            assert!(out.bytes().is_empty());
            envoy_dynamic_module_on_transport_socket_can_flush_close(handle, module);
            assert!(
                !envoy_dynamic_module_on_transport_socket_start_secure_transport(handle, module)
            );
            envoy_dynamic_module_on_transport_socket_get_failure_reason(
                handle,
                module,
                &raw mut out,
            );
            String::from_utf8(super::copied(out)).expect("a reason is text")
        })
    }

    /// Closes the connection: the module is told first, then the socket goes.
    pub fn close(&self) {
        if self.is_closed() {
            return;
        }
        // SAFETY: see `new`.
        hook(|| unsafe {
            envoy_dynamic_module_on_transport_socket_close(
                self.handle(),
                self.module.get(),
                1,
                false,
            );
        });
        self.socket.take();
    }

    /// Gives the module's object back.
    pub fn destroy(&self) {
        let module = self.module.replace(std::ptr::null());
        if !module.is_null() {
            // SAFETY: from `socket_new`, given back once.
            hook(|| unsafe { envoy_dynamic_module_on_transport_socket_destroy(module) });
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.close();
        self.destroy();
    }
}

/// All that the dialer's end has got so far.
pub fn drain(dialer: &mut UnixStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    // Ends with "would block", which is no failure here.
    let _ = dialer.read_to_end(&mut bytes);
    bytes
}
