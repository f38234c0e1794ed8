//! A gRPC service written by hand, so that nobody needs protoc: unary and
//! bidirectional echo, with trailers of its own and errors on request.

use std::pin::Pin;

use axum::{body::Body, extract::Request, response::Response};
use futures_util::{Stream, StreamExt};
use tonic::{
    Status, Streaming,
    codegen::BoxFuture,
    server::{Grpc, StreamingService, UnaryService},
};
use tonic_prost::ProstCodec;

/// The one message, both ways.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Note {
    /// Any text; `fail` asks the service for a failure.
    #[prost(string, tag = "1")]
    pub text: String,
    /// A number to tell messages apart.
    #[prost(uint64, tag = "2")]
    pub number: u64,
}

/// The path of the unary method.
pub const UNARY: &str = "/adit.test.Echo/Unary";
/// The path of the bidirectional streaming method.
pub const CHAT: &str = "/adit.test.Echo/Chat";
/// What a failed call says; it travels in a trailer.
pub const FAILURE: &str = "asked to fail";

/// Answers a gRPC request.
pub async fn serve(request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let mut grpc = Grpc::new(ProstCodec::<Note, Note>::default());
    let response = match path.as_str() {
        UNARY => grpc.unary(Unary, request).await,
        CHAT => grpc.streaming(Chat, request).await,
        _ => return Status::unimplemented("no such method").into_http(),
    };
    response.map(Body::new)
}

struct Unary;

impl UnaryService<Note> for Unary {
    type Response = Note;
    type Future = BoxFuture<tonic::Response<Note>, Status>;

    fn call(&mut self, request: tonic::Request<Note>) -> Self::Future {
        Box::pin(async move {
            let note = request.into_inner();
            if note.text == "fail" {
                return Err(Status::failed_precondition(FAILURE));
            }
            Ok(tonic::Response::new(note))
        })
    }
}

struct Chat;

type Notes = Pin<Box<dyn Stream<Item = Result<Note, Status>> + Send>>;

impl StreamingService<Note> for Chat {
    type Response = Note;
    type ResponseStream = Notes;
    type Future = BoxFuture<tonic::Response<Notes>, Status>;

    fn call(&mut self, request: tonic::Request<Streaming<Note>>) -> Self::Future {
        Box::pin(async move {
            let answers = request.into_inner().map(|note| {
                let note = note?;
                if note.text == "fail" {
                    return Err(Status::failed_precondition(FAILURE));
                }
                Ok(note)
            });
            let answers: Notes = Box::pin(answers);
            Ok(tonic::Response::new(answers))
        })
    }
}
