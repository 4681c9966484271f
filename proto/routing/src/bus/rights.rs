//! What ingresses and workers may say and hear on the bus, and whether they may. A question that has no
//! effect is asked for each right: no message is stored, nothing listens, and no job is taken.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_nats::{Client, ConnectOptions, Event, HeaderMap, ServerAddr, header};

use super::{
    BusError, ConnectError, NatsAuth,
    connect::{Peer, as_encrypted_as, refuse_old, refused_by},
};

/// How long the server may take to answer.
const ANSWERS_WITHIN: Duration = Duration::from_secs(3);
/// Subject token that no pool, session, worker or stream has.
const NOBODY: &str = "check";

/// One right, as the server's configuration spells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// May say.
    Publish(&'static str),
    /// May hear; a queue group may follow.
    Subscribe(&'static str),
}

use Right::{Publish, Subscribe};

/// Rights of ingresses.
pub const INGRESS: &[Right] = &[
    Publish("h1.*.s.*.*"),
    Publish("h1.*.place.*"),
    Publish("h1.*.about"),
    Publish("h1.w.*.ctl"),
    Publish("$JS.API.DIRECT.GET.*.$KV.*.*"),
    Publish("$JS.API.DIRECT.GET.*"),
    Publish("$KV.h1_executions.*.*.*"),
    Publish("$JS.API.DIRECT.GET.KV_h1_executions.$KV.h1_executions.*.*.*"),
    Publish("$JS.API.STREAM.MSG.GET.KV_h1_executions"),
    Publish("$JS.API.STREAM.INFO.KV_h1_executions"),
    Publish("$JS.API.STREAM.INFO.KV_h1_fleet"),
    Publish("$JS.API.STREAM.MSG.GET.KV_h1_fleet"),
    Publish("$KV.h1_fleet.key"),
    Publish("$KV.h1_fleet.pools.*"),
    Publish("h1.jobs.*.*"),
    Publish("$JS.API.CONSUMER.INFO.H1_JOBS.*"),
    Subscribe("_INBOX_ingress.>"),
];

/// Rights of workers.
pub const WORKER: &[Right] = &[
    Publish("h1.slots.*.*"),
    Publish("h1.*.s.*.bye"),
    Publish("h1.*.s.*.exec"),
    Publish("h1.*.place.*"),
    Publish("h1.w.*.ctl"),
    Publish("$JS.API.CONSUMER.CREATE.H1_JOBS.>"),
    Publish("$JS.API.CONSUMER.MSG.NEXT.H1_JOBS.*"),
    Publish("$JS.ACK.H1_JOBS.>"),
    Publish("$KV.*.*"),
    Publish("$KV.h1_executions.*.*.*"),
    Publish("$JS.API.STREAM.CREATE.*"),
    Publish("$JS.API.STREAM.UPDATE.*"),
    Publish("$JS.API.STREAM.INFO.*"),
    Publish("$JS.API.STREAM.MSG.GET.*"),
    Publish("$JS.API.STREAM.MSG.DELETE.*"),
    Publish("$JS.API.DIRECT.GET.>"),
    Subscribe("h1.*.s.*.* o"),
    Subscribe("h1.*.place.* place"),
    Subscribe("h1.*.about place"),
    Subscribe("h1.w.*.ctl"),
    Subscribe("h1.w.*.drain"),
    Subscribe("_INBOX_worker.>"),
];

impl Right {
    /// A subject that the right covers and that nobody uses. The inbox is the asker's own already.
    fn subject(self) -> Option<String> {
        let (Publish(pattern) | Subscribe(pattern)) = self;
        let subject = pattern.split(' ').next().unwrap_or(pattern);
        let tokens = subject.split('.').map(|token| match token {
            "*" | ">" => NOBODY,
            other => other,
        });
        (!subject.starts_with("_INBOX")).then(|| tokens.collect::<Vec<_>>().join("."))
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Publish(subject) => write!(f, "publish `{subject}`"),
            Subscribe(subject) => write!(f, "subscribe `{subject}`"),
        }
    }
}

/// Why a process does not have what it needs on the bus.
#[derive(Debug, thiserror::Error)]
pub enum RightsError {
    /// There is no connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// It lacks these rights.
    #[error("the bus does not allow: {}", listed(.0))]
    Missing(Vec<Right>),
}

fn listed(rights: &[Right]) -> String {
    let rights: Vec<_> = rights.iter().map(ToString::to_string).collect();
    rights.join(", ")
}

/// Refuses a process that lacks a right, over a connection of its own. A bus that does not answer now refuses
/// nothing here. `stream` is one that it may ask for.
///
/// # Errors
/// No server can be reached, or a right is missing.
pub async fn demand(
    servers: &[ServerAddr],
    auth: NatsAuth,
    peer: Peer,
    (rights, stream): (&'static [Right], &str),
) -> Result<(), RightsError> {
    let prober = Prober::connect(servers, auth, peer).await?;
    match prober.missing(rights, stream).await {
        Ok(missing) if missing.is_empty() => Ok(()),
        Ok(missing) => Err(RightsError::Missing(missing)),
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "failed to try the rights on the bus");
            Ok(())
        }
    }
}

/// A connection that notes what the server refuses.
#[derive(Debug)]
pub struct Prober {
    client: Client,
    refusals: Arc<Mutex<Vec<String>>>,
}

impl Prober {
    /// Connects, without trying again.
    ///
    /// # Errors
    /// No server can be reached, or it is too old.
    pub async fn connect(
        servers: &[ServerAddr],
        auth: NatsAuth,
        peer: Peer,
    ) -> Result<Self, ConnectError> {
        let refusals = Arc::<Mutex<Vec<String>>>::default();
        let noted = Arc::clone(&refusals);
        let options = ConnectOptions::with_user_and_password(auth.user, auth.password)
            .name(peer.name)
            .custom_inbox_prefix(peer.inbox_prefix)
            .request_timeout(Some(ANSWERS_WITHIN))
            .event_callback(move |event| {
                if let Event::ServerError(error) = event {
                    let mut noted = noted.lock().unwrap_or_else(PoisonError::into_inner);
                    noted.push(error.to_string());
                }
                async {}
            });
        let client = as_encrypted_as(servers, options).connect(servers).await;
        let client = client.map_err(|error| refused_by(servers, error))?;
        refuse_old(&client)?;
        Ok(Self { client, refusals })
    }

    /// The connection.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Which of these rights this process lacks. `stream` is one that it may ask for.
    ///
    /// # Errors
    /// The server does not answer at all.
    pub async fn missing(
        &self,
        rights: &'static [Right],
        stream: &str,
    ) -> Result<Vec<Right>, BusError> {
        for right in rights {
            let Some(subject) = right.subject() else {
                continue;
            };
            match right {
                Publish(_) => self.say(subject).await?,
                Subscribe(pattern) => self.hear(subject, pattern).await?,
            }
        }
        // Its refusals come before the answer to what is asked after them, and by another task, to which a
        // second answer gives time.
        let mut answered = super::clock::time(&self.client, stream).await;
        if answered.is_ok() {
            answered = super::clock::time(&self.client, stream).await;
        }
        let refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        let refused = |right: &&Right| {
            let subject = right.subject().map(|subject| format!("\"{subject}\""));
            subject.is_some_and(|subject| refusals.iter().any(|text| text.contains(&subject)))
        };
        let missing: Vec<_> = rights.iter().filter(refused).copied().collect();
        match answered {
            // The right to ask, or to hear the answer, may be what is missing.
            Err(error) if missing.is_empty() => Err(error),
            _ => Ok(missing),
        }
    }

    async fn say(&self, subject: String) -> Result<(), BusError> {
        let mut headers = HeaderMap::new();
        // A stream that has the subject refuses the message: it has another name.
        headers.insert(header::NATS_EXPECTED_STREAM, NOBODY);
        let sent = self
            .client
            .publish_with_headers(subject, headers, "".into())
            .await;
        sent.map_err(|error| BusError::Send(Box::new(error)))
    }

    async fn hear(&self, subject: String, pattern: &str) -> Result<(), BusError> {
        let heard = match pattern.split_once(' ') {
            Some((_, group)) => self.client.queue_subscribe(subject, group.to_owned()).await,
            None => self.client.subscribe(subject).await,
        };
        heard
            .map(drop)
            .map_err(|error| BusError::Send(Box::new(error)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The quoted texts of a list in the configuration of one user.
    fn granted<'a>(configuration: &'a str, user: &str, list: &str) -> Vec<&'a str> {
        let user = format!("user: \"{user}\"");
        let (_, of_user) = configuration.split_once(&user).unwrap();
        let (_, list) = of_user.split_once(&format!("{list}: [")).unwrap();
        let (list, _) = list.split_once(']').unwrap();
        let lines = list.lines().map(|line| line.split('#').next().unwrap());
        lines
            .flat_map(|line| line.split('"').skip(1).step_by(2))
            .collect()
    }

    #[test]
    fn every_right_of_the_configuration_is_asked_for_and_no_other() {
        let template = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../infra/nats/hearth.conf.template"
        );
        let configuration = std::fs::read_to_string(template).unwrap();
        // Workers are denied one subject that their wildcard covers.
        for (user, published, rights) in
            [("ingress", "publish", INGRESS), ("worker", "allow", WORKER)]
        {
            let publish = rights.iter().filter_map(|right| match right {
                Publish(subject) => Some(*subject),
                Subscribe(_) => None,
            });
            let subscribe = rights.iter().filter_map(|right| match right {
                Publish(_) => None,
                Subscribe(subject) => Some(*subject),
            });
            let publish: Vec<_> = publish.collect();
            let subscribe: Vec<_> = subscribe.collect();
            assert_eq!(publish, granted(&configuration, user, published), "{user}");
            assert_eq!(
                subscribe,
                granted(&configuration, user, "subscribe"),
                "{user}"
            );
        }
    }

    #[test]
    fn what_is_asked_concerns_nobody() {
        let subject = |right: Right| right.subject().unwrap();
        assert_eq!(subject(Subscribe("h1.*.s.*.* o")), "h1.check.s.check.check");
        assert_eq!(
            subject(Publish("$JS.ACK.H1_JOBS.>")),
            "$JS.ACK.H1_JOBS.check"
        );
        assert_eq!(Subscribe("_INBOX_worker.>").subject(), None);
    }
}
