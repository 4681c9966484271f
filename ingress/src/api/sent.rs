//! A field of a body as it was sent. One of the wrong kind is refused where it is used, and not where it means
//! nothing.

use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::Value;

use crate::error::ApiError;

/// What a field holds.
#[derive(Debug, Default)]
pub enum Sent<T> {
    /// It is not there.
    #[default]
    Nothing,
    /// `null`.
    Null,
    /// What it cannot hold.
    Wrong,
    /// What it can.
    Value(T),
}

impl<T> Sent<T> {
    /// Whether the body names the field.
    pub fn is_there(&self) -> bool {
        !matches!(self, Self::Nothing)
    }

    /// What it holds; nothing is as good as `null`.
    ///
    /// # Errors
    /// It holds something of another kind.
    pub fn read(self, name: &str, kind: &str) -> Result<Option<T>, ApiError> {
        match self {
            Self::Nothing | Self::Null => Ok(None),
            Self::Value(value) => Ok(Some(value)),
            Self::Wrong => Err(wrong(name, kind)),
        }
    }
}

impl Sent<String> {
    /// The text that it holds.
    ///
    /// # Errors
    /// It holds something else.
    pub fn text(self, name: &str) -> Result<Option<String>, ApiError> {
        self.read(name, "a string")
    }
}

impl Sent<bool> {
    /// Whether it is set.
    ///
    /// # Errors
    /// It holds something else.
    pub fn flag(self, name: &str) -> Result<bool, ApiError> {
        Ok(self.read(name, "true or false")?.unwrap_or_default())
    }
}

impl Sent<i64> {
    /// The number that it holds.
    ///
    /// # Errors
    /// It holds something else, or less than `least`.
    pub fn at_least(self, least: u64, name: &str) -> Result<Option<u64>, ApiError> {
        let kind = format!("a whole number of at least {least}");
        let number = self.read(name, &kind)?.map(u64::try_from);
        match number.transpose() {
            Ok(number) if number.is_none_or(|number| number >= least) => Ok(number),
            _ => Err(wrong(name, &kind)),
        }
    }
}

fn wrong(name: &str, kind: &str) -> ApiError {
    ApiError::invalid(format!("`{name}` is not {kind}"))
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Sent<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match Value::deserialize(deserializer)? {
            Value::Null => Self::Null,
            value => serde_json::from_value(value).map_or(Self::Wrong, Self::Value),
        })
    }
}
