//! A line to the bus that can lose what the bus says.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, tcp},
    sync::watch,
    task::JoinHandle,
};

/// Forwards connections to the bus.
pub(crate) struct Line {
    pub(crate) address: String,
    deaf: watch::Sender<bool>,
    lost: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Line {
    pub(crate) async fn to(bus: &str) -> Self {
        let bus: SocketAddr = bus.strip_prefix("nats://").unwrap().parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("nats://{}", listener.local_addr().unwrap());
        let (deaf, hears) = watch::channel(false);
        let lost = Arc::new(AtomicU64::new(0));
        let counted = lost.clone();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(bus).await.unwrap();
                let (hears, counted) = (hears.clone(), counted.clone());
                tokio::spawn(carry(client, server, hears, counted));
            }
        });
        Self {
            address,
            deaf,
            lost,
            task,
        }
    }

    /// From here on nothing that the bus says arrives.
    pub(crate) fn lose_answers(&self) {
        self.deaf.send_replace(true);
    }

    /// Ends all connections; new ones are whole.
    pub(crate) fn mend(&self) {
        self.deaf.send_replace(false);
    }

    /// Bytes that did not arrive.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn carry(
    client: TcpStream,
    server: TcpStream,
    hears: watch::Receiver<bool>,
    lost: Arc<AtomicU64>,
) {
    let (mut from_client, to_client) = client.into_split();
    let (from_server, mut to_server) = server.into_split();
    let up = async {
        drop(tokio::io::copy(&mut from_client, &mut to_server).await);
    };
    tokio::select! {
        () = up => {}
        () = down(from_server, to_client, hears, lost) => {}
    }
}

/// Carries what the bus says, until the line was deaf and is mended.
async fn down(
    mut from: tcp::OwnedReadHalf,
    mut to: tcp::OwnedWriteHalf,
    mut hears: watch::Receiver<bool>,
    lost: Arc<AtomicU64>,
) {
    let mut buffer = vec![0; 64 * 1024];
    let mut broken = false;
    loop {
        tokio::select! {
            changed = hears.changed() => {
                if changed.is_err() || (broken && !*hears.borrow()) {
                    return;
                }
            }
            read = from.read(&mut buffer) => match read {
                Ok(0) | Err(_) => return,
                Ok(length) if *hears.borrow() => {
                    broken = true;
                    lost.fetch_add(length as u64, Ordering::Relaxed);
                }
                Ok(length) => {
                    if to.write_all(&buffer[..length]).await.is_err() {
                        return;
                    }
                }
            },
        }
    }
}
