//! What the module may ask of a connection and do to it.

use std::{
    ffi::{c_char, c_int, c_void},
    net::Shutdown,
    os::fd::AsRawFd as _,
};

use super::{
    super::{super::raw::Buffer, copied, in_a_hook},
    Connection,
};

/// The connection behind a handle.
///
/// # Safety
/// The handle is one of this file's, and its object lives.
unsafe fn connection<'a>(handle: *mut c_void) -> &'a Connection {
    in_a_hook();
    // SAFETY: by this function's contract.
    let connection = unsafe { &*handle.cast_const().cast::<Connection>() };
    assert!(
        !connection.module.get().is_null(),
        "a callback for an object that was given back"
    );
    connection
}

/// # Safety
/// See [`connection`]; so for all below, and pointers are as `raw.rs` has them.
pub unsafe fn envoy_dynamic_module_callback_transport_socket_get_fd(s: *mut c_void) -> c_int {
    // SAFETY: by this function's contract.
    let connection = unsafe { connection(s) };
    let socket = connection.socket.borrow();
    socket.as_ref().map_or(-1, |socket| socket.as_raw_fd())
}

/// # Safety
/// As above.
pub unsafe fn envoy_dynamic_module_callback_transport_socket_io_shutdown_write(s: *mut c_void) {
    // SAFETY: by this function's contract.
    let connection = unsafe { connection(s) };
    if let Some(socket) = &*connection.socket.borrow() {
        let _ = socket.shutdown(Shutdown::Write);
    }
}

/// # Safety
/// As above.
pub unsafe fn envoy_dynamic_module_callback_transport_socket_read_buffer_add(
    s: *mut c_void,
    data: *const c_char,
    len: usize,
) {
    // SAFETY: by this function's contract.
    let (connection, bytes) = unsafe { (connection(s), copied(Buffer { ptr: data, len })) };
    assert!(
        connection.in_read.get(),
        "there is no read buffer outside do_read"
    );
    connection.received.borrow_mut().extend(bytes);
    let other = connection.inside.borrow_mut().other.take();
    if let Some(other) = other {
        other.readable();
        other.flush();
    }
}

/// # Safety
/// As above.
pub unsafe fn envoy_dynamic_module_callback_transport_socket_write_buffer_get_slices(
    s: *mut c_void,
    out: *mut Buffer,
    n: *mut usize,
) {
    // SAFETY: by this function's contract.
    let connection = unsafe { connection(s) };
    let slices = connection.write_buffer.borrow();
    // Outside `do_write` there is no buffer: then Envoy says 0.
    let room = match connection.in_write.get() {
        // SAFETY: by this function's contract.
        true => unsafe { n.read() },
        false => 0,
    };
    let mut set = 0;
    for slice in slices.iter().take(room) {
        // SAFETY: there is room for `room` of them.
        unsafe { out.add(set).write(Buffer::lend(slice)) };
        set += 1;
    }
    // SAFETY: as above.
    unsafe { n.write(set) };
}

/// # Safety
/// As above.
pub unsafe fn envoy_dynamic_module_callback_transport_socket_write_buffer_drain(
    s: *mut c_void,
    len: usize,
) {
    // SAFETY: by this function's contract.
    let connection = unsafe { connection(s) };
    let mut left = len;
    {
        let mut slices = connection.write_buffer.borrow_mut();
        while left > 0 {
            let first = slices.pop_front().expect("no more than there is");
            if first.len() > left {
                // What stays, moves: nobody may keep a pointer across this.
                slices.push_front(first[left..].into());
            }
            left = left.saturating_sub(first.len());
        }
    }
    let (more, close) = {
        let mut inside = connection.inside.borrow_mut();
        (
            std::mem::take(&mut inside.write_in_drain),
            inside.close_in_drain,
        )
    };
    connection.push(&more);
    if close {
        connection.close();
    }
}

/// # Safety
/// As above.
pub unsafe fn envoy_dynamic_module_callback_transport_socket_write_buffer_length(
    s: *mut c_void,
) -> usize {
    // SAFETY: by this function's contract.
    let connection = unsafe { connection(s) };
    let slices = connection.write_buffer.borrow();
    match connection.in_write.get() {
        true => slices.iter().map(|slice| slice.len()).sum(),
        false => 0,
    }
}

/// # Safety
/// As above.
pub unsafe fn envoy_dynamic_module_callback_transport_socket_raise_event(
    s: *mut c_void,
    event: u32,
) {
    // SAFETY: by this function's contract.
    let connection = unsafe { connection(s) };
    assert_eq!(event, 2, "the module says only Connected");
    connection.connected.set(connection.connected.get() + 1);
    let inside = {
        let inside = connection.inside.borrow();
        (inside.ask, inside.read, inside.close, inside.destroy)
    };
    let (ask, read, close, destroy) = inside;
    if ask {
        assert_eq!(connection.ask(), "");
    }
    // Envoy flushes what waited for the connection.
    if !connection.write_buffer.borrow().is_empty() {
        connection.flush();
    }
    if read {
        connection.readable();
    }
    if close || destroy {
        connection.close();
    }
    if destroy {
        connection.destroy();
    }
}

/// # Safety
/// As above.
pub unsafe fn envoy_dynamic_module_callback_transport_socket_should_drain_read_buffer(
    s: *mut c_void,
) -> bool {
    // SAFETY: by this function's contract.
    let connection = unsafe { connection(s) };
    let had = connection.received.borrow().len();
    had >= connection.read_limit.get()
}

/// # Safety
/// As above.
pub unsafe fn envoy_dynamic_module_callback_transport_socket_set_is_readable(s: *mut c_void) {
    // SAFETY: by this function's contract.
    unsafe { connection(s) }.again.set(true);
}
