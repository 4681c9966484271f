//! The proxy's side towards the store.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use anyhow::Result;
use bytes::Bytes;
use hyper::{
    Request, Response,
    body::{Body, Frame, Incoming},
    client::conn::http1::{SendRequest, handshake},
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, sync::Mutex};

use super::{AnyError, Client};

/// One connection to the store, made when it is needed.
#[derive(Debug)]
pub(super) struct Upstream {
    address: SocketAddr,
    sender: Mutex<Option<SendRequest<Incoming>>>,
}

impl Upstream {
    pub(super) fn new(address: SocketAddr) -> Self {
        let sender = Mutex::new(None);
        Self { address, sender }
    }

    /// Passes a request on as it is.
    pub(super) async fn send(&self, request: Request<Incoming>) -> Result<Response<Incoming>> {
        let mut kept = self.sender.lock().await;
        let mut sender = match kept.take() {
            Some(sender) if !sender.is_closed() => sender,
            _ => self.connect().await?,
        };
        sender.ready().await?;
        let response = sender.send_request(request).await?;
        *kept = Some(sender);
        Ok(response)
    }

    async fn connect(&self) -> Result<SendRequest<Incoming>> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(async move {
            // Whoever sends a request hears of it.
            drop(connection.await);
        });
        Ok(sender)
    }
}

/// A body that ends in a reset after its first half.
#[derive(Debug)]
pub(super) struct Cut {
    body: Incoming,
    left: u64,
    client: Arc<Client>,
}

impl Cut {
    pub(super) fn half(body: Incoming, client: Arc<Client>) -> Self {
        let left = body.size_hint().lower() / 2;
        Self { body, left, client }
    }
}

impl Body for Cut {
    type Data = Bytes;
    type Error = AnyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, AnyError>>> {
        if self.left == 0 {
            return Poll::Ready(Some(Err(self.client.reset().into())));
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        Poll::Ready(frame.map(|frame| {
            let mut data = frame?.into_data().unwrap_or_default();
            data.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
            self.left -= data.len() as u64;
            Ok(Frame::data(data))
        }))
    }

    /// Announces the whole, so that the reader can tell that it is cut.
    fn size_hint(&self) -> hyper::body::SizeHint {
        self.body.size_hint()
    }
}
