//! The protobuf messages on the wire. Their meaning, limits and validation are
//! in the modules that convert from and to them; unknown fields are skipped,
//! so that module and dialer can be upgraded apart.

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Target {
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub connectors: Vec<Vec<u8>>,
    #[prost(string, tag = "2")]
    pub host: String,
    #[prost(uint32, tag = "3")]
    pub port: u32,
    /// Absent: plain TCP.
    #[prost(message, optional, tag = "4")]
    pub tls: Option<Tls>,
    #[prost(uint32, tag = "5")]
    pub deadline_ms: u32,
    #[prost(string, tag = "6")]
    pub name: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Tls {
    #[prost(string, tag = "1")]
    pub server_name: String,
    #[prost(string, tag = "2")]
    pub ca: String,
    #[prost(string, repeated, tag = "3")]
    pub alpn: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Verdict {
    #[prost(oneof = "Outcome", tags = "1, 2")]
    pub outcome: Option<Outcome>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum Outcome {
    #[prost(message, tag = "1")]
    Connected(Connected),
    #[prost(message, tag = "2")]
    Refusal(Refusal),
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Connected {
    #[prost(bytes = "vec", tag = "1")]
    pub endpoint_id: Vec<u8>,
    #[prost(bool, tag = "2")]
    pub relay: bool,
    #[prost(uint32, tag = "3")]
    pub rtt_us: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Refusal {
    #[prost(string, tag = "1")]
    pub class: String,
    #[prost(string, tag = "2")]
    pub text: String,
}
