//! What the session image holds: found out once at start, in a sandbox, told to whoever asks.

use std::sync::Arc;

use async_nats::Client;
use futures_util::StreamExt;
use proto::{
    about::{About, Kernel as KernelSoftware, Software},
    execution::Language,
    id::PoolId,
    message::Answer,
    pool::Pool,
    subject,
};
use serde::Deserialize;

use crate::{
    bus::{Outbox, Responder},
    kernel::{CellEnd, Kernel, Program},
};

/// The question, in the image's own language.
const QUESTION: &str = include_str!("image.py");
/// Longest answer, in bytes.
const ANSWER_BYTES: u64 = 256 * 1024;

/// What the image holds, whatever the pool.
#[derive(Clone, Debug, Deserialize)]
pub struct Image {
    python: String,
    bash: String,
    packages: Vec<(String, String)>,
    kernel: (String, String, String, String),
}

/// The image did not tell.
#[derive(Debug, thiserror::Error)]
pub enum AboutError {
    /// The interpreter ended, or the question raised something.
    #[error("the question ended with {0:?}")]
    End(CellEnd),
    /// The answer is not what it should be.
    #[error("failed to read the answer")]
    Answer(#[from] serde_json::Error),
}

impl Image {
    /// Asks a fresh interpreter, which no session may use afterwards.
    ///
    /// # Errors
    /// It does not tell.
    pub async fn ask(mut kernel: Kernel) -> Result<Self, AboutError> {
        let cell = kernel.run(&Program::plain(QUESTION, ANSWER_BYTES)).await;
        match cell.end {
            CellEnd::Done { error: None, .. } => Ok(serde_json::from_str(&cell.stdout)?),
            end => Err(AboutError::End(end)),
        }
    }

    /// What callers are told of the software in a pool.
    #[must_use]
    pub fn of_pool(&self, pool: &Pool) -> About {
        let software = |name: &str, version: &str| Software {
            name: name.to_owned(),
            version: version.to_owned(),
        };
        let python = software("Python", &self.python);
        let packages = self.packages.iter();
        let (name, version, project_url, description) = self.kernel.clone();
        let (runtimes, kernel) = match pool.container_type.language() {
            Some(Language::Shell) => (vec![software("Bash", &self.bash), python], None),
            Some(Language::Python | Language::Unknown) | None => {
                let kernel = KernelSoftware {
                    name,
                    version,
                    project_url,
                    description,
                };
                (vec![python], Some(kernel))
            }
        };
        About {
            runtimes,
            packages: packages
                .map(|(name, version)| software(name, version))
                .collect(),
            kernel,
        }
    }
}

/// Answers whoever asks about a pool, for ever.
pub async fn tell(client: Client, pool: PoolId, about: About) {
    let group = subject::PLACE_GROUP.to_owned();
    match client.queue_subscribe(subject::about(&pool), group).await {
        Ok(asked) => {
            let outbox: Arc<dyn Outbox> = Arc::new(client);
            let answer = async |inbox| {
                let responder = Responder::new(outbox.clone(), inbox);
                responder.finish(Ok(Answer::About(about.clone()))).await;
            };
            asked
                .filter_map(|message| std::future::ready(message.reply))
                .for_each(answer)
                .await;
        }
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            tracing::error!(error, "failed to subscribe to questions about a pool");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_of_shells_has_a_shell_and_no_notebook_kernel() {
        let image: Image = serde_json::from_str(
            r#"{"python":"3.13.5","bash":"5.2.37","packages":[["numpy","2.3"]],
                "kernel":["ipython","9","https://ipython.org","cells"]}"#,
        )
        .unwrap();
        let mut pool: Pool = toml::from_str(
            "id = \"01JDE1KZ0000000000000000PY\"\nsubscription = \"s\"\nresource_group = \"g\"\n\
             name = \"python\"\nmax_sessions = 1\ncooldown_seconds = 300\n",
        )
        .unwrap();
        let names = |about: &About| -> Vec<String> {
            about.runtimes.iter().map(|one| one.name.clone()).collect()
        };
        let python = image.of_pool(&pool);
        assert_eq!(
            (names(&python), python.kernel.is_some()),
            (vec!["Python".to_owned()], true)
        );
        pool.container_type = proto::pool::ContainerType::Shell;
        let shell = image.of_pool(&pool);
        assert_eq!(names(&shell), ["Bash", "Python"]);
        assert!(shell.kernel.is_none() && shell.packages == python.packages);
    }
}
