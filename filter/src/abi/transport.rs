//! The transport socket's hooks and callbacks.

use std::{
    ffi::{c_char, c_void},
    io::IoSlice,
    marker::PhantomData,
    mem::MaybeUninit,
    os::fd::BorrowedFd,
    ptr::NonNull,
    sync::Arc,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec},
    io::Errno,
    net::{SendAncillaryBuffer, SendFlags},
};

use super::{
    guard::guarded,
    raw::{
        Buffer, IoResult, envoy_dynamic_module_callback_transport_socket_get_fd,
        envoy_dynamic_module_callback_transport_socket_io_shutdown_write,
        envoy_dynamic_module_callback_transport_socket_raise_event,
        envoy_dynamic_module_callback_transport_socket_read_buffer_add,
        envoy_dynamic_module_callback_transport_socket_set_is_readable,
        envoy_dynamic_module_callback_transport_socket_should_drain_read_buffer,
        envoy_dynamic_module_callback_transport_socket_write_buffer_drain,
        envoy_dynamic_module_callback_transport_socket_write_buffer_get_slices,
        envoy_dynamic_module_callback_transport_socket_write_buffer_length,
    },
};
use crate::transport::{Factory, Next, Socket};

/// `type_network_connection_event_Connected`.
const CONNECTED: u32 = 2;
/// Slices written by one system call: Envoy's are 16 KiB, so this is 1 MiB,
/// more than a Unix socket takes at once.
const MAX_SLICES: usize = 64;

/// Envoy's side of a connection, within one hook.
#[derive(Clone, Copy)]
pub struct Envoy<'hook> {
    socket: NonNull<c_void>,
    hook: PhantomData<&'hook ()>,
}

/// What [`Envoy::write_from_buffer`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// This many bytes went out.
    Some(usize),
    /// The buffer is empty.
    NothingLeft,
}

impl Envoy<'_> {
    /// # Safety
    /// `socket` is what Envoy passed to the hook that is running.
    unsafe fn new(socket: *mut c_void) -> Option<Self> {
        Some(Self {
            socket: NonNull::new(socket)?,
            hook: PhantomData,
        })
    }

    fn raw(self) -> *mut c_void {
        self.socket.as_ptr()
    }

    fn fd(&self) -> Result<BorrowedFd<'_>, Errno> {
        // SAFETY: the handle is Envoy's own, inside its hook.
        let fd = unsafe { envoy_dynamic_module_callback_transport_socket_get_fd(self.raw()) };
        if fd < 0 {
            return Err(Errno::BADF);
        }
        // SAFETY: Envoy owns the descriptor and keeps it open at least until
        // this hook returns; the borrow cannot outlive `self`.
        Ok(unsafe { BorrowedFd::borrow_raw(fd) })
    }

    /// Reads from the socket; 0 is the end of the other side's bytes.
    pub fn read(&self, buffer: &mut [u8]) -> Result<usize, Errno> {
        let fd = self.fd()?;
        rustix::io::retry_on_intr(|| rustix::io::read(fd, &mut *buffer))
    }

    /// Writes to the socket, past Envoy's buffer.
    pub fn send(&self, bytes: &[u8]) -> Result<usize, Errno> {
        let fd = self.fd()?;
        rustix::io::retry_on_intr(|| rustix::net::send(fd, bytes, SendFlags::NOSIGNAL))
    }

    /// Writes what the socket takes of Envoy's write buffer, in one call.
    pub fn write_from_buffer(&self) -> Result<Written, Errno> {
        let mut slices = [MaybeUninit::<Buffer>::uninit(); MAX_SLICES];
        let mut count = MAX_SLICES;
        // SAFETY: there is room for `count` slices; Envoy writes how many it set.
        unsafe {
            envoy_dynamic_module_callback_transport_socket_write_buffer_get_slices(
                self.raw(),
                slices.as_mut_ptr().cast(),
                &raw mut count,
            );
        }
        let mut iov = [IoSlice::new(&[]); MAX_SLICES];
        let mut used = 0;
        for slice in &slices[..count.min(MAX_SLICES)] {
            // SAFETY: Envoy has set the first `count` slices; their bytes stay
            // until the buffer is drained, which is below, after the last use.
            let bytes = unsafe { slice.assume_init().bytes() };
            if !bytes.is_empty() {
                iov[used] = IoSlice::new(bytes);
                used += 1;
            }
        }
        if used == 0 {
            return Ok(Written::NothingLeft);
        }
        let fd = self.fd()?;
        // `sendmsg` and not `writev`: it can be told to raise no SIGPIPE.
        let n = rustix::io::retry_on_intr(|| {
            rustix::net::sendmsg(
                fd,
                &iov[..used],
                &mut SendAncillaryBuffer::default(),
                SendFlags::NOSIGNAL,
            )
        })?;
        // SAFETY: the handle is Envoy's own; `iov` is not used again.
        unsafe {
            envoy_dynamic_module_callback_transport_socket_write_buffer_drain(self.raw(), n);
        }
        Ok(Written::Some(n))
    }

    /// Bytes in Envoy's write buffer; 0 outside `do_write`.
    pub fn write_buffer_len(&self) -> usize {
        // SAFETY: the handle is Envoy's own, inside its hook.
        unsafe { envoy_dynamic_module_callback_transport_socket_write_buffer_length(self.raw()) }
    }

    /// Hands bytes to Envoy, which copies them.
    pub fn add_to_read_buffer(&self, bytes: &[u8]) {
        // SAFETY: the bytes are valid for the call.
        unsafe {
            envoy_dynamic_module_callback_transport_socket_read_buffer_add(
                self.raw(),
                bytes.as_ptr().cast::<c_char>(),
                bytes.len(),
            );
        }
    }

    /// Envoy's buffer is at its limit: read no further now.
    pub fn read_buffer_is_full(&self) -> bool {
        // SAFETY: the handle is Envoy's own, inside its hook.
        unsafe {
            envoy_dynamic_module_callback_transport_socket_should_drain_read_buffer(self.raw())
        }
    }

    /// Asks for another `do_read`, although the socket's readiness was reported.
    pub fn read_again_later(&self) {
        // SAFETY: the handle is Envoy's own, inside its hook.
        unsafe { envoy_dynamic_module_callback_transport_socket_set_is_readable(self.raw()) }
    }

    /// Ends our direction: the dialer reads an end, and can still write.
    pub fn shutdown_write(&self) {
        // SAFETY: the handle is Envoy's own, inside its hook.
        unsafe { envoy_dynamic_module_callback_transport_socket_io_shutdown_write(self.raw()) }
    }

    /// Tells Envoy that the connection stands. **Re-enters** the socket's
    /// `do_write`, and `close` when Envoy has no use for it any more.
    pub fn raise_connected(&self) {
        // SAFETY: no reference into the socket's state is held by the caller
        // beyond shared ones to cells.
        unsafe {
            envoy_dynamic_module_callback_transport_socket_raise_event(self.raw(), CONNECTED);
        }
    }

    /// At an end of the other side's bytes: whether it has closed both
    /// directions (it aborted or died) and not only its own. A Unix socket has
    /// no reset that would say so.
    pub fn peer_is_gone(&self) -> bool {
        let Ok(fd) = self.fd() else { return true };
        let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::RDHUP)];
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        match rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, Some(&now))) {
            Ok(_) => fds[0]
                .revents()
                .intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL),
            Err(_) => true,
        }
    }
}

impl From<Next> for IoResult {
    fn from(next: Next) -> Self {
        Self {
            action: next.close.into(),
            bytes: next.bytes,
            end_stream_read: next.ended,
        }
    }
}

/// Runs a hook of an existing socket.
///
/// # Safety
/// `envoy` and `module` are what Envoy passed to the hook that is running.
unsafe fn on_socket<T>(
    hook: &str,
    envoy: *mut c_void,
    module: *const c_void,
    fallback: T,
    body: impl FnOnce(&Socket, Envoy<'_>) -> T,
) -> T {
    // SAFETY: `module` came from `socket_new` below and is not yet destroyed;
    // only shared references to it are ever made, on the one thread it lives on.
    let (socket, envoy) = unsafe { (module.cast::<Socket>().as_ref(), Envoy::new(envoy)) };
    let (Some(socket), Some(envoy)) = (socket, envoy) else {
        return fallback;
    };
    guarded(
        hook,
        || {
            socket.poison();
            fallback
        },
        || body(socket, envoy),
    )
}

#[unsafe(no_mangle)]
unsafe extern "C" fn envoy_dynamic_module_on_transport_socket_factory_config_new(
    _envoy: *mut c_void,
    name: Buffer,
    config: Buffer,
    is_upstream: bool,
) -> *const c_void {
    guarded("transport_factory_config_new", std::ptr::null, || {
        // SAFETY: Envoy's buffers are valid for this call.
        let (name, config) = unsafe { (name.bytes(), config.bytes()) };
        match Factory::new(name, config, is_upstream) {
            Ok(factory) => Arc::into_raw(Arc::new(factory)).cast(),
            Err(e) => {
                tracing::error!("the transport socket's configuration is refused: {e}");
                std::ptr::null()
            }
        }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn envoy_dynamic_module_on_transport_socket_factory_config_destroy(
    factory: *const c_void,
) {
    guarded(
        "transport_factory_config_destroy",
        || (),
        // SAFETY: from `factory_config_new`, and Envoy gives it back once.
        || drop(unsafe { Arc::from_raw(factory.cast::<Factory>()) }),
    );
}

#[unsafe(no_mangle)]
unsafe extern "C" fn envoy_dynamic_module_on_transport_socket_new(
    factory: *const c_void,
    _envoy: *mut c_void,
) -> *const c_void {
    guarded("transport_new", std::ptr::null, || {
        let factory = factory.cast::<Factory>();
        // SAFETY: from `factory_config_new`, not yet destroyed; the count is
        // raised first, so that the reference Envoy holds stays Envoy's.
        let factory = unsafe {
            Arc::increment_strong_count(factory);
            Arc::from_raw(factory)
        };
        Box::into_raw(Box::new(Socket::new(factory)))
            .cast_const()
            .cast()
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn envoy_dynamic_module_on_transport_socket_destroy(socket: *const c_void) {
    guarded(
        "transport_destroy",
        || (),
        // SAFETY: from `socket_new`, and Envoy gives it back once.
        || drop(unsafe { Box::from_raw(socket.cast::<Socket>().cast_mut()) }),
    );
}

#[unsafe(no_mangle)]
unsafe extern "C" fn envoy_dynamic_module_on_transport_socket_set_callbacks(
    envoy: *mut c_void,
    socket: *const c_void,
) {
    // SAFETY: both are Envoy's arguments.
    unsafe { on_socket("transport_set_callbacks", envoy, socket, (), |_, _| ()) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn envoy_dynamic_module_on_transport_socket_on_connected(
    envoy: *mut c_void,
    socket: *const c_void,
) {
    // A panic here has no return value to tell Envoy by: the poisoned socket
    // closes from the `do_write` that Envoy calls next.
    // SAFETY: both are Envoy's arguments.
    unsafe {
        on_socket("transport_on_connected", envoy, socket, (), |s, e| {
            s.on_connected(e)
        })
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn envoy_dynamic_module_on_transport_socket_do_read(
    envoy: *mut c_void,
    socket: *const c_void,
) -> IoResult {
    // SAFETY: both are Envoy's arguments.
    unsafe {
        on_socket(
            "transport_do_read",
            envoy,
            socket,
            Next::CLOSE.into(),
            |s, e| s.do_read(e).into(),
        )
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn envoy_dynamic_module_on_transport_socket_do_write(
    envoy: *mut c_void,
    socket: *const c_void,
    end_stream: bool,
) -> IoResult {
    // SAFETY: both are Envoy's arguments.
    unsafe {
        on_socket(
            "transport_do_write",
            envoy,
            socket,
            Next::CLOSE.into(),
            |s, e| s.do_write(e, end_stream).into(),
        )
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn envoy_dynamic_module_on_transport_socket_close(
    envoy: *mut c_void,
    socket: *const c_void,
    _event: u32,
    _abort: bool,
) {
    // SAFETY: both are Envoy's arguments.
    unsafe { on_socket("transport_close", envoy, socket, (), |s, _| s.close()) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn envoy_dynamic_module_on_transport_socket_get_protocol(
    envoy: *mut c_void,
    socket: *const c_void,
    out: *mut Buffer,
) {
    // SAFETY: both are Envoy's arguments; `out` is Envoy's to be filled.
    unsafe {
        on_socket("transport_get_protocol", envoy, socket, (), |_, _| {
            // None negotiated: the cluster's configuration says which.
            out.write(Buffer::EMPTY);
        })
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn envoy_dynamic_module_on_transport_socket_get_failure_reason(
    envoy: *mut c_void,
    socket: *const c_void,
    out: *mut Buffer,
) {
    // SAFETY: both are Envoy's arguments; `out` is Envoy's to be filled, and
    // the text is static.
    unsafe {
        on_socket("transport_get_failure_reason", envoy, socket, (), |s, _| {
            let reason = s.failure_reason().map(str::as_bytes);
            out.write(reason.map_or(Buffer::EMPTY, Buffer::lend));
        })
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn envoy_dynamic_module_on_transport_socket_can_flush_close(
    envoy: *mut c_void,
    socket: *const c_void,
) -> bool {
    // SAFETY: both are Envoy's arguments.
    unsafe {
        on_socket("transport_can_flush_close", envoy, socket, false, |s, _| {
            s.can_flush_close()
        })
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn envoy_dynamic_module_on_transport_socket_start_secure_transport(
    envoy: *mut c_void,
    socket: *const c_void,
) -> bool {
    // Nothing is encrypted between Envoy and the dialer beside it.
    // SAFETY: both are Envoy's arguments.
    unsafe {
        on_socket(
            "transport_start_secure_transport",
            envoy,
            socket,
            false,
            |_, _| false,
        )
    }
}
