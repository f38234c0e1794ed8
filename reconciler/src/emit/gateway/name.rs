//! Names that say what an object reaches.

use adit_api::{ResourceExt as _, networking::HttpProxy};
use sha2::{Digest as _, Sha256};

use super::{
    Part, Setting,
    route::{self, Forward},
};

/// A name is also a label's value somewhere, and that has 63 characters.
const MAX_NAME: usize = 63;
/// Hexadecimal digits of the hash in a name: 40 bits, among the few routes of
/// one HTTPProxy (its UID is hashed too).
const HASH_DIGITS: usize = 10;
/// A rule's name in a route's name; a longer one is cut, the hash tells.
const MAX_ID: usize = 20;
/// Hexadecimal digits for a rule without a name.
const ID_DIGITS: usize = 6;

/// Everything that is fed has its length before it, so no two lists of parts
/// give the same input.
struct Hash(Sha256);

/// `<proxy>-<rule>-<hash>`. The hash is over all that decides which requests
/// go where: a change of it is another route beside this one.
pub(super) fn of_route(
    proxy: &HttpProxy,
    part: &Part<'_>,
    forward: &Forward<'_>,
    setting: &Setting,
) -> String {
    let matches = matches(part);
    let rule = proxy.spec.rules.get(part.rule);
    let whole = rule.is_some_and(|r| r.matches.len().max(1) == part.routes.len());
    let given = rule.and_then(|r| r.name.as_deref()).filter(|_| whole);
    let id = match given {
        Some(name) => cut(&name.replace('.', "-"), MAX_ID),
        None => hex(&matches, ID_DIGITS),
    };
    let mut hash = Hash::new();
    hash.text(proxy.metadata.uid.as_deref().unwrap_or_default());
    hash.text(&setting.gateway.namespace);
    hash.text(&setting.gateway.name);
    hash.text(&setting.patch_target.kind);
    hash.text(&setting.patch_target.name);
    hash.text(given.unwrap_or_default());
    hash.bytes(&matches);
    for hostname in &part.hostnames {
        hash.text(hostname);
    }
    hash.text(forward.kind());
    for backend in &forward.backends {
        // A cluster's own name is made from what it reaches.
        hash.text(backend.cluster.name().as_str());
    }
    let hash = hex(&hash.finish(), HASH_DIGITS);
    let rest = id.len() + hash.len() + 2;
    let proxy = cut(&proxy.name_any().replace('.', "-"), MAX_NAME - rest);
    format!("{proxy}-{id}-{hash}")
}

/// The Backend of a route's k-th backend.
pub(super) fn backend(route: &str, k: usize) -> String {
    format!("{route}-{k}")
}

/// The policy of a route: its name, unless the policy is in another
/// namespace, where routes of several namespaces meet.
pub(super) fn patch(namespace: &str, route: &str, gateway_namespace: &str) -> String {
    if namespace == gateway_namespace {
        return route.to_owned();
    }
    let name = format!("{namespace}-{route}");
    // `a-b` + `c` and `a` + `b-c` give the same name; the route's hash is over
    // its HTTPProxy's UID, so there are no two such routes.
    if name.len() <= MAX_NAME {
        return name;
    }
    let hash = hex(&Sha256::digest(name.as_bytes()), HASH_DIGITS);
    format!("{}-{hash}", cut(&name, MAX_NAME - HASH_DIGITS - 1))
}

/// The cluster that Envoy Gateway makes for the k-th backend of a route with
/// one rule, when each backend has a filter.
pub(super) fn cluster(namespace: &str, route: &str, k: usize) -> String {
    format!("httproute/{namespace}/{route}/rule/0/backend/{k}")
}

/// The first `digits` hexadecimal digits.
pub(super) fn hex(bytes: &[u8], digits: usize) -> String {
    let mut text = data_encoding::HEXLOWER.encode(bytes);
    text.truncate(digits);
    text
}

/// At most `max` bytes that do not end with a hyphen.
pub(super) fn cut(text: &str, max: usize) -> String {
    let mut end = max.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].trim_end_matches('-').to_owned()
}

/// In Gateway API's own form, whose field names never change.
fn matches(part: &Part<'_>) -> [u8; 32] {
    let mut hash = Hash::new();
    for m in route::matches(part) {
        hash.bytes(&serde_json::to_vec(&m).unwrap_or_default());
    }
    hash.finish()
}

impl Hash {
    fn new() -> Self {
        Self(Sha256::new())
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_be_bytes());
        self.0.update(bytes);
    }

    fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    fn finish(self) -> [u8; 32] {
        self.0.finalize().into()
    }
}
