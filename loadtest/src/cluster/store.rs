//! The object store of a stack: a directory, or a server of the S3 protocol with or without a proxy
//! in front of it.

use std::net::SocketAddr;

use anyhow::{Context, Result};

use super::{
    builder::{Entry, Kind, Roll},
    layout::{Layout, Ports},
    member::Member,
    ready::Ready,
};

/// Bucket that everything lies in.
const BUCKET: &str = "hearth";
/// Credentials that the S3 server takes; it takes any.
const CREDENTIAL: &str = "loadtest";

/// What is wanted.
#[derive(Clone, Debug)]
pub(super) enum StoreKind {
    /// A directory of the stack's own.
    Directory,
    /// Somewhere else: URL and environment.
    At(String, Vec<(String, String)>),
    /// A server of the S3 protocol.
    S3,
    /// The same behind a proxy whose decisions follow from this seed.
    ProxiedS3(u64),
}

/// The store as ingresses and workers see it, and the processes behind it.
#[derive(Clone, Debug)]
pub(super) struct Shelf {
    pub(super) url: String,
    pub(super) environment: Vec<(String, String)>,
    server: Option<SocketAddr>,
    proxy: Option<Proxy>,
}

#[derive(Clone, Copy, Debug)]
struct Proxy {
    listen: SocketAddr,
    control: SocketAddr,
    seed: u64,
}

impl Shelf {
    pub(super) fn prepare(kind: StoreKind, layout: &Layout, ports: &mut Ports) -> Result<Self> {
        let (server, proxy) = match kind {
            StoreKind::Directory => {
                let directory = layout.file("store");
                let url = format!("file://{}", directory.display());
                return Ok(Self::elsewhere(url, Vec::new()));
            }
            StoreKind::At(url, environment) => return Ok(Self::elsewhere(url, environment)),
            StoreKind::S3 => (ports.address()?, None),
            StoreKind::ProxiedS3(seed) => {
                let server = ports.address()?;
                let (listen, control) = (ports.address()?, ports.address()?);
                let proxy = Proxy {
                    listen,
                    control,
                    seed,
                };
                (server, Some(proxy))
            }
        };
        let reached = proxy.map_or(server, |proxy| proxy.listen);
        let settings = [
            ("AWS_ACCESS_KEY_ID", CREDENTIAL.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", CREDENTIAL.to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ENDPOINT", format!("http://{reached}")),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
        ];
        Ok(Self {
            url: format!("s3://{BUCKET}"),
            environment: settings
                .map(|(name, value)| (name.to_owned(), value))
                .into(),
            server: Some(server),
            proxy,
        })
    }

    fn elsewhere(url: String, environment: Vec<(String, String)>) -> Self {
        Self {
            url,
            environment,
            server: None,
            proxy: None,
        }
    }

    /// The processes behind it.
    pub(super) fn members(&self, roll: &Roll<'_>) -> Vec<Entry> {
        let server = self.server.map(|address| {
            let (member, port) = (Member::Store, address.port().to_string());
            let arguments = ["-H", "127.0.0.1", "-p", &port].map(Into::into).into();
            Entry {
                member,
                process: roll.process(member, &roll.places.s3_server, arguments),
                ready: Ready::Answers(address, "/moto-api/"),
                kind: Kind::Store,
            }
        });
        let proxy = self.proxy.zip(self.server).map(|(proxy, upstream)| {
            let member = Member::StoreProxy;
            let options = [
                ("--listen", proxy.listen.to_string()),
                ("--upstream", upstream.to_string()),
                ("--control", proxy.control.to_string()),
                ("--seed", proxy.seed.to_string()),
            ];
            let options = options
                .into_iter()
                .flat_map(|(name, value)| [name.into(), value.into()]);
            let arguments = std::iter::once("store-proxy".into()).chain(options);
            Entry {
                member,
                process: roll.process(member, &roll.places.loadtest, arguments.collect()),
                ready: Ready::Answers(proxy.control, "/readyz"),
                kind: Kind::Store,
            }
        });
        server.into_iter().chain(proxy).collect()
    }

    /// Makes the bucket of a server that has just started.
    pub(super) async fn fill(&self) -> Result<()> {
        let Some(server) = self.server else {
            return Ok(());
        };
        let made = reqwest::Client::new()
            .put(format!("http://{server}/{BUCKET}"))
            .send();
        made.await?
            .error_for_status()
            .context("the bucket was not made")
            .map(drop)
    }

    /// The server, and where its proxy listens.
    pub(super) fn addresses(&self) -> Result<(SocketAddr, SocketAddr)> {
        let both = self.server.zip(self.proxy);
        let (server, proxy) = both.context("the object store has no proxy")?;
        Ok((server, proxy.listen))
    }

    /// Where the proxy takes orders.
    pub(super) fn control(&self) -> Result<SocketAddr> {
        let proxy = self.proxy.context("the object store has no proxy")?;
        Ok(proxy.control)
    }
}
