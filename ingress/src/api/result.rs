//! The one `result` of the contracts: not the Python value but its text form, passed through a JSON
//! parse where it parses. What a strict parser might refuse stays text ([`super::strict`]).

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use proto::execution::{Bundle, Outcome};
use serde::Serialize;
use serde_json::{Value, value::RawValue};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ObjectBuilder, RefOr, Schema, Type, schema::SchemaType},
};

use super::strict;

/// What a cell's `result` is on the wire.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum CellResult {
    /// Text that is JSON, as it stands, so that long numbers keep their digits.
    Json(Box<RawValue>),
    /// Any other text; empty when there is nothing.
    Text(String),
    /// The last image.
    Image {
        /// `image`.
        r#type: &'static str,
        /// Such as `png`.
        format: &'static str,
        /// The image.
        base64_data: String,
    },
    /// All forms by mime type, or null, where the caller wishes that.
    AllForms(Value),
}

/// Image types in the order of preference.
const IMAGES: [(&str, &str); 5] = [
    ("image/png", "png"),
    ("image/jpeg", "jpeg"),
    ("image/gif", "gif"),
    ("image/webp", "webp"),
    (DRAWING, "svg"),
];
/// The one that is text.
const DRAWING: &str = "image/svg+xml";
/// Bytes of what is shown beside an image, as far as it is told where there is but one result.
const BESIDE_BYTES: usize = 256 * 1024;
/// How the texts begin, or what is in them, of what plotting code returns and nobody wants to read.
const HANDLES: [&str; 9] = [
    "<matplotlib.",
    "<mpl_toolkits.",
    "<seaborn.",
    "<Figure size ",
    "<BarContainer ",
    "<ErrorbarContainer ",
    "Axes: ",
    "Axes3D: ",
    "<IPython.core.display.",
];

impl CellResult {
    /// The last image that the cell showed, else the value of its last expression, else the text of
    /// the last thing it displayed, else nothing.
    #[must_use]
    pub fn of(outcome: &Outcome) -> Self {
        let shown = || outcome.displays.iter().chain(&outcome.result).rev();
        if let Some(image) = shown().find_map(image) {
            return image;
        }
        let text = outcome.result.as_ref().or_else(|| outcome.displays.last());
        match text.and_then(|bundle| bundle.get("text/plain")) {
            Some(text) => Self::of_text(text),
            None => Self::Text(String::new()),
        }
    }

    /// All forms of what [`Self::of`] chooses one form of, by mime type, as Jupyter's messages have
    /// them; null when there is nothing.
    #[must_use]
    pub fn all_forms(outcome: &Outcome) -> Self {
        let mut shown = outcome.displays.iter().chain(&outcome.result).rev();
        let chosen = shown.find(|bundle| image(bundle).is_some());
        let chosen = chosen.or(outcome.result.as_ref());
        let chosen = chosen.or_else(|| outcome.displays.last());
        Self::AllForms(chosen.map_or(Value::Null, forms))
    }

    /// Standard output, and where the one result is an image after it the texts of what else was shown, as of
    /// a table after a plot. Those who get all that was shown get it as it is.
    #[must_use]
    pub fn stdout(outcome: &Outcome) -> String {
        let mut stdout = outcome.stdout.clone();
        let shown = || outcome.displays.iter().chain(&outcome.result);
        if outcome.details.is_some() || !shown().any(|one| image(one).is_some()) {
            return stdout;
        }
        let mut room = BESIDE_BYTES;
        for bundle in shown().filter(|bundle| image(bundle).is_none()) {
            let text = bundle.get("text/plain").unwrap_or_default();
            if text.is_empty() || is_handle(text) {
                continue;
            }
            if !stdout.is_empty() && !stdout.ends_with('\n') {
                stdout.push('\n');
            }
            if text.len() > room {
                stdout.push_str("[more was shown]\n");
                break;
            }
            room -= text.len();
            stdout.push_str(text);
            stdout.push('\n');
        }
        stdout
    }

    fn of_text(text: &str) -> Self {
        let json = strict::is_json(text).then(|| RawValue::from_string(text.to_owned()));
        match json {
            // No value is an empty text in this contract, never null.
            Some(Ok(json)) if json.get() != "null" => Self::Json(json),
            _ => Self::Text(text.to_owned()),
        }
    }
}

/// All forms of one output by mime type; JSON types as JSON.
#[must_use]
pub fn forms(bundle: &Bundle) -> Value {
    let forms = bundle.0.iter().map(|(mime, content)| {
        let is_json = mime == "application/json" || mime.ends_with("+json");
        let json = (is_json && strict::is_json(content))
            .then(|| serde_json::from_str(content).ok())
            .flatten();
        (
            mime.clone(),
            json.unwrap_or_else(|| Value::from(content.as_str())),
        )
    });
    Value::Object(forms.collect())
}

/// Whether it is what plotting code returns, such as axes.
fn is_handle(text: &str) -> bool {
    text.starts_with("Text(") || HANDLES.iter().any(|handle| text.contains(handle))
}

fn image(bundle: &Bundle) -> Option<CellResult> {
    IMAGES.iter().find_map(|(mime, format)| {
        let content = bundle.get(mime)?;
        let base64_data = match *mime {
            DRAWING => BASE64.encode(content),
            _ => content.to_owned(),
        };
        Some(CellResult::Image {
            r#type: "image",
            format,
            base64_data,
        })
    })
}

impl PartialSchema for CellResult {
    /// Any JSON but null.
    fn schema() -> RefOr<Schema> {
        let types = [
            Type::String,
            Type::Number,
            Type::Boolean,
            Type::Array,
            Type::Object,
        ];
        let any = ObjectBuilder::new().schema_type(types.into_iter().collect::<SchemaType>());
        let words = "The last image as `{\"type\":\"image\",\"format\":\"png\",\"base64_data\":\"…\"}`, else \
                     the text form of the last expression's value, as JSON where it is JSON, else an empty \
                     text.";
        any.description(Some(words)).into()
    }
}

impl ToSchema for CellResult {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proto::execution::Ending;

    use super::*;
    use crate::api::outcome;

    fn bundle(mime: &str, content: &str) -> Bundle {
        Bundle(vec![(mime.into(), content.into())])
    }

    fn outcome(result: Option<Bundle>, displays: Vec<Bundle>) -> Outcome {
        Outcome {
            stdout: String::new(),
            result,
            displays,
            ..outcome::tests::outcome(Ending::Succeeded)
        }
    }

    fn json(outcome: &Outcome) -> String {
        serde_json::to_string(&CellResult::of(outcome)).unwrap()
    }

    #[test]
    fn text_that_is_json_becomes_json_and_other_text_stays_text() {
        let table = [
            ("42", "42"),
            ("-1530", "-1530"),
            ("3.5", "3.5"),
            (
                "123456789012345678901234567890",
                "123456789012345678901234567890",
            ),
            ("[1, 2]", "[1, 2]"),
            ("nan", "\"nan\""),
            ("True", "\"True\""),
            ("'abc'", "\"'abc'\""),
            ("{'a': 1, 'b': 'x'}", "\"{'a': 1, 'b': 'x'}\""),
            ("['a',\n 'b']", "\"['a',\\n 'b']\""),
            ("None", "\"None\""),
            ("null", "\"null\""),
        ];
        for (text, wire) in table {
            assert_eq!(
                json(&outcome(Some(bundle("text/plain", text)), vec![])),
                wire,
                "{text}"
            );
        }
    }

    #[test]
    fn what_a_strict_parser_refuses_stays_text_in_every_form() {
        let deep = format!("{}{}", "[".repeat(60_000), "]".repeat(60_000));
        for text in ["1e999", "{\"a\":1,\"a\":2}", "\"\\ud800\"", &deep] {
            let expected = serde_json::to_string(text).unwrap();
            let shown = outcome(Some(bundle("text/plain", text)), vec![]);
            assert_eq!(json(&shown), expected);
            let forms = forms(&bundle("application/json", text));
            assert_eq!(forms["application/json"], text);
        }
    }

    #[test]
    fn nothing_is_an_empty_text() {
        assert_eq!(json(&outcome(None, vec![])), "\"\"");
    }

    #[test]
    fn the_last_image_wins_over_the_last_expression() {
        let images = vec![bundle("image/png", "one"), bundle("image/png", "two")];
        let shown = outcome(Some(bundle("text/plain", "42")), images);
        assert_eq!(
            json(&shown),
            r#"{"type":"image","format":"png","base64_data":"two"}"#
        );
    }

    #[test]
    fn images_of_all_kinds_are_results() {
        for (mime, content, format, data) in [
            ("image/gif", "R0lG", "gif", "R0lG"),
            ("image/webp", "UklG", "webp", "UklG"),
            ("image/svg+xml", "<svg/>", "svg", "PHN2Zy8+"),
        ] {
            let shown = outcome(Some(bundle(mime, content)), vec![]);
            let expected =
                format!(r#"{{"type":"image","format":"{format}","base64_data":"{data}"}}"#);
            assert_eq!(json(&shown), expected);
        }
    }

    #[test]
    fn a_table_beside_an_image_is_told_on_standard_output() {
        let image = || bundle("image/png", "one");
        let text = |text: &str| bundle("text/plain", text);
        let mut shown = outcome(Some(text("   a\n0  1")), vec![text("b"), image()]);
        shown.stdout = "printed".to_owned();
        assert_eq!(CellResult::stdout(&shown), "printed\nb\n   a\n0  1\n");
        shown.displays.pop();
        assert_eq!(CellResult::stdout(&shown), "printed");
        let mut detailed = outcome(Some(text("a")), vec![image()]);
        detailed.details = Some(Box::default());
        assert_eq!(CellResult::stdout(&detailed), "");
        let long = outcome(Some(text(&"x".repeat(BESIDE_BYTES + 1))), vec![image()]);
        assert_eq!(CellResult::stdout(&long), "[more was shown]\n");
    }

    #[test]
    fn what_plotting_code_returns_is_told_nowhere() {
        for handle in [
            "[<matplotlib.lines.Line2D at 0x7f>]",
            "<Axes: title={'center': 't'}>",
            "<Axes3D: >",
            "Text(0.5, 1.0, 't')",
            "(array([1.]), array([0., 1.]), <BarContainer object of 10 artists>)",
            "<seaborn.axisgrid.FacetGrid at 0x7f>",
            "<Figure size 640x480 with 0 Axes>",
            "<IPython.core.display.HTML object>",
        ] {
            let shown = outcome(
                Some(bundle("text/plain", handle)),
                vec![bundle("image/png", "one")],
            );
            assert_eq!(CellResult::stdout(&shown), "", "{handle}");
        }
    }

    #[test]
    fn all_forms_are_those_of_what_one_form_is_taken_of() {
        let mut table = bundle("text/plain", "a b");
        table
            .0
            .push(("application/json".into(), "{\"a\":1}".into()));
        let forms = |result, displays| {
            serde_json::to_value(CellResult::all_forms(&outcome(result, displays))).unwrap()
        };
        let expected = serde_json::json!({ "text/plain": "a b", "application/json": { "a": 1 } });
        assert_eq!(forms(Some(table.clone()), vec![]), expected);
        let image = bundle("image/png", "one");
        let expected = serde_json::json!({ "image/png": "one" });
        assert_eq!(forms(Some(table), vec![image]), expected);
        assert_eq!(forms(None, vec![]), Value::Null);
    }

    #[test]
    fn a_displayed_text_is_the_result_when_there_is_no_other() {
        assert_eq!(
            json(&outcome(None, vec![bundle("text/plain", "shown")])),
            "\"shown\""
        );
    }

    proptest! {
        #[test]
        fn any_text_gives_valid_json(text in "\\PC*") {
            let wire = json(&outcome(Some(bundle("text/plain", &text)), vec![]));
            prop_assert!(serde_json::from_str::<serde_json::Value>(&wire).is_ok());
        }
    }
}
