//! The stage for the end-to-end tests and the demo: real Envoy, real child
//! processes, everything on loopback and under a temporary directory.
//!
//! ```text
//! client ──► envoy ──► dialer ──► (relay) ──► connector ──► services
//!            └── adit run ──┘                └ adit connector
//! ```
//!
//! [`client`] sends, [`services`] keep what they got, [`relay`] and [`dns`] stand
//! in for the network, [`gateway`] and [`connector`] are the product's processes.

pub mod admin;
pub mod bare;
pub mod bare_stage;
pub mod binaries;
pub mod book;
pub mod client;
pub mod collector;
pub mod connector;
pub mod debian;
pub mod dns;
pub mod envoy;
pub mod fake_connector;
pub mod filter_stage;
pub mod fixture;
pub mod gateway;
pub mod helm;
pub mod keys;
pub mod kube;
pub mod manifests;
pub mod name_server;
pub mod observed;
pub mod pattern;
#[path = "../../xtask/src/places.rs"]
mod places;
pub mod process;
pub mod prometheus;
pub mod promql;
pub mod relay;
pub mod services;
pub mod stage;

/// Fails the test with the whole chain of causes, and without the backtrace of
/// where they were put together.
pub fn expect_ok(result: anyhow::Result<()>) {
    if let Err(error) = result {
        panic!("{error:#}");
    }
}

/// Makes a test for each supported Envoy from
/// `async fn name(version: &str) -> anyhow::Result<()>`.
#[macro_export]
macro_rules! on_each_envoy {
    ($($name:ident),* $(,)?) => {$(
        mod $name {
            #[tokio::test(flavor = "multi_thread")]
            async fn envoy_1_39() {
                $crate::expect_ok(super::$name("1.39.3").await);
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn envoy_1_40() {
                $crate::expect_ok(super::$name("1.40.0").await);
            }
        }
    )*};
}

/// Makes a test from each `async fn name() -> anyhow::Result<()>` that asks for
/// a [`kube::ControlPlane`] itself.
#[macro_export]
macro_rules! on_an_api_server {
    ($($name:ident),* $(,)?) => {
        mod on_an_api_server {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $name() {
                    $crate::expect_ok(super::$name().await);
                }
            )*
        }
    };
}

/// Makes a test on the shared [`kube::Stack`] from each
/// `async fn name(stack: &Stack) -> anyhow::Result<()>`.
#[macro_export]
macro_rules! on_the_stack {
    ($($name:ident),* $(,)?) => {
        mod on_the_stack {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $name() {
                    $crate::expect_ok(
                        $crate::kube::Stack::run(async |stack| super::$name(stack).await).await,
                    );
                }
            )*
        }
    };
}
