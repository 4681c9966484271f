//! The log as one JSON object a line, for programs that search it.

use std::{error::Error, fmt, io::Write};

use serde_json::{Map, Value};
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};
use tracing_subscriber::{
    Layer,
    fmt::{
        MakeWriter,
        format::Writer,
        time::{FormatTime, SystemTime},
    },
    layer::Context,
    registry::{LookupSpan, Scope},
};

use crate::failure::causes;

/// Writes each event as an object: when, how grave, where from, what, then the fields of the event and of the spans
/// that it happened in, all side by side. Of fields with one name the innermost stands.
#[derive(Debug)]
pub(super) struct JsonLines<W> {
    writer: W,
}

impl<W> JsonLines<W> {
    /// Writes to what `writer` makes for each line.
    pub(super) fn new(writer: W) -> Self {
        Self { writer }
    }
}

/// Fields by name, in the order in which they came.
#[derive(Default)]
struct Fields(Map<String, Value>);

impl Fields {
    fn put(&mut self, name: &str, value: impl Into<Value>) {
        self.0.insert(name.to_owned(), value.into());
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field.name(), value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field.name(), value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field.name(), value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field.name(), value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field.name(), value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.put(field.name(), causes(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field.name(), format!("{value:?}"));
    }
}

impl<S, W> Layer<S> for JsonLines<W>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    W: for<'writer> MakeWriter<'writer> + 'static,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id) {
            let mut fields = Fields::default();
            attributes.record(&mut fields);
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let line = Value::Object(object(event, &context));
        // There is no other place to complain at.
        writeln!(self.writer.make_writer_for(event.metadata()), "{line}").ok();
    }
}

fn object<S>(event: &Event<'_>, context: &Context<'_, S>) -> Map<String, Value>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    let mut line = Fields::default();
    // These come first, whatever fields there are.
    for name in ["timestamp", "level", "target", "message"] {
        line.put(name, Value::Null);
    }
    let mut names = vec![];
    let scope = context.event_scope(event).into_iter();
    for span in scope.flat_map(Scope::from_root) {
        names.push(span.name());
        if let Some(fields) = span.extensions().get::<Fields>() {
            for (name, value) in &fields.0 {
                line.put(name, value.clone());
            }
        }
    }
    event.record(&mut line);
    let (metadata, mut time) = (event.metadata(), String::new());
    // A clock that cannot be written leaves an empty text.
    SystemTime.format_time(&mut Writer::new(&mut time)).ok();
    line.put("timestamp", time);
    line.put("level", metadata.level().as_str());
    // What comes from the `log` crate says itself where from.
    let target = line.0.get("log.target").cloned();
    line.put("target", target.unwrap_or_else(|| metadata.target().into()));
    line.put("spans", names.join(":"));
    line.0
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is logged meanwhile, an object a line.
    fn logged(work: impl FnOnce()) -> Vec<Value> {
        let lines = Lines::default();
        let writer = lines.clone();
        let layer = JsonLines::new(move || writer.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), work);
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        let lines = text.lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    #[test]
    fn a_line_is_an_object_with_the_fields_of_the_spans_around_it() {
        let lines = logged(|| {
            let session = tracing::info_span!("session", session.key = "abc", state = "new");
            let _session = session.enter();
            let run = tracing::info_span!("execution.run", trace.id = tracing::field::Empty);
            run.record("trace.id", "0af7");
            let _run = run.enter();
            tracing::warn!(state = "lost", number = 7, "it \"broke\"\nand more");
        });
        let [line] = &lines[..] else {
            panic!("{lines:?}");
        };
        for (name, value) in [
            ("level", Value::from("WARN")),
            ("target", Value::from(module_path!())),
            ("message", Value::from("it \"broke\"\nand more")),
            ("trace.id", Value::from("0af7")),
            ("session.key", Value::from("abc")),
            ("state", Value::from("lost")),
            ("number", Value::from(7)),
            ("spans", Value::from("session:execution.run")),
        ] {
            assert_eq!(line[name], value, "{line}");
        }
        let time = line["timestamp"].as_str().unwrap();
        assert!(time.starts_with("20") && time.ends_with('Z'), "{time}");
    }

    #[test]
    fn an_error_is_told_with_its_causes() {
        let lines = logged(|| {
            let error = anyhow::anyhow!("refused").context("failed to connect");
            let error: &(dyn Error + 'static) = error.as_ref();
            tracing::error!(error, "no bus");
        });
        assert_eq!(lines[0]["error"], "failed to connect: refused");
    }

    #[test]
    fn a_field_cannot_take_the_place_of_what_every_line_has() {
        let lines = logged(|| tracing::info!(level = "none", target = "nowhere", "said"));
        assert_eq!(lines[0]["level"], "INFO");
        assert_eq!(lines[0]["target"], module_path!());
    }
}
