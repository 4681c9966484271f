//! Display outputs of a cell, bounded while they come.

use std::sync::Arc;

use proto::{
    execution::Bundle,
    limits::{DISPLAY_BYTES, DISPLAYS},
};

use super::{bounds, frame::Mime};
use crate::outlet::Outlet;

/// Display outputs, at most [`DISPLAYS`] with at most [`DISPLAY_BYTES`] together: the first ones, the last image
/// and the last of all, which is what a contract's one `result` is made of. The rest is counted and dropped.
#[derive(Debug)]
pub(super) struct Displays<'a> {
    kept: Vec<Kept>,
    bytes: usize,
    dropped: u64,
    cut: u64,
    /// Gets all of them as they come.
    outlet: Option<&'a Arc<Outlet>>,
}

#[derive(Debug)]
struct Kept {
    name: Option<u32>,
    bundle: Bundle,
}

impl Kept {
    fn size(&self) -> usize {
        let forms = self.bundle.0.iter();
        forms
            .map(|(mime, content)| mime.len() + content.len())
            .sum()
    }

    fn is_image(&self) -> bool {
        self.bundle
            .0
            .iter()
            .any(|(mime, _)| mime.starts_with("image/"))
    }
}

impl<'a> Displays<'a> {
    /// None yet.
    pub(super) fn through(outlet: Option<&'a Arc<Outlet>>) -> Self {
        Self {
            kept: vec![],
            bytes: 0,
            dropped: 0,
            cut: 0,
            outlet,
        }
    }

    /// Takes one.
    pub(super) fn push(&mut self, name: Option<u32>, mime: Mime) {
        let bundle = self.take(name, false, mime);
        self.keep(Kept { name, bundle });
    }

    /// Takes one that replaces those of its name. Where there are none, as when they belong to an earlier
    /// execution or were dropped, it is one like others.
    pub(super) fn update(&mut self, name: Option<u32>, mime: Mime) {
        let bundle = self.take(name, true, mime);
        let new = Kept { name, bundle };
        let is_replaced = |old: &Kept| name.is_some() && old.name == name;
        let old = self.kept.iter().filter(|old| is_replaced(old));
        let (count, bytes) = old.fold((0, 0), |(n, bytes), old| (n + 1, bytes + old.size()));
        if count == 0 {
            return self.keep(new);
        }
        let others = self.bytes - bytes;
        if others.saturating_add(new.size().saturating_mul(count)) > DISPLAY_BYTES {
            self.kept.retain(|old| !is_replaced(old));
            self.bytes = others;
            return self.keep(new);
        }
        self.bytes = others + new.size() * count;
        for old in self.kept.iter_mut().filter(|old| is_replaced(old)) {
            old.bundle = new.bundle.clone();
        }
    }

    /// Takes all of them back.
    pub(super) fn clear(&mut self) {
        if let Some(outlet) = self.outlet {
            outlet.clear();
        }
        *self = Self::through(self.outlet);
    }

    /// Those that were kept, how many were dropped, and of how many some text was cut.
    pub(super) fn into_kept(self) -> (Vec<Bundle>, u64, u64) {
        let kept = self.kept.into_iter().map(|kept| kept.bundle).collect();
        (kept, self.dropped, self.cut)
    }

    fn take(&mut self, name: Option<u32>, update: bool, mime: Mime) -> Bundle {
        let mut bundle = Bundle::from(mime);
        self.cut += u64::from(bounds::cut_texts(&mut bundle));
        if let Some(outlet) = self.outlet {
            outlet.display(&bundle, name, update);
        }
        bundle
    }

    fn keep(&mut self, new: Kept) {
        let size = new.size();
        if size > DISPLAY_BYTES {
            self.dropped += 1;
            return;
        }
        while self.kept.len() >= DISPLAYS || self.bytes + size > DISPLAY_BYTES {
            let Some(old) = self.least_wanted(&new) else {
                break;
            };
            self.bytes -= self.kept.remove(old).size();
            self.dropped += 1;
        }
        self.bytes += size;
        self.kept.push(new);
    }

    /// Which one makes room: the last but for the last image, if the new one is none.
    fn least_wanted(&self, new: &Kept) -> Option<usize> {
        let last = self.kept.len().checked_sub(1)?;
        let image = match new.is_image() {
            true => None,
            false => self.kept.iter().rposition(Kept::is_image),
        };
        match image {
            Some(image) if image == last && last > 0 => Some(last - 1),
            _ => Some(last),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
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
            displays.push(None, mime("a"));
        }
        let (kept, dropped, _) = displays.into_kept();
        assert_eq!((kept.len(), dropped), (DISPLAYS, 2));
    }

    #[test]
    fn a_long_display_leaves_room_for_a_short_one_after_it() {
        let mut displays = Displays::through(None);
        let long = "a".repeat(OUTPUT_TEXT_BYTES);
        let fit = DISPLAY_BYTES / OUTPUT_TEXT_BYTES;
        for _ in 0..fit {
            displays.push(None, mime(&long));
        }
        displays.push(None, mime("short"));
        let (kept, dropped, _) = displays.into_kept();
        assert_eq!((kept.len(), dropped), (fit, 1));
        assert_eq!(kept.last().unwrap().get("text/plain"), Some("short"));
    }

    fn image(content: &str) -> Mime {
        let json = serde_json::json!({ "image/png": content });
        serde_json::from_value(json).unwrap()
    }

    fn texts(kept: &[Bundle]) -> Vec<&str> {
        let contents = kept.iter().map(|bundle| bundle.0.first().unwrap());
        contents.map(|(_, content)| content.as_str()).collect()
    }

    #[test]
    fn the_first_the_last_image_and_the_last_of_all_are_kept() {
        let mut displays = Displays::through(None);
        for n in 0..100 {
            displays.push(None, image(&format!("image {n}")));
        }
        for n in 0..100 {
            displays.push(None, mime(&format!("text {n}")));
        }
        let (kept, dropped, _) = displays.into_kept();
        assert_eq!((kept.len(), dropped), (DISPLAYS, 200 - DISPLAYS as u64));
        let texts = texts(&kept);
        assert_eq!(texts[..2], ["image 0", "image 1"]);
        assert_eq!(texts[DISPLAYS - 3..], ["image 61", "image 99", "text 99"]);
    }

    #[test]
    fn an_image_after_many_texts_is_kept() {
        let mut displays = Displays::through(None);
        for n in 0..DISPLAYS {
            displays.push(None, mime(&n.to_string()));
        }
        displays.push(None, image("chart"));
        let (kept, dropped, _) = displays.into_kept();
        assert_eq!((texts(&kept)[DISPLAYS - 1], dropped), ("chart", 1));
    }

    #[test]
    fn an_update_replaces_all_of_its_name_where_they_stand() {
        let mut displays = Displays::through(None);
        displays.push(Some(1), mime("0 of 2"));
        displays.push(Some(2), mime("other"));
        displays.push(Some(1), mime("0 of 2"));
        displays.push(None, mime("last"));
        displays.update(Some(1), mime("2 of 2"));
        displays.update(Some(3), mime("of an earlier execution"));
        displays.update(None, mime("of no name"));
        let bytes = displays.bytes;
        let (kept, ..) = displays.into_kept();
        let expected = [
            "2 of 2",
            "other",
            "2 of 2",
            "last",
            "of an earlier execution",
            "of no name",
        ];
        assert_eq!(texts(&kept), expected);
        let sizes = expected.iter().map(|text| text.len() + "text/plain".len());
        assert_eq!(bytes, sizes.sum::<usize>());
    }

    #[test]
    fn what_is_taken_back_leaves_all_the_room() {
        let mut displays = Displays::through(None);
        for _ in 0..DISPLAYS + 2 {
            displays.push(Some(1), mime("a"));
        }
        displays.clear();
        displays.push(None, mime("b"));
        let (kept, dropped, cut) = displays.into_kept();
        assert_eq!((texts(&kept), dropped, cut), (vec!["b"], 0, 0));
    }

    proptest! {
        #[test]
        fn the_bounds_hold_whatever_comes(steps in proptest::collection::vec((0..12_u8, 0..3_u32, 0..12_usize), 0..40)) {
            let mut displays = Displays::through(None);
            for (kind, name, mebibytes) in steps {
                let content = "x".repeat(mebibytes << 20);
                match kind {
                    0..5 => displays.push(Some(name), mime(&content)),
                    5..8 => displays.push(Some(name), image(&content)),
                    8..11 => displays.update(Some(name), image(&content)),
                    _ => displays.clear(),
                }
                let sizes = displays.kept.iter().map(Kept::size);
                prop_assert_eq!(sizes.sum::<usize>(), displays.bytes);
                prop_assert!(displays.bytes <= DISPLAY_BYTES && displays.kept.len() <= DISPLAYS);
            }
        }
    }
}
