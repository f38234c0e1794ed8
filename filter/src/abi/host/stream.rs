//! The host's HTTP streams.

mod callbacks;

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    ffi::c_void,
    rc::Rc,
};

use super::{super::raw::Buffer, copied, hook};

pub use callbacks::*;

unsafe extern "C" {
    fn envoy_dynamic_module_on_http_filter_config_new(
        envoy: *mut c_void,
        name: Buffer,
        config: Buffer,
    ) -> *const c_void;
    fn envoy_dynamic_module_on_http_filter_config_destroy(config: *const c_void);
    fn envoy_dynamic_module_on_http_filter_per_route_config_new(
        name: Buffer,
        config: Buffer,
    ) -> *const c_void;
    fn envoy_dynamic_module_on_http_filter_per_route_config_destroy(config: *const c_void);
    fn envoy_dynamic_module_on_http_filter_new(
        config: *const c_void,
        envoy: *mut c_void,
    ) -> *const c_void;
    fn envoy_dynamic_module_on_http_filter_destroy(filter: *const c_void);
    fn envoy_dynamic_module_on_http_filter_request_headers(
        envoy: *mut c_void,
        filter: *const c_void,
        end: bool,
    ) -> u32;
    fn envoy_dynamic_module_on_http_filter_request_body(
        envoy: *mut c_void,
        filter: *const c_void,
        end: bool,
    ) -> u32;
    fn envoy_dynamic_module_on_http_filter_request_trailers(
        envoy: *mut c_void,
        filter: *const c_void,
    ) -> u32;
    fn envoy_dynamic_module_on_http_filter_response_headers(
        envoy: *mut c_void,
        filter: *const c_void,
        end: bool,
    ) -> u32;
    fn envoy_dynamic_module_on_http_filter_response_body(
        envoy: *mut c_void,
        filter: *const c_void,
        end: bool,
    ) -> u32;
    fn envoy_dynamic_module_on_http_filter_response_trailers(
        envoy: *mut c_void,
        filter: *const c_void,
    ) -> u32;
    fn envoy_dynamic_module_on_http_filter_local_reply(
        envoy: *mut c_void,
        filter: *const c_void,
        code: u32,
        details: Buffer,
        reset_imminent: bool,
    ) -> u32;
    fn envoy_dynamic_module_on_http_filter_stream_complete(
        envoy: *mut c_void,
        filter: *const c_void,
    );
}

/// The filter's configuration, or a route's.
pub struct FilterConfig {
    module: *const c_void,
    destroy: unsafe extern "C" fn(*const c_void),
}

type Texts = Vec<(Box<[u8]>, Box<[u8]>)>;

/// An HTTP stream.
pub struct Stream {
    module: Cell<*const c_void>,
    route: Cell<*const c_void>,
    /// Request headers, request trailers, response headers, response trailers.
    maps: [RefCell<Texts>; 4],
    /// By source, namespace and key: what the configuration says.
    metadata: RefCell<BTreeMap<(u32, String, String), Value>>,
    /// What the module has set.
    pub dynamic: RefCell<BTreeMap<String, String>>,
    /// The piece of the response's body that a hook is called with.
    pub body: RefCell<Vec<u8>>,
    /// The replies that the module has sent: status, details, body.
    pub replies: RefCell<Vec<(u32, String, String)>>,
    /// With which details the module has reset it.
    pub resets: RefCell<Vec<String>>,
    /// How often the counter was raised, by label.
    pub counted: RefCell<BTreeMap<String, u64>>,
    /// Whether the object is given back inside `send_response` and
    /// `reset_stream`, as Envoy does when they end the stream.
    pub destroy_inside: Cell<bool>,
}

/// A value in metadata.
#[derive(Clone)]
pub enum Value {
    /// A text.
    Text(Box<[u8]>),
    /// A number.
    Number(f64),
    /// A truth value.
    Bool(bool),
}

impl FilterConfig {
    /// The filter's.
    pub fn new(config: &str) -> Option<Self> {
        // SAFETY: the buffers are valid for the call.
        let module = hook(|| unsafe {
            envoy_dynamic_module_on_http_filter_config_new(
                std::ptr::dangling_mut(),
                Buffer::lend(b"adit"),
                Buffer::lend(config.as_bytes()),
            )
        });
        let destroy = envoy_dynamic_module_on_http_filter_config_destroy;
        (!module.is_null()).then(|| Self { module, destroy })
    }

    /// A route's.
    pub fn of_route(config: &str) -> Option<Self> {
        // SAFETY: the buffers are valid for the call.
        let module = hook(|| unsafe {
            envoy_dynamic_module_on_http_filter_per_route_config_new(
                Buffer::lend(b"adit"),
                Buffer::lend(config.as_bytes()),
            )
        });
        let destroy = envoy_dynamic_module_on_http_filter_per_route_config_destroy;
        (!module.is_null()).then(|| Self { module, destroy })
    }
}

impl Drop for FilterConfig {
    fn drop(&mut self) {
        // SAFETY: from the matching `…_new`, given back once.
        hook(|| unsafe { (self.destroy)(self.module) });
    }
}

impl Stream {
    /// A stream with these request headers.
    pub fn new(config: &FilterConfig, request: &[(&str, &str)]) -> Rc<Self> {
        let stream = Rc::new(Self {
            module: Cell::new(std::ptr::null()),
            route: Cell::new(std::ptr::null()),
            maps: Default::default(),
            metadata: RefCell::default(),
            dynamic: RefCell::default(),
            body: RefCell::default(),
            replies: RefCell::default(),
            resets: RefCell::default(),
            counted: RefCell::default(),
            destroy_inside: Cell::new(true),
        });
        stream.fill(0, request);
        // SAFETY: the configuration lives; the handle lives as long as the object.
        let module = hook(|| unsafe {
            envoy_dynamic_module_on_http_filter_new(config.module, stream.handle())
        });
        assert!(!module.is_null());
        stream.module.set(module);
        stream
    }

    /// Fills one of the maps anew.
    pub fn fill(&self, map: usize, headers: &[(&str, &str)]) {
        let bytes = |text: &str| Box::from(text.as_bytes());
        let texts = headers.iter().map(|(k, v)| (bytes(k), bytes(v)));
        *self.maps[map].borrow_mut() = texts.collect();
    }

    /// One of a map's values.
    pub fn header(&self, map: usize, name: &str) -> Option<String> {
        let map = self.maps[map].borrow();
        let found = map.iter().find(|(key, _)| **key == *name.as_bytes());
        found.map(|(_, value)| String::from_utf8_lossy(value).into_owned())
    }

    /// Says something of the route (1) or its cluster (2).
    pub fn declare(&self, source: u32, key: &str, value: Value) {
        let place = (source, "adit".to_owned(), key.to_owned());
        self.metadata.borrow_mut().insert(place, value);
    }

    /// What a target needs.
    pub fn declare_target(&self, source: u32, nodes: &str) {
        let text = |text: &str| Value::Text(text.as_bytes().into());
        self.declare(source, "datum-node-id", text(nodes));
        self.declare(source, "datum-target-host", text("127.0.0.1"));
        self.declare(source, "datum-target-port", Value::Number(8080.0));
        self.declare(source, "name", text("default/shop"));
    }

    /// The route has a configuration of its own.
    pub fn take_route(&self, route: &FilterConfig) {
        self.route.set(route.module);
    }

    fn handle(&self) -> *mut c_void {
        std::ptr::from_ref(self).cast_mut().cast()
    }

    /// Whether the module's object is still there.
    pub fn lives(&self) -> bool {
        !self.module.get().is_null()
    }

    /// The request's headers come.
    pub fn request_headers(&self) -> Option<u32> {
        // SAFETY: handle and module are each other's; so in every hook below.
        self.on(|h, m| unsafe { envoy_dynamic_module_on_http_filter_request_headers(h, m, false) })
    }

    /// A piece of the request's body comes.
    pub fn request_body(&self) -> Option<u32> {
        // SAFETY: as above.
        self.on(|h, m| unsafe { envoy_dynamic_module_on_http_filter_request_body(h, m, true) })
    }

    /// The request's trailers come.
    pub fn request_trailers(&self) -> Option<u32> {
        // SAFETY: as above.
        self.on(|h, m| unsafe { envoy_dynamic_module_on_http_filter_request_trailers(h, m) })
    }

    /// The response's headers come.
    pub fn response_headers(&self, end: bool) -> Option<u32> {
        // SAFETY: as above.
        self.on(|h, m| unsafe { envoy_dynamic_module_on_http_filter_response_headers(h, m, end) })
    }

    /// A piece of the response's body comes.
    pub fn response_body(&self, piece: &[u8], end: bool) -> Option<u32> {
        *self.body.borrow_mut() = piece.to_vec();
        // SAFETY: as above.
        self.on(|h, m| unsafe { envoy_dynamic_module_on_http_filter_response_body(h, m, end) })
    }

    /// The response's trailers come.
    pub fn response_trailers(&self) -> Option<u32> {
        // SAFETY: as above.
        self.on(|h, m| unsafe { envoy_dynamic_module_on_http_filter_response_trailers(h, m) })
    }

    /// Envoy is about to answer by itself.
    pub fn local_reply(&self, details: &str) -> Option<u32> {
        // The text is gone after the call, and shows if it is kept.
        let mut details = Box::<[u8]>::from(details.as_bytes());
        // SAFETY: as above, and the buffer is valid for the call.
        let result = self.on(|h, m| unsafe {
            envoy_dynamic_module_on_http_filter_local_reply(
                h,
                m,
                503,
                Buffer::lend(&details),
                false,
            )
        });
        details.fill(b'#');
        result
    }

    /// The stream is over, and the object is given back.
    pub fn end(&self) {
        // SAFETY: as above.
        self.on(|h, m| unsafe { envoy_dynamic_module_on_http_filter_stream_complete(h, m) });
        let module = self.module.replace(std::ptr::null());
        if !module.is_null() {
            // SAFETY: from `filter_new`, given back once.
            hook(|| unsafe { envoy_dynamic_module_on_http_filter_destroy(module) });
        }
    }

    /// A hook, if the object is still there.
    fn on<T>(&self, call: impl FnOnce(*mut c_void, *const c_void) -> T) -> Option<T> {
        let module = self.module.get();
        (!module.is_null()).then(|| hook(|| call(self.handle(), module)))
    }

    /// Whatever was lent is somewhere else now, and wrong where it was.
    fn move_texts(&self) {
        for map in &self.maps {
            for (key, value) in map.borrow_mut().iter_mut() {
                move_text(key);
                move_text(value);
            }
        }
        for value in self.metadata.borrow_mut().values_mut() {
            if let Value::Text(text) = value {
                move_text(text);
            }
        }
    }

    fn value(&self, source: u32, ns: Buffer, key: Buffer) -> Option<Value> {
        // SAFETY: the buffers are valid for the call.
        let (ns, key) = unsafe { (copied(ns), copied(key)) };
        let text = |bytes| String::from_utf8(bytes).expect("text");
        let place = (source, text(ns), text(key));
        self.metadata.borrow().get(&place).cloned()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.end();
    }
}

fn move_text(text: &mut Box<[u8]>) {
    let moved = text.clone();
    text.fill(b'#');
    *text = moved;
}
