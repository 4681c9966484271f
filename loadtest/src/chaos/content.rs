//! Contents of uploaded files: each number stands for one, and every one has a size of its own, so
//! that a list tells which is there.

use crate::chance::Chance;

/// What every content begins with, before its number.
const HEAD: &str = "hearth-chaos ";
/// Sizes: inside a message, by reference, and in several chunks.
const SIZES: [u64; 3] = [1000, 300_000, 4_700_000];
/// Of so many numbers in a row, one has the middle size and one the largest.
const ROUND: u32 = 16;

/// Length of the content of this number.
#[must_use]
pub fn size(number: u32) -> u64 {
    let [small, middle, large] = SIZES;
    let base = match number % ROUND {
        3 => large,
        7 | 11 => middle,
        _ => small,
    };
    base + u64::from(number)
}

/// The content of this number.
#[must_use]
pub fn of(number: u32) -> Vec<u8> {
    let size = usize::try_from(size(number)).unwrap_or_default();
    let mut bytes = format!("{HEAD}{number}\n").into_bytes();
    let mut chance = Chance::new(number.into());
    while bytes.len() < size {
        bytes.extend_from_slice(&chance.draw().to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

/// The number of this content.
///
/// # Errors
/// It is none, or not whole; the text says how far it is one.
pub fn number_of(bytes: &[u8]) -> Result<u32, String> {
    let line = bytes
        .split(|&byte| byte == b'\n')
        .next()
        .unwrap_or_default();
    let number = std::str::from_utf8(line)
        .ok()
        .and_then(|line| line.strip_prefix(HEAD));
    let Some(number) = number.and_then(|number| number.parse().ok()) else {
        return Err(format!(
            "{} bytes that do not begin as any content",
            bytes.len()
        ));
    };
    let whole = of(number);
    if whole == bytes {
        return Ok(number);
    }
    let same = whole
        .iter()
        .zip(bytes)
        .take_while(|(one, other)| one == other)
        .count();
    Err(format!(
        "{} bytes of which the first {same} are those of content {number}, which has {}",
        bytes.len(),
        whole.len()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_are_told_apart_by_bytes_and_by_size() {
        let sizes: std::collections::BTreeSet<u64> = (0..5000).map(size).collect();
        assert_eq!(sizes.len(), 5000);
        for number in [0, 3, 7, 15, 4096] {
            let content = of(number);
            assert_eq!(content.len() as u64, size(number));
            assert_eq!(number_of(&content), Ok(number));
        }
    }

    #[test]
    fn a_torn_content_is_none() {
        let whole = of(7);
        assert!(number_of(&whole[..whole.len() - 1]).is_err());
        let mut mixed = whole.clone();
        mixed[200_000] ^= 1;
        let told = number_of(&mixed).unwrap_err();
        assert!(told.contains("the first 200000 "), "{told}");
        assert!(number_of(b"").is_err() && number_of(b"other").is_err());
    }
}
