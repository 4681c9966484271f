//! Display outputs of a cell, bounded while they come.

use std::sync::Arc;

use proto::{
    execution::Bundle,
    limits::{DISPLAY_BYTES, DISPLAYS},
};

use super::{bounds, frame::Mime};
use crate::outlet::Outlet;

/// The first display outputs, at most [`DISPLAYS`] with at most [`DISPLAY_BYTES`] together; the rest is
/// counted and dropped.
#[derive(Debug)]
pub(super) struct Displays<'a> {
    kept: Vec<Bundle>,
    bytes: usize,
    dropped: u64,
    /// Gets all of them as they come.
    outlet: Option<&'a Arc<Outlet>>,
}

impl<'a> Displays<'a> {
    /// None yet.
    pub(super) fn through(outlet: Option<&'a Arc<Outlet>>) -> Self {
        Self {
            kept: vec![],
            bytes: 0,
            dropped: 0,
            outlet,
        }
    }

    /// Takes one.
    pub(super) fn push(&mut self, mime: Mime) {
        let mut bundle = Bundle::from(mime);
        let cut = bounds::cut_texts(&mut bundle);
        if let Some(outlet) = self.outlet {
            outlet.display(&bundle);
        }
        let sizes = bundle
            .0
            .iter()
            .map(|(mime, content)| mime.len() + content.len());
        let size: usize = sizes.sum();
        if self.kept.len() < DISPLAYS && self.bytes.saturating_add(size) <= DISPLAY_BYTES {
            self.bytes += size;
            self.kept.push(bundle);
            self.dropped += u64::from(cut);
        } else {
            self.dropped += 1;
        }
    }

    /// Those that were kept, and how many were dropped or cut.
    pub(super) fn into_kept(self) -> (Vec<Bundle>, u64) {
        (self.kept, self.dropped)
    }
}

#[cfg(test)]
mod tests {
    use proto::limits::OUTPUT_TEXT_BYTES;

    use super::*;

    fn mime(text: &str) -> Mime {
        let json = serde_json::json!({ "text/plain": text });
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn more_displays_than_are_kept_are_counted() {
        let mut displays = Displays::through(None);
        for _ in 0..DISPLAYS + 2 {
            displays.push(mime("a"));
        }
        let (kept, dropped) = displays.into_kept();
        assert_eq!((kept.len(), dropped), (DISPLAYS, 2));
    }

    #[test]
    fn a_long_display_leaves_room_for_a_short_one_after_it() {
        let mut displays = Displays::through(None);
        let long = "a".repeat(OUTPUT_TEXT_BYTES);
        let fit = DISPLAY_BYTES / OUTPUT_TEXT_BYTES;
        for _ in 0..fit {
            displays.push(mime(&long));
        }
        displays.push(mime("short"));
        let (kept, dropped) = displays.into_kept();
        assert_eq!((kept.len(), dropped), (fit, 1));
    }
}
