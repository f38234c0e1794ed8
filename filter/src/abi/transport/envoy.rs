//! Envoy's side of one connection: a safe wrapper for each callback.

use std::{
    ffi::{c_char, c_void},
    io::IoSlice,
    marker::PhantomData,
    mem::MaybeUninit,
    os::fd::BorrowedFd,
    ptr::NonNull,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec},
    io::Errno,
    net::{SendAncillaryBuffer, SendFlags},
};

use super::super::raw::{
    Buffer, envoy_dynamic_module_callback_transport_socket_get_fd,
    envoy_dynamic_module_callback_transport_socket_io_shutdown_write,
    envoy_dynamic_module_callback_transport_socket_raise_event,
    envoy_dynamic_module_callback_transport_socket_read_buffer_add,
    envoy_dynamic_module_callback_transport_socket_set_is_readable,
    envoy_dynamic_module_callback_transport_socket_should_drain_read_buffer,
    envoy_dynamic_module_callback_transport_socket_write_buffer_drain,
    envoy_dynamic_module_callback_transport_socket_write_buffer_get_slices,
    envoy_dynamic_module_callback_transport_socket_write_buffer_length,
};

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
    pub(super) unsafe fn new(socket: *mut c_void) -> Option<Self> {
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
