//! Request bodies that are JSON.

use std::time::Duration;

use axum::body::Body;
use bytes::BytesMut;
use futures_util::StreamExt;
use proto::limits;
use serde_json::Value;

use super::{coding, json::Tree, surrogates};
use crate::error::{ApiError, ErrorCode};

/// Time within which a JSON body must arrive.
const ARRIVES_WITHIN: Duration = Duration::from_secs(30);
/// A body's JSON may be longer than the code in it, by its escapes.
const BODY_BYTES: usize = 2 * limits::CODE_BYTES;
/// What some editors and .NET put before UTF-8.
pub const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Reads a body whatever its content type says.
///
/// # Errors
/// It is too long, too slow, broken off, or no JSON.
pub async fn read(body: Body) -> Result<Value, ApiError> {
    let bytes = tokio::time::timeout(ARRIVES_WITHIN, whole(body)).await;
    let late = |_| {
        let message = "the body did not arrive in time";
        ApiError::new(ErrorCode::RequestTimeout, message)
    };
    parse(&bytes.map_err(late)??)
}

/// Parses what was read.
///
/// # Errors
/// It is no JSON.
pub fn parse(bytes: &[u8]) -> Result<Value, ApiError> {
    let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
    let parsed = serde_json::from_slice(bytes);
    let Tree(body) = parsed.map_err(|error| not_json(bytes, &error))?;
    Ok(body)
}

/// All of a body that is not too long.
async fn whole(body: Body) -> Result<BytesMut, ApiError> {
    let (mut chunks, mut whole) = (body.into_data_stream(), BytesMut::new());
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| coding::unreadable(&error))?;
        if whole.len() + chunk.len() > BODY_BYTES {
            let message = format!("the body is longer than {BODY_BYTES} bytes");
            return Err(ApiError::new(ErrorCode::RequestTooLarge, message));
        }
        whole.extend_from_slice(&chunk);
    }
    Ok(whole)
}

fn not_json(bytes: &[u8], error: &serde_json::Error) -> ApiError {
    let message = match surrogates::first_lone(bytes) {
        // It is what the parser met, nothing behind that.
        Some(lone) if (lone.line, lone.column) <= (error.line(), error.column()) => {
            lone.to_string()
        }
        _ => format!("the body is not JSON: {error}"),
    };
    ApiError::invalid(message)
}
