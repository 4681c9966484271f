//! `loadtest store-proxy`: a reverse proxy in front of a real object store that on command fails
//! requests, delays them, resets their connections or lets them hang. Which requests it hits follows
//! from a seed and the order of requests. What passes, passes untouched.

mod control;
mod trouble;
mod upstream;

use std::{
    net::SocketAddr,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use anyhow::Result;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::{Method, Request, Response, StatusCode, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use rustix::net::sockopt::set_socket_linger;
use tokio::net::{TcpListener, TcpStream};

pub use control::order;
pub use trouble::{Fate, Trouble};

use self::{
    control::Orders,
    upstream::{Cut, Upstream},
};

/// Where to listen and what to stand before.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Where the store's clients connect.
    #[arg(long)]
    pub listen: SocketAddr,
    /// The store.
    #[arg(long)]
    pub upstream: SocketAddr,
    /// Where orders come in: `POST /trouble` with a [`Trouble`], `GET /readyz`.
    #[arg(long)]
    pub control: SocketAddr,
    /// Decides which requests trouble hits.
    #[arg(long)]
    pub seed: u64,
}

type AnyError = Box<dyn std::error::Error + Send + Sync>;
type Body = UnsyncBoxBody<Bytes, AnyError>;

/// The connection is to be reset instead of the request being answered.
#[derive(Debug, thiserror::Error)]
#[error("the connection is reset on purpose")]
struct OnPurpose;

/// Serves for ever.
///
/// # Errors
/// An address is taken.
pub async fn run(options: &Options) -> Result<()> {
    let orders = Arc::new(Orders::new(options.seed));
    let control = TcpListener::bind(options.control).await?;
    let listener = TcpListener::bind(options.listen).await?;
    let controlled = control::serve(control, orders.clone());
    tokio::select! {
        ended = controlled => ended,
        ended = proxy(listener, options.upstream, orders) => ended,
    }
}

async fn proxy(listener: TcpListener, upstream: SocketAddr, orders: Arc<Orders>) -> Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        let connection = connection(stream, upstream, orders.clone());
        tokio::spawn(async move {
            // Broken connections are what this is for.
            drop(connection.await);
        });
    }
}

async fn connection(stream: TcpStream, upstream: SocketAddr, orders: Arc<Orders>) -> Result<()> {
    stream.set_nodelay(true)?;
    let client = Arc::new(Client(stream.as_fd().try_clone_to_owned()?));
    let upstream = Arc::new(Upstream::new(upstream));
    let answer = service_fn(move |request| {
        answer(request, client.clone(), upstream.clone(), orders.clone())
    });
    let server = hyper::server::conn::http1::Builder::new();
    Ok(server
        .serve_connection(TokioIo::new(stream), answer)
        .await?)
}

/// A client's connection, to be reset.
#[derive(Debug)]
struct Client(OwnedFd);

impl Client {
    /// Lets the connection's coming end be a reset: what is not sent yet is thrown away.
    fn reset(&self) -> OnPurpose {
        // Without the option the connection ends in order, which is trouble enough.
        set_socket_linger(&self.0, Some(Duration::ZERO)).ok();
        OnPurpose
    }
}

async fn answer(
    request: Request<Incoming>,
    client: Arc<Client>,
    upstream: Arc<Upstream>,
    orders: Arc<Orders>,
) -> Result<Response<Body>, AnyError> {
    let fate = orders.next();
    match fate {
        Fate::Refuse => return Ok(failure()),
        Fate::Reset => return Err(client.reset().into()),
        Fate::Delay(time) => tokio::time::sleep(time).await,
        Fate::Stall => {
            orders.trouble_is_over().await;
            return Err(client.reset().into());
        }
        Fate::Pass | Fate::Forget | Fate::Cut => {}
    }
    let reads = request.method() == Method::GET;
    let Ok(response) = upstream.send(request).await else {
        // As if the store itself were not there.
        return Err(client.reset().into());
    };
    match fate {
        Fate::Forget => {
            // The store has done it all before anybody hears of a failure.
            drop(response.collect().await);
            Ok(failure())
        }
        Fate::Cut if reads => Ok(response.map(|body| Cut::half(body, client).boxed_unsync())),
        Fate::Cut => {
            drop(response.collect().await);
            Err(client.reset().into())
        }
        Fate::Pass | Fate::Delay(_) | Fate::Refuse | Fate::Reset | Fate::Stall => {
            Ok(response.map(|body| body.map_err(AnyError::from).boxed_unsync()))
        }
    }
}

/// What S3 says when it fails.
fn failure() -> Response<Body> {
    const WORDS: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error>\
        <Code>InternalError</Code><Message>Please try again.</Message></Error>";
    let body = Full::new(Bytes::from_static(WORDS.as_bytes()));
    let mut response = Response::new(body.map_err(AnyError::from).boxed_unsync());
    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    response
}
