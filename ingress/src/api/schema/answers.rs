//! Answers that several operations have: refusals by their status, and how a run is told.

use std::collections::BTreeMap;

use axum::http::{StatusCode, header};
use serde_json::Value;
use utoipa::{
    IntoResponses, ToSchema,
    openapi::{
        AllOfBuilder, ContentBuilder, Header, HeaderBuilder, ObjectBuilder, Ref, RefOr, Response,
        ResponseBuilder, Schema, Type,
        schema::{KnownFormat, SchemaFormat},
    },
};

use crate::{
    api::{accept, outcome},
    error::{Body, ErrorCode},
    headers::ERROR_CODE,
};

type Responses = BTreeMap<String, RefOr<Response>>;

macro_rules! refusals {
    ($($(#[doc = $doc:literal])+ $name:ident: $($status:literal),+;)+) => {
        $(
            $(#[doc = $doc])+
            #[derive(Debug)]
            pub struct $name;

            impl IntoResponses for $name {
                fn responses() -> Responses {
                    refused(&[$($status),+])
                }
            }
        )+
    };
}

refusals! {
    /// Of what needs no session's worker.
    Refused: 400, 401, 403, 404, 500, 503;
    /// Of what a session's worker does.
    RefusedInSession: 400, 401, 403, 404, 409, 429, 500, 503;
    /// Of what sends a file.
    RefusedDownload: 400, 401, 403, 404, 409, 413, 416, 429, 500, 503;
    /// Of what brings a file.
    RefusedUpload: 400, 401, 403, 404, 408, 409, 413, 415, 429, 500, 503, 507;
    /// Of what runs code.
    RefusedExecution: 400, 401, 403, 404, 408, 409, 413, 415, 429, 500, 503, 504, 507;
}

fn refused(statuses: &[u16]) -> Responses {
    let statuses = statuses
        .iter()
        .filter_map(|&status| StatusCode::from_u16(status).ok());
    statuses
        .map(|status| {
            (
                status.as_str().to_owned(),
                Ref::from_response_name(name(status)).into(),
            )
        })
        .collect()
}

/// Name of the answer with this status among the components.
fn name(status: StatusCode) -> String {
    let reason = status.canonical_reason().unwrap_or_default();
    reason.split(' ').collect()
}

/// All refusals for the components: one for each status, with its codes.
#[must_use]
pub fn refusals() -> Responses {
    let mut by_status: BTreeMap<StatusCode, Vec<ErrorCode>> = BTreeMap::new();
    for &code in ErrorCode::ALL {
        by_status.entry(code.status()).or_default().push(code);
    }
    let responses = by_status.into_iter();
    responses
        .map(|(status, codes)| (name(status), refusal(status, &codes).into()))
        .collect()
}

fn refusal(status: StatusCode, codes: &[ErrorCode]) -> Response {
    let meanings = codes
        .iter()
        .map(|code| format!("`{}`: {}", code.name(), code.meaning()));
    let names: Vec<Value> = codes.iter().map(|code| code.name().into()).collect();
    let code = ObjectBuilder::new()
        .schema_type(Type::String)
        .enum_values(Some(names))
        .build();
    let error = ObjectBuilder::new().property("code", code.clone());
    let body = AllOfBuilder::new()
        .item(Ref::from_schema_name(Body::name()))
        .item(ObjectBuilder::new().property("error", error));
    let mut response = ResponseBuilder::new()
        .description(meanings.collect::<Vec<_>>().join("\n\n"))
        .content(
            "application/json",
            ContentBuilder::new().schema(Some(body)).build(),
        )
        .header(
            ERROR_CODE.as_str(),
            described("The body's `error.code`.", code),
        );
    let seconds = ObjectBuilder::new().schema_type(Type::Integer);
    if codes.iter().any(|code| code.retry_after().is_some()) {
        let words = "Seconds after which trying again makes sense, for some codes.";
        response = response.header(header::RETRY_AFTER.as_str(), described(words, seconds));
    }
    if status == StatusCode::UNSUPPORTED_MEDIA_TYPE {
        let words = text("What is understood.");
        response = response.header(header::ACCEPT_ENCODING.as_str(), words);
    }
    if status == StatusCode::UNAUTHORIZED {
        response = response.header(header::WWW_AUTHENTICATE.as_str(), text("`Bearer`."));
    }
    response.build()
}

fn described(words: &str, schema: impl Into<Schema>) -> Header {
    HeaderBuilder::new()
        .schema(Some(schema.into()))
        .description(Some(words))
        .build()
}

fn text(words: &str) -> Header {
    described(words, ObjectBuilder::new().schema_type(Type::String))
}

/// The answer to whoever waited for code: a body of this type, or events.
#[derive(Debug)]
pub struct Waited<T>(std::marker::PhantomData<T>);

impl<T: ToSchema> IntoResponses for Waited<T> {
    fn responses() -> Responses {
        let events = "Events, for who accepts `text/event-stream`: `stdout` and `stderr` with \
                      `{\"text\":\"…\"}`, `display` with `{\"type\":\"display\",\"data\":{…}}`, `truncated` with \
                      what was dropped; at the end `result` with the body that the answer would have had, or \
                      `error` with a refusal's.";
        let text_ = ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some(events));
        let schema = Ref::from_schema_name(T::name());
        let mut response = ResponseBuilder::new()
            .description("The code ran, and succeeded or failed.")
            .content(
                "application/json",
                ContentBuilder::new().schema(Some(schema)).build(),
            )
            .content(
                accept::EVENT_STREAM,
                ContentBuilder::new().schema(Some(text_)).build(),
            );
        for (name, kind, words) in outcome::described() {
            let schema = ObjectBuilder::new().schema_type(kind);
            response = response.header(name.as_str(), described(words, schema));
        }
        [("200".to_owned(), response.build().into())].into()
    }
}

/// The bytes of a file, or the part of them that was asked for.
#[derive(Debug)]
pub struct Bytes;

impl IntoResponses for Bytes {
    fn responses() -> Responses {
        let of = |description: &str| {
            let bytes = ObjectBuilder::new()
                .schema_type(Type::String)
                .format(Some(SchemaFormat::KnownFormat(KnownFormat::Binary)));
            ResponseBuilder::new()
                .description(description)
                .content("*/*", ContentBuilder::new().schema(Some(bytes)).build())
                .header(header::ACCEPT_RANGES.as_str(), text("`bytes`."))
                .header(
                    header::CONTENT_DISPOSITION.as_str(),
                    text("An attachment, with the file's name."),
                )
                .header(
                    header::LAST_MODIFIED.as_str(),
                    text("When the file was written."),
                )
        };
        let part = of("A part of the file's bytes.");
        let part = part.header(header::CONTENT_RANGE.as_str(), text("Which part."));
        [
            ("200".to_owned(), of("The file's bytes.").build().into()),
            ("206".to_owned(), part.build().into()),
        ]
        .into()
    }
}
