//! Sessions themselves: described, listed, ended; also in the spelling of `.management`, which has
//! other names for some of it. There both names are told.

use axum::{Json, http::StatusCode, response::IntoResponse};
use proto::limits::SESSION_PAGE;
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    api::{
        front::Caller,
        schema::{
            answers::{Refused, RefusedInSession},
            parameters::{InSession, Paged},
        },
        timestamp::timestamp,
    },
    error::{ApiError, ErrorCode},
    sessions::Living,
};

/// `GET session`
#[utoipa::path(get, path = "/session", operation_id = "getSession", tag = "sessions",
    summary = "Tell of a session", params(InSession),
    responses((status = 200, description = "The session.", body = Session), Refused))]
pub async fn get(caller: Caller) -> Result<impl IntoResponse, ApiError> {
    Ok(Json(Session::from(&find(&caller).await?)))
}

/// `DELETE session`
#[utoipa::path(delete, path = "/session", operation_id = "deleteSession", tag = "sessions",
    summary = "End a session", params(InSession),
    responses((status = 204, description = "It has ended, with all its files."), RefusedInSession))]
pub async fn delete(caller: Caller) -> Result<StatusCode, ApiError> {
    end(&caller).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET listSessions`
#[utoipa::path(get, path = "/listSessions", operation_id = "listSessions", tag = "sessions",
    summary = "List the pool's sessions", params(Paged),
    responses((status = 200, description = "A page of them.", body = Sessions), Refused))]
pub async fn list(caller: Caller) -> Result<impl IntoResponse, ApiError> {
    let (sessions, next_link) = page(&caller).await?;
    let sessions = sessions.iter().map(Session::from).collect();
    Ok(Json(Sessions {
        sessions,
        next_link,
    }))
}

/// `.management/getSession`
#[utoipa::path(post, path = "/.management/getSession", operation_id = "getManagedSession",
    tag = "management", summary = "Tell of a session", params(InSession),
    responses((status = 200, description = "The session.", body = Managed), Refused))]
pub async fn get_managed(caller: Caller) -> Result<impl IntoResponse, ApiError> {
    Ok(Json(Managed::from(&find(&caller).await?)))
}

/// `.management/listSessions`
#[utoipa::path(post, path = "/.management/listSessions", operation_id = "listManagedSessions",
    tag = "management", summary = "List the pool's sessions", params(Paged),
    responses((status = 200, description = "A page of them.", body = ManagedSessions), Refused))]
pub async fn list_managed(caller: Caller) -> Result<impl IntoResponse, ApiError> {
    let (sessions, next_link) = page(&caller).await?;
    let value: Vec<Managed> = sessions.iter().map(Managed::from).collect();
    Ok(Json(ManagedSessions {
        count: value.len(),
        sessions: value.clone(),
        value,
        next_link,
    }))
}

/// `.management/stopSession`
#[utoipa::path(post, path = "/.management/stopSession", operation_id = "stopManagedSession",
    tag = "management", summary = "End a session", params(InSession),
    responses((status = 200, description = "It has ended.", body = String, content_type = "text/plain"),
              RefusedInSession))]
pub async fn stop(caller: Caller) -> Result<String, ApiError> {
    let session = caller.session()?;
    end(&caller).await?;
    let (identifier, pool) = (session.identifier, &caller.pool.name);
    Ok(format!(
        "Session {identifier} in session pool {pool} stopped."
    ))
}

/// `POST session/interrupt` and `.management/interruptSession`: whatever runs stops, and the session's
/// variables stay.
#[utoipa::path(post, path = "/session/interrupt", operation_id = "interruptSession", tag = "sessions",
    summary = "Stop what runs and keep its variables", params(InSession),
    responses((status = 200, description = "It was told.", body = Interrupt), RefusedInSession))]
pub async fn interrupt(caller: Caller) -> Result<impl IntoResponse, ApiError> {
    let session = caller.session()?;
    let interrupted = caller.app.service.interrupt(&session).await?;
    let interrupted = interrupted.ok_or_else(not_running)?;
    Ok(Json(Interrupt { interrupted }))
}

async fn find(caller: &Caller) -> Result<Living, ApiError> {
    let session = caller.session()?;
    let found = caller.app.service.living(&session).await?;
    found.ok_or_else(not_running)
}

async fn end(caller: &Caller) -> Result<(), ApiError> {
    let session = caller.session()?;
    let stopped = caller.app.service.stop(&session).await?;
    stopped.ok_or_else(not_running)
}

fn not_running() -> ApiError {
    ApiError::new(
        ErrorCode::SessionWithIdentifierNotFound,
        "no session with this identifier is running",
    )
}

/// One page of the pool's sessions, and where the next is.
async fn page(caller: &Caller) -> Result<(Vec<Living>, Option<String>), ApiError> {
    let skip = usize::try_from(caller.query.skip()?).unwrap_or(usize::MAX);
    let sessions = caller.app.service.sessions(&caller.pool).await?;
    let (page, next) = cut(sessions, skip);
    let link = next.map(|next| caller.here.with("skip", &next.to_string()));
    Ok((page, link))
}

/// The page after `skip` entries, and how many to skip for the next if there is one.
fn cut<T>(all: Vec<T>, skip: usize) -> (Vec<T>, Option<usize>) {
    let next = skip.saturating_add(SESSION_PAGE);
    let next = (next < all.len()).then_some(next);
    (
        all.into_iter().skip(skip).take(SESSION_PAGE).collect(),
        next,
    )
}

/// Whether something was interrupted.
#[derive(Serialize, ToSchema)]
struct Interrupt {
    /// False if nothing ran.
    interrupted: bool,
}

/// A page of sessions.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Sessions {
    sessions: Vec<Session>,
    /// Where the next page is, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    next_link: Option<String>,
}

/// A page of sessions.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct ManagedSessions {
    value: Vec<Managed>,
    sessions: Vec<Managed>,
    /// How many are on the page.
    count: usize,
    /// Where the next page is; null if there is none.
    #[schema(required)]
    next_link: Option<String>,
}

/// A session.
#[derive(Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Session {
    identifier: String,
    /// Names this life of it.
    #[schema(format = "uuid")]
    etag: String,
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(format = DateTime)]
    last_accessed_at: String,
    #[schema(format = DateTime)]
    expire_at: String,
}

/// A session.
#[derive(Clone, Serialize, ToSchema)]
#[schema(as = ManagedSession)]
#[serde(rename_all = "camelCase")]
struct Managed {
    #[serde(flatten)]
    #[schema(inline)]
    session: Session,
    #[schema(format = DateTime)]
    expires_at: String,
}

impl From<&Living> for Session {
    fn from(living: &Living) -> Self {
        Self {
            identifier: living.identifier.to_string(),
            etag: living.incarnation.guid(),
            created_at: timestamp(living.created()),
            last_accessed_at: timestamp(living.last_used),
            expire_at: timestamp(living.expires),
        }
    }
}

impl From<&Living> for Managed {
    fn from(living: &Living) -> Self {
        Self {
            session: living.into(),
            expires_at: timestamp(living.expires),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_pages_together_are_the_whole(count in 0..2000_usize) {
            let all: Vec<usize> = (0..count).collect();
            let (mut seen, mut skip) = (vec![], Some(0));
            while let Some(at) = skip {
                let (page, next) = cut(all.clone(), at);
                prop_assert!(page.len() <= SESSION_PAGE);
                seen.extend(page);
                skip = next;
            }
            prop_assert_eq!(seen, all);
        }
    }
}
