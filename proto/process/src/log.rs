//! What a process logs. The filter can be changed while it runs: SIGHUP reads its file again.

mod json;

use std::{
    io::{self, IsTerminal},
    path::PathBuf,
};

use clap::{Args, ValueEnum};
use tokio::runtime::Handle;
use tracing_subscriber::{
    EnvFilter, Layer, Registry, layer::SubscriberExt, reload, util::SubscriberInitExt,
};
use url::Url;

use self::json::JsonLines;
use crate::{
    hangup::Hangup,
    remedy::{HasRemedy, Remedy},
    spans::{self, Export, ExportError},
};

/// Settings of the log, and of the export of spans.
#[derive(Clone, Debug, Args)]
pub struct LogSettings {
    /// What is logged: a `tracing` filter, such as `info` or `info,ingress=debug`.
    #[arg(long, env = "HEARTH_LOG", default_value = "info", global = true)]
    pub log: String,
    /// File with such a filter that goes before `--log`, unless it is empty or not there. SIGHUP has it
    /// read again.
    #[arg(long, env = "HEARTH_LOG_FILTER_FILE", global = true)]
    pub log_filter_file: Option<PathBuf>,
    /// What a line looks like: `text`, or `json`, an object a line with `timestamp`, `level`, `target`, `message`
    /// and every field side by side, those of the request's spans included, such as `trace.id`. Only the last
    /// words of a process that fails are text.
    #[arg(
        long,
        env = "HEARTH_LOG_FORMAT",
        value_enum,
        default_value = "text",
        global = true
    )]
    pub log_format: LogFormat,
    /// OpenTelemetry receiver that gets spans by OTLP over HTTP (protobuf), such as `http://127.0.0.1:4318`;
    /// `/v1/traces` is added. Headers that it wants, such as a token, are in `OTEL_EXPORTER_OTLP_HEADERS`.
    #[arg(long, env = "HEARTH_OTLP_ENDPOINT", value_parser = spans::endpoint, global = true)]
    pub otlp_endpoint: Option<Url>,
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
    /// No spans can be sent.
    #[error("failed to start the export of spans")]
    Export(#[from] ExportError),
    /// Something else logs in this process.
    #[error("failed to start the log")]
    Start(#[from] tracing_subscriber::util::TryInitError),
}

impl HasRemedy for LogError {
    fn remedy(&self) -> Option<Remedy> {
        match self {
            Self::Read(..) => Some(Remedy::LogFilterFile),
            Self::Filter(..) => Some(Remedy::LogFilter),
            Self::Export(_) | Self::Start(_) => None,
        }
    }
}

/// The log of this process.
#[derive(Debug)]
pub struct Log {
    settings: LogSettings,
    filter: reload::Handle<EnvFilter, Registry>,
    export: Export,
}

impl LogSettings {
    /// Begins to log to standard error, and to export spans of `program` if there is a receiver.
    ///
    /// # Errors
    /// The filter is none, its file cannot be read, or no spans can be sent.
    pub fn start(self, program: &str, runtime: &Handle) -> Result<Log, LogError> {
        let (layer, filter) = reload::Layer::new(self.filter()?);
        let export = match &self.otlp_endpoint {
            Some(endpoint) => Export::start(endpoint, program, runtime)?,
            None => Export::default(),
        };
        let lines: Box<dyn Layer<Registry> + Send + Sync> = match self.log_format {
            LogFormat::Text => tracing_subscriber::fmt::layer()
                .with_ansi(io::stderr().is_terminal())
                .with_writer(io::stderr)
                .boxed(),
            LogFormat::Json => JsonLines::new(io::stderr).boxed(),
        };
        tracing_subscriber::registry()
            .with(lines.with_filter(layer))
            .with(export.layer())
            .try_init()?;
        Ok(Log {
            settings: self,
            filter,
            export,
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
    /// Where spans go, for who ends it last of all.
    #[must_use]
    pub fn export(&self) -> Export {
        self.export.clone()
    }

    /// Reads the filter again at every SIGHUP, for ever; one that cannot be used changes nothing.
    pub async fn follow(self, mut hangup: Hangup) {
        loop {
            hangup.next().await;
            match self.settings.filter() {
                Ok(filter) => {
                    let text = filter.to_string();
                    match self.filter.reload(filter) {
                        Ok(()) => tracing::info!(filter = text, "log filter read again"),
                        Err(error) => tracing::error!(%error, "failed to reload the log filter"),
                    }
                }
                Err(error) => tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "failed to reload the log filter"
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
            otlp_endpoint: None,
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
