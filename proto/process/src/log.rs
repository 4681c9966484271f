//! What a process logs. The filter can be changed while it runs: SIGHUP reads its file again.

mod json;

use std::{
    io::{self, IsTerminal},
    path::PathBuf,
};

use clap::{Args, ValueEnum};
use tracing_subscriber::{
    EnvFilter, Registry, layer::SubscriberExt, reload, util::SubscriberInitExt,
};

use self::json::JsonLines;
use crate::{
    hangup::Hangup,
    remedy::{HasRemedy, Remedy},
};

/// Settings of the log.
#[derive(Clone, Debug, Args)]
pub struct LogSettings {
    /// What is logged: a `tracing` filter, such as `info` or `info,ingress=debug`.
    #[arg(long, env = "HEARTH_LOG", default_value = "info", global = true)]
    pub log: String,
    /// File with such a filter that goes before `--log`, unless it is empty or not there. SIGHUP has it
    /// read again.
    #[arg(long, env = "HEARTH_LOG_FILTER_FILE", global = true)]
    pub log_filter_file: Option<PathBuf>,
    /// What a line looks like.
    #[arg(
        long,
        env = "HEARTH_LOG_FORMAT",
        value_enum,
        default_value = "text",
        global = true
    )]
    pub log_format: LogFormat,
}

/// What a line of the log looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Text for people.
    Text,
    /// A JSON object: `timestamp`, `level`, `target`, `message`, and all fields, those of spans included.
    Json,
}

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter cannot be read.
    #[error("failed to read the log filter in {0}")]
    Read(PathBuf, #[source] io::Error),
    /// It is none.
    #[error("`{0}` is not a log filter")]
    Filter(String, #[source] tracing_subscriber::filter::ParseError),
    /// Something else logs in this process.
    #[error("failed to start the log")]
    Start(#[from] tracing_subscriber::util::TryInitError),
}

impl HasRemedy for LogError {
    fn remedy(&self) -> Option<Remedy> {
        match self {
            Self::Read(..) => Some(Remedy::LogFilterFile),
            Self::Filter(..) => Some(Remedy::LogFilter),
            Self::Start(_) => None,
        }
    }
}

/// The log of this process.
#[derive(Debug)]
pub struct Log {
    settings: LogSettings,
    filter: reload::Handle<EnvFilter, Registry>,
}

impl LogSettings {
    /// Begins to log to standard error.
    ///
    /// # Errors
    /// The filter is none, or its file cannot be read.
    pub fn start(self) -> Result<Log, LogError> {
        let (layer, filter) = reload::Layer::new(self.filter()?);
        let filtered = tracing_subscriber::registry().with(layer);
        match self.log_format {
            LogFormat::Text => {
                let lines = tracing_subscriber::fmt::layer()
                    .with_ansi(io::stderr().is_terminal())
                    .with_writer(io::stderr);
                filtered.with(lines).try_init()?;
            }
            LogFormat::Json => filtered.with(JsonLines::new(io::stderr)).try_init()?,
        }
        Ok(Log {
            settings: self,
            filter,
        })
    }

    /// The filter that the settings mean now.
    ///
    /// # Errors
    /// It is none, or its file cannot be read.
    pub fn filter(&self) -> Result<EnvFilter, LogError> {
        let text = match &self.log_filter_file {
            None => None,
            Some(path) => match std::fs::read_to_string(path) {
                Ok(text) => Some(text.trim().to_owned()).filter(|text| !text.is_empty()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(error) => return Err(LogError::Read(path.clone(), error)),
            },
        };
        let text = text.unwrap_or_else(|| self.log.clone());
        EnvFilter::try_new(&text).map_err(|error| LogError::Filter(text, error))
    }
}

impl Log {
    /// Reads the filter again at every SIGHUP, for ever; one that cannot be used changes nothing.
    pub async fn follow(self, mut hangup: Hangup) {
        loop {
            hangup.next().await;
            match self.settings.filter() {
                Ok(filter) => {
                    let text = filter.to_string();
                    match self.filter.reload(filter) {
                        Ok(()) => tracing::info!(filter = text, "log filter read again"),
                        Err(error) => tracing::error!(%error, "log filter not changed"),
                    }
                }
                Err(error) => tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "log filter not changed"
                ),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(log: &str, file: Option<PathBuf>) -> LogSettings {
        LogSettings {
            log: log.to_owned(),
            log_filter_file: file,
            log_format: LogFormat::Text,
        }
    }

    fn shown(settings: &LogSettings) -> Result<String, String> {
        let filter = settings.filter().map_err(|error| error.to_string());
        filter.map(|filter| filter.to_string())
    }

    #[test]
    fn the_file_goes_before_the_setting_unless_it_says_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("filter");
        let both = settings("warn", Some(file.clone()));
        assert_eq!(shown(&both).unwrap(), "warn");
        std::fs::write(&file, " \n").unwrap();
        assert_eq!(shown(&both).unwrap(), "warn");
        std::fs::write(&file, "debug\n").unwrap();
        assert_eq!(shown(&both).unwrap(), "debug");
        assert_eq!(shown(&settings("error", None)).unwrap(), "error");
    }

    #[test]
    fn a_filter_that_is_none_is_refused_by_name() {
        let refused = shown(&settings("worker=loud", None)).unwrap_err();
        assert_eq!(refused, "`worker=loud` is not a log filter");
        let directory = tempfile::tempdir().unwrap();
        let unreadable = settings("info", Some(directory.path().to_owned()));
        assert!(shown(&unreadable).unwrap_err().contains("failed to read"));
    }
}
