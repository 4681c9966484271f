//! A client of the 2024-02-02-preview contract, the one that LangChain, LlamaIndex and AutoGen
//! speak: connections are kept alive and Nagle's algorithm is off.

use std::time::Duration;

use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use ulid::Ulid;

use crate::multipart::Multipart;

/// The version that is sent with every request.
pub const API_VERSION: &str = "2024-02-02-preview";
/// Header with the caller's id of an operation.
pub const OPERATION_ID: &str = "operation-id";
/// The version that ends sessions.
const SESSION_API_VERSION: &str = "2025-10-02-preview";
/// Longer than any execution may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(240);

/// Why there is no answer of the contract.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The server said no.
    #[error("{status} {code}: {message}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// `error.code` of the body, empty when there is none.
        code: String,
        /// `error.message` of the body, or the body.
        message: String,
        /// `Retry-After` in seconds.
        retry_after: Option<u64>,
        /// `error.innererror.mayHaveExecuted` of the body.
        may_have_executed: Option<bool>,
    },
    /// No answer came.
    #[error("no answer")]
    Transport(#[from] reqwest::Error),
    /// The answer is not what the contract says.
    #[error("answer outside the contract: {body}")]
    Contract {
        /// What came.
        body: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

impl ClientError {
    /// Whether the refused code may have run, where the server says so.
    #[must_use]
    pub fn may_have_executed(&self) -> Option<bool> {
        match self {
            Self::Refused {
                may_have_executed, ..
            } => *may_have_executed,
            Self::Transport(_) | Self::Contract { .. } => None,
        }
    }

    /// HTTP status and error code of a refusal.
    #[must_use]
    pub fn refusal(&self) -> Option<(u16, &str)> {
        match self {
            Self::Refused { status, code, .. } => Some((*status, code)),
            Self::Transport(_) | Self::Contract { .. } => None,
        }
    }
}

/// `status` of an execution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Status {
    /// The code ran to its end.
    Success,
    /// It raised, was stopped or died.
    Failure,
}

/// `properties` of an execution's answer. Every field is required: clients crash without them.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Executed {
    /// How it ended.
    pub status: Status,
    /// Standard output.
    pub stdout: String,
    /// Standard error and traceback.
    pub stderr: String,
    /// Value of the last expression, `""` for none.
    pub result: Value,
    /// The same under its other name.
    pub execution_result: Value,
    /// Time that the code ran.
    pub execution_time_in_milliseconds: u64,
}

/// A file as `GET files` and `POST files/upload` tell it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StoredFile {
    /// Path relative to `/mnt/data`.
    pub filename: String,
    /// Length in bytes.
    pub size: u64,
    /// Seven fractional digits and `Z`.
    pub last_modified_time: String,
}

#[derive(Deserialize)]
struct Enveloped<T> {
    properties: T,
}

#[derive(Deserialize)]
struct Listed {
    value: Vec<Enveloped<StoredFile>>,
}

/// One pool behind one ingress, with a token.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    endpoint: String,
    token: String,
}

impl Client {
    /// A client of the pool at `endpoint`, its management endpoint without a trailing slash.
    /// Certificates are not verified: a test stack makes its own.
    ///
    /// # Errors
    /// No TLS backend.
    pub fn new(endpoint: impl Into<String>, token: impl Into<String>) -> Result<Self, ClientError> {
        Self::with_certificates(endpoint, token, true)
    }

    /// The same; only with `any` are certificates not verified.
    ///
    /// # Errors
    /// No TLS backend.
    pub fn with_certificates(
        endpoint: impl Into<String>,
        token: impl Into<String>,
        any: bool,
    ) -> Result<Self, ClientError> {
        let http = reqwest::Client::builder()
            .tcp_nodelay(true)
            .pool_idle_timeout(None)
            .timeout(REQUEST_TIMEOUT)
            .danger_accept_invalid_certs(any)
            .no_proxy()
            .build()?;
        Ok(Self {
            http,
            endpoint: endpoint.into(),
            token: token.into(),
        })
    }

    /// The same client with another token.
    #[must_use]
    pub fn with_token(&self, token: impl Into<String>) -> Self {
        Self {
            token: token.into(),
            ..self.clone()
        }
    }

    /// The pool's management endpoint.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The token that it sends.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
    }

    /// A session by name.
    #[must_use]
    pub fn session(&self, identifier: impl Into<String>) -> Session {
        Session {
            client: self.clone(),
            identifier: identifier.into(),
        }
    }

    /// A session that nobody has used before.
    #[must_use]
    pub fn fresh(&self) -> Session {
        self.session(format!("s-{}", Ulid::new()))
    }

    /// A request below the endpoint, with the token and nothing else.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http
            .request(method, format!("{}/{path}", self.endpoint))
            .bearer_auth(&self.token)
    }
}

/// One session of a pool.
#[derive(Clone, Debug)]
pub struct Session {
    client: Client,
    identifier: String,
}

impl Session {
    /// Its name.
    #[must_use]
    pub fn identifier(&self) -> &str {
        &self.identifier
    }

    /// The same session through another client, such as another ingress's.
    #[must_use]
    pub fn through(&self, client: &Client) -> Self {
        client.session(self.identifier.clone())
    }

    /// A request for this session: the client's, with `identifier` and `api-version`.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.versioned(method, path, API_VERSION)
    }

    /// The same for another version of the contract. The path may have a query of its own.
    pub fn versioned(&self, method: Method, path: &str, version: &str) -> RequestBuilder {
        let identifier = escape(&self.identifier);
        let begins = if path.contains('?') { '&' } else { '?' };
        let target = format!("{path}{begins}identifier={identifier}&api-version={version}");
        self.client.request(method, &target)
    }

    /// Runs code.
    ///
    /// # Errors
    /// Anything but an answer about the code.
    pub async fn execute(&self, code: &str) -> Result<Executed, ClientError> {
        self.execute_with(json!({ "code": code })).await
    }

    /// Runs code for at most `seconds`.
    ///
    /// # Errors
    /// As [`Self::execute`].
    pub async fn execute_within(&self, seconds: u32, code: &str) -> Result<Executed, ClientError> {
        self.execute_with(json!({ "code": code, "timeoutInSeconds": seconds }))
            .await
    }

    /// Runs code as the operation of this id, which may be asked for again.
    ///
    /// # Errors
    /// As [`Self::execute`].
    pub async fn execute_as(&self, operation: &str, code: &str) -> Result<Executed, ClientError> {
        let body = json!({ "properties": { "code": code } });
        let request = self.request(Method::POST, "code/execute").json(&body);
        let response = request.header(OPERATION_ID, operation).send().await?;
        let answer: Enveloped<Executed> = read(response).await?;
        Ok(answer.properties)
    }

    async fn execute_with(&self, mut properties: Value) -> Result<Executed, ClientError> {
        if let Some(properties) = properties.as_object_mut() {
            properties.insert("codeInputType".into(), "inline".into());
            properties.insert("executionType".into(), "synchronous".into());
        }
        let request = self.request(Method::POST, "code/execute");
        let answer: Enveloped<Executed> = read(
            request
                .json(&json!({ "properties": properties }))
                .send()
                .await?,
        )
        .await?;
        Ok(answer.properties)
    }

    /// Stores a file under a path relative to `/mnt/data`.
    ///
    /// # Errors
    /// It was not stored.
    pub async fn upload(&self, filename: &str, content: &[u8]) -> Result<StoredFile, ClientError> {
        let body = Multipart::file(filename, content);
        let request = self
            .request(Method::POST, "files/upload")
            .header("content-type", body.content_type())
            .body(body.into_body());
        let mut listed: Listed = read(request.send().await?).await?;
        match (listed.value.pop(), listed.value.is_empty()) {
            (Some(file), true) => Ok(file.properties),
            _ => Err(contract("not exactly one file", "")),
        }
    }

    /// All files of the session.
    ///
    /// # Errors
    /// The list could not be had.
    pub async fn list(&self) -> Result<Vec<StoredFile>, ClientError> {
        let listed: Listed = read(self.request(Method::GET, "files").send().await?).await?;
        Ok(listed
            .value
            .into_iter()
            .map(|file| file.properties)
            .collect())
    }

    /// The content of a file.
    ///
    /// # Errors
    /// There is none, or it could not be had.
    pub async fn download(&self, filename: &str) -> Result<Vec<u8>, ClientError> {
        let path = format!("files/content/{}", escape(filename));
        let answer = accepted(self.request(Method::GET, &path).send().await?).await?;
        Ok(answer.bytes().await?.to_vec())
    }

    /// Removes a file.
    ///
    /// # Errors
    /// There is none, or it could not be removed.
    pub async fn delete_file(&self, filename: &str) -> Result<(), ClientError> {
        let path = format!("files/{}", escape(filename));
        accepted(self.request(Method::DELETE, &path).send().await?)
            .await
            .map(drop)
    }

    /// Ends the session.
    ///
    /// # Errors
    /// There is none, or it could not be ended.
    pub async fn delete(&self) -> Result<(), ClientError> {
        let request = self.versioned(Method::DELETE, "session", SESSION_API_VERSION);
        accepted(request.send().await?).await.map(drop)
    }
}

/// Percent-encodes everything but unreserved characters and `/`.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

/// The response if its status is a success, else the refusal that it holds.
///
/// # Errors
/// A status outside 200..300.
pub async fn accepted(response: Response) -> Result<Response, ClientError> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let retry_after = response.headers().get("retry-after");
    let retry_after = retry_after.and_then(|value| value.to_str().ok()?.parse().ok());
    Err(refused(status, retry_after, &response.text().await?))
}

fn refused(status: StatusCode, retry_after: Option<u64>, body: &str) -> ClientError {
    let json: Value = serde_json::from_str(body).unwrap_or_default();
    let text = |pointer| {
        json.pointer(pointer)
            .and_then(Value::as_str)
            .map(str::to_owned)
    };
    ClientError::Refused {
        status: status.as_u16(),
        code: text("/error/code").unwrap_or_default(),
        message: text("/error/message").unwrap_or_else(|| body.to_owned()),
        retry_after,
        may_have_executed: json
            .pointer("/error/innererror/mayHaveExecuted")
            .and_then(Value::as_bool),
    }
}

async fn read<T: DeserializeOwned>(response: Response) -> Result<T, ClientError> {
    let body = accepted(response).await?.text().await?;
    serde_json::from_str(&body).map_err(|source| ClientError::Contract { body, source })
}

fn contract(what: &'static str, body: &str) -> ClientError {
    let source = <serde_json::Error as serde::de::Error>::custom(what);
    ClientError::Contract {
        body: body.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_escaped_byte_by_byte() {
        assert_eq!(
            escape("user|1-(a){b}[c];#&%"),
            "user%7C1-%28a%29%7Bb%7D%5Bc%5D%3B%23%26%25"
        );
        assert_eq!(escape("sub/ž x.txt"), "sub/%C5%BE%20x.txt");
    }

    #[test]
    fn a_refusal_carries_status_and_code() {
        let body = r#"{"error":{"code":"SessionPropertiesMissing","message":"code is missing"}}"#;
        let error = refused(StatusCode::BAD_REQUEST, None, body);
        assert_eq!(error.refusal(), Some((400, "SessionPropertiesMissing")));
    }
}
