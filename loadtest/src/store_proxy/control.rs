//! Orders to the proxy.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, Response, StatusCode, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, sync::watch};

use super::trouble::{Fate, Trouble};

/// The trouble to make now, and which request is next.
#[derive(Debug)]
pub(super) struct Orders {
    seed: u64,
    next: AtomicU64,
    trouble: watch::Sender<Trouble>,
}

impl Orders {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            seed,
            next: AtomicU64::new(0),
            trouble: watch::Sender::new(Trouble::default()),
        }
    }

    /// What happens to the next request.
    pub(super) fn next(&self) -> Fate {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let trouble = *self.trouble.borrow();
        trouble.fate(self.seed, number)
    }

    /// Returns when another order has come.
    pub(super) async fn trouble_is_over(&self) {
        // The sender is this value, so there always is one.
        drop(self.trouble.subscribe().changed().await);
    }

    async fn obey(&self, request: Request<Incoming>) -> StatusCode {
        match (request.method(), request.uri().path()) {
            (&Method::GET, "/readyz") => StatusCode::OK,
            (&Method::POST, "/trouble") => {
                let body = request
                    .into_body()
                    .collect()
                    .await
                    .map(|body| body.to_bytes());
                match body.map(|body| serde_json::from_slice(&body)) {
                    Ok(Ok(trouble)) => {
                        self.trouble.send_replace(trouble);
                        StatusCode::OK
                    }
                    _ => StatusCode::BAD_REQUEST,
                }
            }
            _ => StatusCode::NOT_FOUND,
        }
    }
}

/// Takes orders for ever.
pub(super) async fn serve(listener: TcpListener, orders: Arc<Orders>) -> Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        let orders = orders.clone();
        let obey = service_fn(move |request| {
            let orders = orders.clone();
            async move {
                let mut response = Response::new(Full::<Bytes>::default());
                *response.status_mut() = orders.obey(request).await;
                Ok::<_, std::convert::Infallible>(response)
            }
        });
        tokio::spawn(async move {
            let server = hyper::server::conn::http1::Builder::new();
            // Whoever gives orders hears by itself that a connection broke.
            drop(server.serve_connection(TokioIo::new(stream), obey).await);
        });
    }
}

/// Tells the proxy whose control address this is which trouble to make from now on.
///
/// # Errors
/// It does not answer.
pub async fn order(control: SocketAddr, trouble: Trouble) -> Result<()> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    let request = client
        .post(format!("http://{control}/trouble"))
        .json(&trouble);
    let answer = request
        .send()
        .await
        .context("the store's proxy does not answer")?;
    answer.error_for_status()?;
    Ok(())
}
