//! The files of a session that are uploaded, downloaded, listed and deleted as wholes.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Findings, Kind, Session,
    register::{Step, StepKind, first_unexplained},
    told,
};
use crate::chaos::{
    content,
    history::{Action, Answer, Call, Effect, LOG},
};

/// Calls beside the unexplained one that are told.
const AROUND: usize = 12;

pub(super) fn check(session: &Session<'_>, found: &mut Findings) {
    for call in &session.calls {
        if let Some(Answer::Alien(what)) = call.answer() {
            found.add(
                Kind::ForeignBytes,
                session.name,
                what.clone(),
                vec![told(call)],
            );
        }
    }
    let paths: BTreeSet<&str> = session.calls.iter().filter_map(|call| path(call)).collect();
    for path in paths.into_iter().filter(|path| *path != LOG) {
        File::of(session, path, found).check(session.name, found);
    }
}

fn path(call: &Call) -> Option<&str> {
    match &call.action {
        Action::Upload(path, _) | Action::Download(path) | Action::Delete(path) => Some(path),
        Action::Append(_) | Action::Peek | Action::List => None,
    }
}

/// One file's calls and what they mean for its content.
struct File<'a> {
    path: &'a str,
    steps: Vec<Step>,
    /// The call of each step.
    calls: Vec<&'a Call>,
}

/// What the uploads to a path were told, by content.
type Uploads<'a> = BTreeMap<u32, (Effect, &'a Call)>;

impl<'a> File<'a> {
    fn of(session: &Session<'a>, path: &'a str, found: &mut Findings) -> Self {
        let mut uploads: Uploads<'_> = BTreeMap::new();
        for call in &session.calls {
            if let Action::Upload(other, content) = &call.action
                && other == path
            {
                let (effect, _) = uploads.entry(*content).or_insert((Effect::No, call));
                *effect = call.effect().max(*effect);
            }
        }
        let mut file = Self {
            path,
            steps: Vec::new(),
            calls: Vec::new(),
        };
        for call in &session.calls {
            let Some(kind) = step(call, path, &uploads) else {
                continue;
            };
            match kind {
                Ok(kind) if is_possible(&kind, &uploads, call, session.name, found) => {
                    file.steps.push(Step {
                        sent_us: call.sent_us,
                        kind,
                    });
                    file.calls.push(call);
                }
                Ok(_) => {}
                Err(size) => {
                    let what = format!("{path} has {size} bytes, which no upload to it had");
                    found.add(Kind::ForeignBytes, session.name, what, vec![told(call)]);
                }
            }
        }
        file
    }

    fn check(&self, session: &str, found: &mut Findings) {
        let Some(place) = first_unexplained(&self.steps) else {
            return;
        };
        let Some(call) = self.calls.get(place) else {
            return;
        };
        let what = format!(
            "{} cannot be as it was found, whatever happened before",
            self.path
        );
        let mut before: Vec<_> = self
            .calls
            .iter()
            .filter(|other| other.sent_us < call.answered_us() && other.number != call.number)
            .collect();
        before.sort_by_key(|other| other.sent_us);
        let latest = before.iter().rev().take(AROUND).rev();
        let evidence = latest.map(|call| told(call)).chain([told(call)]).collect();
        found.add(Kind::LostBytes, session, what, evidence);
    }
}

/// What a call says about the content of a path: `None` for nothing, an error for a size that none of
/// the uploads has.
fn step(call: &Call, path: &str, uploads: &Uploads<'_>) -> Option<Result<StepKind, u64>> {
    let at = call.answered_us();
    let write = |value| match call.effect() {
        Effect::Yes => Some(Ok(StepKind::Write(value, at))),
        Effect::Maybe => Some(Ok(StepKind::MaybeWrite(value))),
        Effect::No => None,
    };
    let read = |value| Some(Ok(StepKind::Read(value, at)));
    match (&call.action, call.answer()) {
        (Action::Upload(other, content), _) if other == path => write(Some(*content)),
        (Action::Delete(other) | Action::Download(other), Some(Answer::Missing))
            if other == path =>
        {
            read(None)
        }
        (Action::Delete(other), _) if other == path => write(None),
        (Action::Download(other), Some(Answer::Content(content))) if other == path => {
            read(Some(*content))
        }
        (Action::List, Some(Answer::Files(sizes))) => match sizes.get(path) {
            None => read(None),
            Some(size) => {
                let of = uploads
                    .keys()
                    .find(|content| content::size(**content) == *size);
                of.map_or(Some(Err(*size)), |content| read(Some(*content)))
            }
        },
        _ => None,
    }
}

/// Whether a value that was read is one that some upload could have left.
fn is_possible(
    kind: &StepKind,
    uploads: &Uploads<'_>,
    call: &Call,
    session: &str,
    found: &mut Findings,
) -> bool {
    let StepKind::Read(Some(content), _) = kind else {
        return true;
    };
    match uploads.get(content) {
        None => {
            let what = format!("content {content} was never sent to this path");
            found.add(Kind::ForeignBytes, session, what, vec![told(call)]);
            false
        }
        Some((Effect::No, upload)) => {
            let what = format!("content {content} was refused as not stored, but is there");
            found.add(
                Kind::RefusedButDone,
                session,
                what,
                vec![told(upload), told(call)],
            );
            false
        }
        Some(_) => true,
    }
}
