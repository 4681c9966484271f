//! Spans for an OpenTelemetry receiver, by OTLP over HTTP, where an operator names one. Those are exported whose
//! names are a subject and a verb, such as `execution.run`; others only say what lines of the log are about.
//!
//! Nobody waits for the receiver. What it does not take in time is dropped.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use async_trait::async_trait;
use opentelemetry::{
    Context, Value,
    trace::{
        SpanContext, SpanId, Status, TraceContextExt, TraceFlags, TraceId, TraceState,
        TracerProvider,
    },
};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{
    ExporterBuildError, Protocol, RetryPolicy, SpanExporter, WithExportConfig, WithHttpConfig,
};
use opentelemetry_sdk::{
    Resource,
    trace::{BatchConfigBuilder, BatchSpanProcessor, SdkTracerProvider},
};
use proto::trace::TraceContext;
use tokio::runtime::Handle;
use tracing::{Level, Metadata, Span, Subscriber, level_filters::LevelFilter};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::{Layer, filter::filter_fn, registry::LookupSpan};
use url::Url;

use crate::failure::causes;

/// Spans that may wait for the receiver; more are dropped.
const QUEUE: usize = 8192;
/// Spans of one request to the receiver.
const BATCH: usize = 512;
/// Longest time that a span waits for others to go with it.
const EVERY: Duration = Duration::from_secs(1);
/// Longest time that the receiver may take for a request.
const WITHIN: Duration = Duration::from_secs(5);
/// Longest time that the last spans of a process that ends may take.
const LAST_WITHIN: Duration = Duration::from_secs(2);

/// Why spans are not exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// There is no HTTP client.
    #[error("failed to make an HTTP client")]
    Client(#[from] reqwest::Error),
    /// The exporter refuses its settings.
    #[error("failed to make an exporter of spans")]
    Exporter(#[from] ExporterBuildError),
}

/// Where spans go until it is ended; perhaps nowhere. All clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Export(Option<SdkTracerProvider>);

/// Reads the address of a receiver.
///
/// # Errors
/// It is no HTTP address, or holds a secret, which belongs into the environment.
pub(crate) fn endpoint(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| error.to_string())?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("it begins with neither http:// nor https://".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() {
        return Err("credentials belong into OTEL_EXPORTER_OTLP_HEADERS".to_owned());
    }
    Ok(url)
}

impl Export {
    /// Exports what this program does to the receiver at `endpoint`, from this runtime.
    ///
    /// # Errors
    /// The settings are refused. Whether the receiver is there is not looked at.
    pub(crate) fn start(
        endpoint: &Url,
        program: &str,
        runtime: &Handle,
    ) -> Result<Self, ExportError> {
        let client = reqwest::Client::builder().timeout(WITHIN).build()?;
        let sender = Sender {
            client,
            runtime: runtime.clone(),
            failing: AtomicBool::new(false),
        };
        let base = endpoint.as_str().trim_end_matches('/');
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(sender)
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(format!("{base}/v1/traces"))
            .with_timeout(WITHIN)
            .with_retry_policy(RetryPolicy::disabled())
            .build()?;
        let batches = BatchConfigBuilder::default()
            .with_max_queue_size(QUEUE)
            .with_max_export_batch_size(BATCH)
            .with_scheduled_delay(EVERY)
            .build();
        let processor = BatchSpanProcessor::builder(exporter).with_batch_config(batches);
        let resource = Resource::builder().with_service_name(format!("hearth-{program}"));
        let provider = SdkTracerProvider::builder()
            .with_resource(resource.build())
            .with_span_processor(processor.build());
        Ok(Self(Some(provider.build())))
    }

    /// What hears of the spans that are to be exported.
    pub(crate) fn layer<S>(&self) -> Option<impl Layer<S> + use<S>>
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        let tracer = self.0.as_ref()?.tracer("hearth");
        let layer = tracing_opentelemetry::layer()
            .with_tracer(tracer)
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false)
            .with_context_activation(false);
        let filter = filter_fn(is_exported).with_max_level_hint(LevelFilter::INFO);
        Some(layer.with_filter(filter))
    }

    /// Sends what has ended, and nothing any more. Takes two seconds at most.
    pub async fn end(self) {
        let Some(provider) = self.0 else { return };
        let ending =
            tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(LAST_WITHIN));
        if !matches!(ending.await, Ok(Ok(()))) {
            tracing::debug!("the last spans were not exported");
        }
    }
}

/// Neither lines of the log nor what other crates do: they may hold what callers sent.
fn is_exported(metadata: &Metadata<'_>) -> bool {
    let target = metadata.target();
    let is_own = target.starts_with("ingress") || target.starts_with("worker");
    metadata.is_span()
        && *metadata.level() <= Level::INFO
        && metadata.name().contains('.')
        && is_own
}

/// Sends to the receiver, and says once when that fails.
#[derive(Debug)]
struct Sender {
    client: reqwest::Client,
    runtime: Handle,
    failing: AtomicBool,
}

#[async_trait]
impl HttpClient for Sender {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        // The exporter waits on a thread of its own, which has no runtime.
        let sending = async move { client.send_bytes(request).await };
        let answered = match self.runtime.spawn(sending).await {
            Ok(answered) => answered,
            Err(cut_off) => Err(cut_off.into()),
        };
        self.note(&answered);
        answered
    }
}

impl Sender {
    fn note(&self, answered: &Result<Response<Bytes>, HttpError>) {
        let reason = match answered {
            Ok(response) if response.status().is_success() => None,
            Ok(response) => Some(format!("it answered {}", response.status())),
            Err(error) => Some(causes(&**error)),
        };
        let failed_before = self.failing.swap(reason.is_some(), Ordering::Relaxed);
        match reason {
            Some(error) if !failed_before => tracing::warn!(
                error,
                "failed to export spans; they are dropped until the receiver takes some again"
            ),
            None if failed_before => tracing::info!("spans are exported again"),
            Some(_) | None => {}
        }
    }
}

/// Makes a span that has not been entered a part of the trace of whoever asked.
pub fn set_parent(span: &Span, asked_by: TraceContext) {
    let (trace, parent, flags) = asked_by.parts();
    let parent = SpanContext::new(
        TraceId::from(trace),
        SpanId::from(parent),
        TraceFlags::new(flags),
        true,
        TraceState::NONE,
    );
    // An error says that nothing is exported.
    span.set_parent(Context::new().with_remote_span_context(parent))
        .ok();
}

/// What a span says of itself to whom it asks; `None` if nothing is exported.
#[must_use]
pub fn context_of(span: &Span) -> Option<TraceContext> {
    let context = span.context();
    let span = context.span();
    let own = span.span_context();
    TraceContext::new(
        u128::from_be_bytes(own.trace_id().to_bytes()),
        u64::from_be_bytes(own.span_id().to_bytes()),
        own.trace_flags().to_u8(),
    )
}

/// What an exported span tells.
#[derive(Clone, Copy, Debug)]
pub enum Detail<'a> {
    /// A text of which there are few.
    Text(&'a str),
    /// A number.
    Number(i64),
}

impl From<Detail<'_>> for Value {
    fn from(detail: Detail<'_>) -> Self {
        match detail {
            Detail::Text(text) => text.to_owned().into(),
            Detail::Number(number) => number.into(),
        }
    }
}

/// Adds something to a span where it is exported, and only there. Never what a caller sent.
pub fn tell(span: &Span, name: &'static str, detail: Detail<'_>) {
    span.set_attribute(name, detail);
}

/// Marks a span as failed where it is exported.
pub fn fail(span: &Span) {
    span.set_status(Status::error(""));
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    const ASKED_BY: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    /// Does something while spans go to nobody, as if they were exported.
    fn exporting(work: impl FnOnce()) {
        let export = Export(Some(SdkTracerProvider::builder().build()));
        let subscriber = tracing_subscriber::registry().with(export.layer());
        tracing::subscriber::with_default(subscriber, work);
    }

    #[test]
    fn a_span_goes_on_with_the_trace_of_whoever_asked() {
        exporting(|| {
            let asked_by: TraceContext = ASKED_BY.parse().unwrap();
            let span = tracing::info_span!(target: "ingress", "request.answer");
            set_parent(&span, asked_by);
            let own = context_of(&span).unwrap();
            assert_eq!(own.trace_id(), asked_by.trace_id());
            assert_ne!(own, asked_by);
            let below = span.in_scope(|| tracing::info_span!(target: "worker", "session.place"));
            let below = context_of(&below).unwrap();
            assert_eq!(below.trace_id(), asked_by.trace_id());
            assert_ne!(below, own);
        });
    }

    #[test]
    fn without_anybody_who_asked_a_trace_begins() {
        exporting(|| {
            let traces =
                [(); 2].map(|()| context_of(&tracing::info_span!(target: "worker", "lease.renew")));
            let [one, other] = traces.map(|trace| trace.unwrap().trace_id());
            assert_ne!(one, other);
        });
    }

    #[test]
    fn what_is_no_verb_is_not_exported() {
        exporting(|| {
            for span in [
                tracing::info_span!(target: "worker", "session"),
                tracing::info_span!(target: "somewhere", "else.where"),
                tracing::debug_span!(target: "worker", "session.look"),
            ] {
                assert_eq!(context_of(&span), None, "{span:?}");
            }
        });
        let span = tracing::info_span!(target: "ingress", "request.answer");
        assert_eq!(context_of(&span), None, "nothing is exported");
    }

    #[test]
    fn the_address_of_a_receiver_is_one_of_http_and_holds_no_secret() {
        assert!(endpoint("http://127.0.0.1:4318").is_ok());
        assert!(endpoint("https://receiver.example/below").is_ok());
        for refused in [
            "127.0.0.1:4318",
            "grpc://receiver.example",
            "https://user:secret@receiver.example",
            "https://receiver.example?token=secret",
        ] {
            assert!(endpoint(refused).is_err(), "{refused}");
        }
    }
}
