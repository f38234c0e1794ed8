//! The client side of [`crate::services::grpc`].

use std::net::SocketAddr;

use anyhow::Result;
use futures_util::Stream;
use http::uri::PathAndQuery;
use tonic::{Request, Response, Status, Streaming, client::Grpc, transport::Channel};
use tonic_prost::ProstCodec;

use super::PATIENCE;
use crate::services::grpc::{CHAT, Note, UNARY};

/// A gRPC connection to Envoy.
pub struct Client {
    grpc: Grpc<Channel>,
}

impl Client {
    /// Connects; calls carry this host as `:authority`.
    pub async fn connect(addr: SocketAddr, host: &str) -> Result<Self> {
        let channel = Channel::from_shared(format!("http://{addr}"))?
            .origin(format!("http://{host}").parse()?)
            .timeout(PATIENCE)
            .connect()
            .await?;
        Ok(Self {
            grpc: Grpc::new(channel),
        })
    }

    /// The unary call.
    pub async fn unary(&mut self, note: Note) -> Result<Response<Note>, Status> {
        self.ready().await?;
        self.grpc
            .unary(
                Request::new(note),
                PathAndQuery::from_static(UNARY),
                ProstCodec::<Note, Note>::default(),
            )
            .await
    }

    /// The bidirectional streaming call.
    pub async fn chat(
        &mut self,
        notes: impl Stream<Item = Note> + Send + 'static,
    ) -> Result<Response<Streaming<Note>>, Status> {
        self.ready().await?;
        self.grpc
            .streaming(
                Request::new(notes),
                PathAndQuery::from_static(CHAT),
                ProstCodec::<Note, Note>::default(),
            )
            .await
    }

    async fn ready(&mut self) -> Result<(), Status> {
        let ready = self.grpc.ready().await;
        ready.map_err(|error| Status::unknown(format!("the channel: {error}")))
    }
}
