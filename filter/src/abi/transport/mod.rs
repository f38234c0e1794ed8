//! The transport socket's hooks; what they may do is in [`envoy`].

mod envoy;

use std::{ffi::c_void, rc::Rc, sync::Arc};

use super::{
    guard::guarded,
    raw::{Buffer, IoResult},
};
use crate::transport::{Factory, Next, Socket};

pub use envoy::{Envoy, Written};

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
    let module = module.cast::<Socket>();
    if module.is_null() {
        return fallback;
    }
    // Kept until the hook is over: the socket may be given back inside a
    // callback of it.
    // SAFETY: `module` came from `socket_new` below and is not yet destroyed;
    // it never leaves the one thread it lives on. The count is raised first, so
    // that the reference Envoy holds stays Envoy's.
    let (socket, envoy) = unsafe {
        Rc::increment_strong_count(module);
        (Rc::from_raw(module), Envoy::new(envoy))
    };
    let (socket, Some(envoy)) = (&*socket, envoy) else {
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
        Rc::into_raw(Rc::new(Socket::new(factory))).cast()
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn envoy_dynamic_module_on_transport_socket_destroy(socket: *const c_void) {
    guarded(
        "transport_destroy",
        || (),
        // SAFETY: from `socket_new`, and Envoy gives it back once.
        || drop(unsafe { Rc::from_raw(socket.cast::<Socket>()) }),
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
